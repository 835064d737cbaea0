"""The loop: what it logs, keeps, reports and refuses."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from train_helpers import Noise, score, settings, steady, tiny

from vistalib.train import NonFiniteLoss, fit, load_checkpoint, read_log


def test_loss_falls(tmp_path: Path) -> None:
    fit(tiny(), Noise(), settings(iterations=200, log_every=20, checkpoint_every=200, clip_norm=None), folder=tmp_path)
    lines = read_log(tmp_path)
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]


def test_log_lines_have_their_names_and_moments(tmp_path: Path) -> None:
    fit(tiny(), Noise(), settings(), folder=tmp_path, evaluate=score)
    lines = read_log(tmp_path)
    assert [(line["kind"], line["iteration"]) for line in lines] == [
        *[("train", 2), ("train", 4), ("evaluation", 4), ("train", 6), ("train", 8), ("evaluation", 8)],
        *[("train", 10), ("train", 12), ("evaluation", 12)],
    ]
    assert set(lines[0]) == {
        *("kind", "iteration", "lr", "loss", "decode.loss_ce", "decode.acc_seg", "grad_norm"),
        *("seconds", "data_seconds", "memory_mb"),
    }


def test_a_line_is_the_mean_over_its_iterations(tmp_path: Path) -> None:
    fit(tiny(), Noise(), settings(log_every=1), folder=tmp_path / "each")
    fit(tiny(), Noise(), settings(log_every=4), folder=tmp_path / "mean")
    each, mean = (torch.tensor([line["loss"] for line in read_log(tmp_path / name)]) for name in ("each", "mean"))
    torch.testing.assert_close(each.view(3, 4).mean(1), mean)


def test_best_and_last_are_kept_and_reported(tmp_path: Path) -> None:
    scores = iter([0.3, 0.6, 0.5, 0.4, 0.2, 0.1])
    result = fit(
        tiny(),
        Noise(),
        settings(evaluate_every=2, checkpoint_every=2, keep=1),
        folder=tmp_path,
        evaluate=lambda model: {"mean_iou": next(scores)},
    )
    assert (result.best, result.best_mean_iou) == (tmp_path / "checkpoints/iter_000004", 0.6)
    assert (result.last, result.last_mean_iou) == (tmp_path / "checkpoints/iter_000012", 0.1)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"iter_000004", "iter_000012", "index.json"}
    index = json.loads((tmp_path / "checkpoints/index.json").read_text())
    assert index == {"last": "iter_000012", "best": "iter_000004", "best_mean_iou": 0.6}


def test_evaluation_sees_the_model_in_eval_mode_and_training_goes_on_in_train_mode(tmp_path: Path) -> None:
    model, modes = tiny(), []

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        modes.append((model.training, torch.is_grad_enabled()))
        return {"mean_iou": 0.0}

    fit(model, Noise(), settings(), folder=tmp_path, evaluate=evaluate)
    assert modes == [(False, False)] * 3
    assert model.training


def test_evaluating_does_not_change_the_training(tmp_path: Path) -> None:
    with_evaluation, without = tiny(), tiny()
    fit(
        with_evaluation,
        Noise(),
        settings(),
        folder=tmp_path / "with",
        evaluate=lambda model: {"mean_iou": float(torch.rand(()))},
    )
    fit(without, Noise(), settings(), folder=tmp_path / "without")
    assert all(torch.equal(a, b) for a, b in zip(with_evaluation.state_dict().values(), without.state_dict().values()))


def test_on_log_sees_every_line(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    fit(tiny(), Noise(), settings(), folder=tmp_path, evaluate=score, on_log=seen.append)
    assert seen == read_log(tmp_path)


def test_seed_decides_dropout(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(tiny(), Noise(), settings(seed=seed), folder=tmp_path / name)
    a, b, c = (steady(read_log(tmp_path / name)) for name in "abc")
    assert a == b != c


def test_bf16_trains_float32_weights(tmp_path: Path) -> None:
    fit(tiny(), Noise(), settings(precision="bf16"), folder=tmp_path / "bf16")
    fit(tiny(), Noise(), settings(), folder=tmp_path / "fp32")
    assert all(value.dtype is not torch.bfloat16 for value in load_checkpoint(tmp_path / "bf16").model.values())
    half, full = (read_log(tmp_path / name)[0]["loss"] for name in ("bf16", "fp32"))
    assert half != full
    assert half == pytest.approx(full, rel=2e-2)  # measured 1e-3


@pytest.mark.parametrize("spoiled", [0, 4, 11])
def test_loss_that_is_not_finite_stops_the_run_with_its_samples(tmp_path: Path, spoiled: int) -> None:
    with pytest.raises(NonFiniteLoss, match=f"iteration {spoiled} .*lower learning_rate") as caught:
        fit(tiny(), Noise(spoil=spoiled), settings(log_every=6), folder=tmp_path)
    assert caught.value.iteration == spoiled
    assert caught.value.samples == [2 * spoiled, 2 * spoiled + 1]


def test_no_weight_moves_once_the_loss_is_not_finite(tmp_path: Path) -> None:
    spoiled, short = tiny(), tiny()
    with pytest.raises(NonFiniteLoss):
        fit(spoiled, Noise(spoil=2), settings(log_every=12, checkpoint_every=12), folder=tmp_path / "spoiled")
    with pytest.raises(NonFiniteLoss):
        fit(short, Noise(spoil=2), settings(log_every=3, checkpoint_every=12), folder=tmp_path / "short")
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(spoiled.parameters(), short.parameters()))


def test_no_checkpoint_is_written_of_a_run_gone_bad(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss):
        fit(tiny(), Noise(spoil=4), settings(log_every=12), folder=tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").glob("iter*")] == ["iter_000003"]


def test_folder_with_a_run_is_refused(tmp_path: Path) -> None:
    fit(tiny(), Noise(), settings(), folder=tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(ValueError, match="already holds a run; go on with resume=True"):
        fit(tiny(), Noise(), settings(), folder=tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_folder_in_use_by_another_process_is_refused_until_that_dies(tmp_path: Path) -> None:
    hold = (
        "import fcntl, os, sys\n"
        "file = open(sys.argv[1] + '/run.lock', 'w')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print(f'process {os.getpid()}', file=file, flush=True)\n"
        "print('held', flush=True)\n"
        "input()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"process {other.pid} is writing there"):
        fit(tiny(), Noise(), settings(), folder=tmp_path)
    other.kill()
    other.communicate()
    assert fit(tiny(), Noise(), settings(), folder=tmp_path).iterations == 12


def test_file_system_without_locks_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with pytest.warns(UserWarning, match="see to it that one run writes there"):
        fit(tiny(), Noise(), settings(), folder=tmp_path)


def test_evaluation_without_mean_iou_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'mean_iou', got the keys \['accuracy'\]"):
        fit(tiny(), Noise(), settings(), folder=tmp_path, evaluate=lambda model: {"accuracy": 1.0})


def test_loader_that_ends_is_refused(tmp_path: Path) -> None:
    class Short(Noise):
        def batches(self, start: int):  # type: ignore[no-untyped-def]
            yield from [batch for batch, _ in zip(super().batches(start), range(5))]

    with pytest.raises(ValueError, match="must go on without end"):
        fit(tiny(), Short(), settings(), folder=tmp_path)


def test_warm_up_longer_than_the_run_is_warned_about(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="longer than the run of 12 iterations"):
        fit(tiny(), Noise(), settings(warmup_iters=1500), folder=tmp_path)


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=r"cannot be written: .*choose another folder"):
        fit(tiny(), Noise(), settings(), folder=tmp_path / "run")


def test_a_good_run_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(tiny(), Noise(), settings(), folder=tmp_path, evaluate=score)
