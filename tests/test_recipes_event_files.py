"""Event files for TensorBoard: what they hold, also after a run was stopped and resumed."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from train_helpers import Noise, score, settings, tiny

from vistalib.recipes import event_files
from vistalib.train import fit, read_log


class Power(Exception):
    """The power fails."""


class Failing(Noise):
    def batches(self, start: int) -> Iterator[dict[str, Tensor]]:
        for iteration, batch in enumerate(super().batches(start), start):
            if iteration == 8:
                raise Power
            yield batch


def scored(model: Any) -> dict[str, Any]:
    return {**score(model), "iou": {"road": 0.5, "train": None}, "mode": "whole", "missed": [1, 2]}


def train(folder: Path, loader: Noise, *, resume: bool = False, **changes: Any) -> None:
    with event_files(folder) as on_log:
        fit(tiny(), loader, settings(**changes), folder=folder, evaluate=scored, resume=resume, on_log=on_log)


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar as (step, value), in the order of the files, with nothing hidden that was written twice."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), purge_orphaned_data=False)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The same of the log."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in read_log(folder):
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float) and name != "iteration"}
        if line["kind"] == "evaluation":
            numbers["iou/road"] = line["iou"]["road"]
        for name, value in numbers.items():
            found.setdefault(f"{line['kind']}/{name}", []).append((line["iteration"], pytest.approx(value)))
    return found


def test_every_number_of_the_log_is_a_scalar(tmp_path: Path) -> None:
    train(tmp_path, Noise())
    found = read(tmp_path)
    assert found == expected(tmp_path)
    assert {"train/loss", "train/decode.loss_ce", "train/lr", "evaluation/mean_iou", "evaluation/iou/road"} <= set(found)


@pytest.mark.parametrize("log_every", [2, 5], ids=["as before", "logged at other steps"])
def test_a_resumed_run_has_no_step_twice_and_none_that_its_log_has_not(tmp_path: Path, log_every: int) -> None:
    with pytest.raises(Power):
        train(tmp_path, Failing(), log_every=1, checkpoint_every=3)
    assert read(tmp_path)["train/loss"][-1][0] == 8
    train(tmp_path, Noise(), resume=True, log_every=log_every)
    assert read(tmp_path) == expected(tmp_path)


def test_a_run_that_was_begun_without_them_has_them_all(tmp_path: Path) -> None:
    with pytest.raises(Power):
        fit(tiny(), Failing(), settings(), folder=tmp_path, evaluate=scored)
    train(tmp_path, Noise(), resume=True)
    assert read(tmp_path) == expected(tmp_path)


def test_without_tensorboard_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"needed to write event files.*python -m pip install tensorboard"):
        train(tmp_path / "run", Noise())
    assert not (tmp_path / "run").exists()
