"""Jobs side by side: when each begins, and what becomes of them when one fails, is killed, or all are told to stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from vistalib.recipes.jobs import Job, run_jobs
from vistalib.train import Interrupted, NonFiniteLoss

Report = Callable[[int], None]


def note(folder: Path, name: str, report: Report) -> float:
    """Begin, report, wait a little, end: what there was at the beginning, as a file for each job that had ended."""
    seen = sorted(path.name for path in folder.iterdir())
    report(1)
    time.sleep(0.1)
    (folder / name).write_text(" ".join(seen))
    return torch.get_num_threads()


def fail(error: Exception, report: Report) -> None:
    raise error


def wait_until_told(folder: Path, report: Report) -> None:
    """Like a training: SIGTERM ends it in order."""

    def stop(number: int, frame: object) -> None:
        (folder / "stopped in order").touch()
        raise SystemExit(75)

    signal.signal(signal.SIGTERM, stop)
    (folder / "waiting").touch()
    time.sleep(60)


def be_killed(report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_begins_after_the_one_it_needs_and_has_its_share_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistalib.recipes.jobs.usable_cores", lambda: 5)
    chain = [
        Job("after", 1, partial(note, tmp_path, "after"), needs="first"),
        Job("first", 3, partial(note, tmp_path, "first")),
        Job("other", 1, partial(note, tmp_path, "other")),
    ]
    assert dict(run_jobs(chain, "trying", folder=tmp_path)) == {"first": 2, "other": 2, "after": 2}
    assert "first" in (tmp_path / "after").read_text().split()


@pytest.mark.parametrize(
    "error", [pytest.param(ValueError("a rule"), marks=pytest.mark.slow), NonFiniteLoss(3, [1, 2])], ids=["rule", "not finite"]
)
def test_an_error_arrives_as_it_was_and_ends_the_others(error: Exception, tmp_path: Path) -> None:
    jobs = [Job("bad", 1, partial(fail, error)), Job("good", 9, partial(wait_until_told, tmp_path))]
    with pytest.raises(type(error)) as caught:
        list(run_jobs(jobs, "trying", folder=tmp_path))
    assert str(caught.value) == str(error)
    assert all(getattr(caught.value, name) == value for name, value in vars(error).items())
    assert "in fail" in caught.value.__notes__[0]


@pytest.mark.slow
def test_a_killed_job_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match="the same command goes on"):
        list(run_jobs([Job("killed", 1, be_killed)], "trying", folder=tmp_path))


def stand_still(folder: Path) -> None:
    try:
        list(run_jobs([Job("still", 9, partial(wait_until_told, folder))], "trying", folder=folder))
    except Interrupted as stop:
        print(stop)
        raise


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGKILL))],
    ids=["SIGTERM", "SIGINT", "SIGKILL"],
)
def test_jobs_end_in_order_with_the_process_that_began_them(number: signal.Signals, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from test_recipes_jobs import stand_still; stand_still(Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as first:
        _until((tmp_path / "waiting").exists)
        first.send_signal(number)
        said, _ = first.communicate(timeout=30)
    _until((tmp_path / "stopped in order").exists)
    assert first.returncode == (-number if number == signal.SIGKILL else 75)
    assert number == signal.SIGKILL or str(tmp_path) in said


def _until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise TimeoutError
