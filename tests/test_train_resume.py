"""A run that was stopped in any way and resumed ends in the same bits as one that never was, and so does its log."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_with_torch
from torch import Tensor
from train_helpers import Noise, Tiny, flip_a_bit, score, settings, steady, tiny

from vistalib.train import INTERRUPTED, DamagedCheckpoint, Interrupted, fit, load_checkpoint, read_log

Reference = tuple[dict[str, Tensor], list[dict[str, Any]]]


class Power(Exception):
    """The power fails."""


class Failing(Noise):
    """Ends everything in the place of iteration `at`."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def batches(self, start: int) -> Iterator[dict[str, Tensor]]:
        for iteration, batch in enumerate(super().batches(start), start):
            if iteration == self.at:
                raise Power
            yield batch


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("never_stopped")
    model = tiny()
    fit(model, Noise(), settings(), folder=folder, evaluate=score)
    return model.state_dict(), steady(read_log(folder))


def assert_resumes_to(reference: Reference, folder: Path) -> None:
    """Resume with a model of other initial weights, and compare weights, the last checkpoint and the log with `reference`."""
    model = tiny(seed=99)
    result = fit(model, Noise(), settings(), folder=folder, evaluate=score, resume=True)
    state, lines = reference
    saved = load_checkpoint(result.last).model
    assert all(
        torch.equal(value, state[name]) and torch.equal(saved[name], state[name]) for name, value in model.state_dict().items()
    )
    assert steady(read_log(folder)) == lines


@pytest.mark.parametrize("at", [3, 4, 5, 7, 8, 9, 11])
def test_killed_between_steps(tmp_path: Path, never_stopped: Reference, at: int) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(at), settings(), folder=tmp_path, evaluate=score)
    assert_resumes_to(never_stopped, tmp_path)


def test_killed_twice(tmp_path: Path, never_stopped: Reference) -> None:
    for at in (5, 10):
        with pytest.raises(Power):
            fit(tiny(), Failing(at), settings(), folder=tmp_path, evaluate=score, resume=True)
    assert_resumes_to(never_stopped, tmp_path)


def test_killed_before_the_first_checkpoint(tmp_path: Path, never_stopped: Reference) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(2), settings(), folder=tmp_path, evaluate=score)
    model = tiny()
    fit(model, Noise(), settings(), folder=tmp_path, evaluate=score, resume=True)
    assert all(torch.equal(value, never_stopped[0][name]) for name, value in model.state_dict().items())
    assert steady(read_log(tmp_path)) == never_stopped[1]


def test_killed_in_an_evaluation(tmp_path: Path, never_stopped: Reference) -> None:
    def fail(model: object) -> dict[str, float]:
        raise Power

    with pytest.raises(Power):
        fit(tiny(), Noise(), settings(), folder=tmp_path, evaluate=fail)
    assert_resumes_to(never_stopped, tmp_path)


def test_finished_run_is_left_as_it_is(tmp_path: Path, never_stopped: Reference) -> None:
    fit(tiny(), Noise(), settings(), folder=tmp_path, evaluate=score)
    before = (tmp_path / "log.jsonl").read_bytes()
    assert_resumes_to(never_stopped, tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_half_written_line_of_the_log_is_cut(tmp_path: Path, never_stopped: Reference) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(7), settings(), folder=tmp_path, evaluate=score)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "itera')
    assert_resumes_to(never_stopped, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.1, 0.3])
def test_sigkill_of_a_process(tmp_path: Path, never_stopped: Reference, seconds: float) -> None:
    process = start_process(tmp_path)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert_resumes_to(never_stopped, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trial forks")
@pytest.mark.parametrize("every", [83, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_at_any_touch_of_its_folder(tmp_path: Path, every: int) -> None:
    said = run_with_torch(f"from pathlib import Path; from train_kills import main; main(Path({str(tmp_path)!r}), {every})")
    kills, different = map(int, said.splitlines()[-1].split())
    assert kills >= 300 // every
    assert different == 0, said


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["SIGTERM", "SIGINT"]
)
def test_signal_writes_a_checkpoint_and_exits_with_its_own_status(
    tmp_path: Path, never_stopped: Reference, number: int
) -> None:
    process = start_process(tmp_path)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == INTERRUPTED == 75
    assert_resumes_to(never_stopped, tmp_path)


def start_process(folder: Path) -> "subprocess.Popen[str]":
    """Start the run in a process of its own, slowed down, and return once it has written its first checkpoint."""
    script = (
        "import sys, time\n"
        "from train_helpers import Noise, score, settings, tiny\n"
        "from vistalib.train import fit\n"
        "class Slow(Noise):\n"
        "    def batches(self, start):\n"
        "        for batch in super().batches(start):\n"
        "            time.sleep(0.05)\n"
        "            yield batch\n"
        "tell = lambda line: print(line['iteration'], flush=True)\n"
        "fit(tiny(), Slow(), settings(), folder=sys.argv[1], evaluate=score, on_log=tell)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "4":
        assert process.poll() is None
    return process


def test_signal_in_an_evaluation_does_not_wait_for_its_end(tmp_path: Path, never_stopped: Reference) -> None:
    def long(model: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the evaluation went on")

    with pytest.raises(Interrupted) as caught:
        fit(tiny(), Noise(), settings(), folder=tmp_path, evaluate=long)
    assert caught.value.checkpoint.name == "iter_000004"
    assert_resumes_to(never_stopped, tmp_path)


def test_signal_in_an_evaluation_promises_no_checkpoint_that_could_not_be_written(tmp_path: Path) -> None:
    def full(model: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the evaluation went on")

    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(OSError, match="iter_000004 could not be written"):
        fit(tiny(), Noise(), settings(checkpoint_every=12), folder=tmp_path, evaluate=full, resume=True)


def test_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    fit(tiny(), Noise(), settings(), folder=tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_flipped_bit_is_found_and_the_checkpoint_before_is_used(tmp_path: Path, never_stopped: Reference, name: str) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(7), settings(), folder=tmp_path, evaluate=score)
    flip_a_bit(tmp_path / "checkpoints/iter_000006" / name)
    with pytest.warns(UserWarning, match="iter_000006.*going back to the one before it"):
        assert_resumes_to(never_stopped, tmp_path)
    assert (tmp_path / "checkpoints/iter_000006.damaged").is_dir()


def test_folder_without_manifest_is_found_and_the_checkpoint_before_is_used(tmp_path: Path, never_stopped: Reference) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(7), settings(), folder=tmp_path, evaluate=score)
    (tmp_path / "checkpoints/iter_000006/manifest.json").unlink()
    with pytest.warns(UserWarning, match="iter_000006 is not a whole checkpoint"):
        assert_resumes_to(never_stopped, tmp_path)


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path, never_stopped: Reference) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(8), settings(), folder=tmp_path, evaluate=score)
    half = tmp_path / "checkpoints/.iter_000009.abc"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert_resumes_to(never_stopped, tmp_path)
    assert not half.exists()


def test_run_whose_every_checkpoint_is_damaged_is_not_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(8), settings(), folder=tmp_path)
    for folder in (tmp_path / "checkpoints").glob("iter_*"):
        flip_a_bit(folder / "model.safetensors")
    for _ in range(2):
        with pytest.warns(UserWarning, match="sha256"), pytest.raises(DamagedCheckpoint, match="every checkpoint"):
            fit(tiny(), Noise(), settings(), folder=tmp_path, resume=True)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(8), settings(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"learning_rate was 0.01, now 0.02; seed was 0, now 1"):
        fit(tiny(), Noise(), settings(learning_rate=0.02, seed=1), folder=tmp_path, resume=True)


def test_how_often_to_write_may_change(tmp_path: Path, never_stopped: Reference) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(8), settings(), folder=tmp_path)
    model = tiny()
    fit(model, Noise(), settings(log_every=5, checkpoint_every=4, evaluate_every=9, keep=1), folder=tmp_path, resume=True)
    assert all(torch.equal(value, never_stopped[0][name]) for name, value in model.state_dict().items())


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(8), settings(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"is of another model: .*7 tensors differ in name or shape, first stem.weight"):
        fit(Tiny(channels=4), Noise(), settings(), folder=tmp_path, resume=True)
