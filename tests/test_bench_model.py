"""The bench of whole models: both sides compute the same, every row follows from its times, and what is wrong is refused."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from vistalib.bench import BesideBench, ModelBench, ModelSettings, model_table
from vistalib.bench import model as module
from vistalib.bench.baselines import Implementation, baselines
from vistalib.bench.beside import neighbour
from vistalib.cli import main
from vistalib.files import read_json

SMALL: dict[str, Any] = {"models": ("nano",), "crop": "64x96", "images": 2, "repeats": 2, "memory": False}


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return ModelBench(ModelSettings(**SMALL, profile=True)).run()


def test_every_direction_has_a_row_for_both_sides(record: dict[str, Any]) -> None:
    rows = [(row["model"], row["direction"], row["implementation"]) for row in record["rows"]]
    sides = ("ours", "grid_sample")
    assert rows == [("upernet_internimage_nano", way, side) for way in ("forward", "step") for side in sides]


def test_both_sides_give_the_same_logits_and_gradients(record: dict[str, Any]) -> None:
    errors = {row["direction"]: row["error"] for row in record["rows"] if row["implementation"] == "ours"}
    assert errors["forward"] < 1e-5  # measured 3.0e-7
    assert errors["step"] < 0.05  # measured 0.006; the same step twice is 0.005 apart, since a batch norm has two values


def test_ratios_are_to_the_other_side_round_by_round(record: dict[str, Any]) -> None:
    ours, theirs = record["rows"][:2]
    for kind, ratio in (("seconds", "ratio"), ("processor_seconds", "processor_ratio")):
        each = [a / b for a, b in zip(theirs[kind], ours[kind], strict=True)]
        assert ours[ratio]["median"] == pytest.approx(sum(each) / 2)
        assert theirs[ratio]["median"] == 1


def test_parts_of_a_step_are_found_on_both_sides(record: dict[str, Any]) -> None:
    parts = {"convolution", "depthwise convolution", "DCNv3", "products", "layer norm", "loss and accuracy", "optimizer"}
    for row in record["rows"][2:]:
        assert parts <= row["parts"].keys()
        assert row["parts"]["depthwise convolution"] > 0


def test_the_other_side_is_our_model_again_afterwards() -> None:
    before = module.layer.dcnv3, module.convolution.written_out
    with module.formulation(baselines()[0][0]):
        assert (module.layer.dcnv3, module.convolution.written_out) != before
    assert (module.layer.dcnv3, module.convolution.written_out) == before


def test_what_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(work: Any, device: torch.device) -> Any:
        return lambda value, offset, mask: value

    def both() -> dict[str, Implementation | None]:
        return {"grid_sample": baselines()[0][0], "wrong": Implementation("wrong", wrong)}

    monkeypatch.setattr(module, "contestants", both)
    with pytest.raises(ArithmeticError, match="wrong must compute what grid_sample does"):
        ModelBench(ModelSettings(**SMALL, directions=("forward",))).run()


def test_peak_memory_counts_what_a_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Tensor] = []
    monkeypatch.setattr(module, "peak_memory_mb", lambda: float(len(taken)))
    monkeypatch.setattr(module, "make_call", lambda *_: lambda: taken.append(torch.zeros(1)))
    assert module.peak_memory("upernet_internimage_nano", "forward", "ours", ModelSettings(**SMALL)) == 1


def status(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as stop:
        return int(str(stop.code))


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--models", "nano", "--crop", "64x64", "--images", "2", "--directions", "forward", "--repeats", "1"]
    assert status("bench", "model", *small, "--json", str(tmp_path / "a.json")) == 0
    assert "upernet_internimage_nano  64x64  forward  images: 2" in capsys.readouterr().out
    record = read_json(tmp_path / "a.json")
    assert all(row["peak_memory_mb"] > 100 for row in record["rows"])
    assert {"commit", "cpu", "threads"} <= record["facts"].keys()


def test_the_table_fits_a_terminal(record: dict[str, Any]) -> None:
    assert max(map(len, model_table(record))) <= 120


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--models", "q", "models must be among upernet_internimage_nano"),
        ("--crop", "512", "HEIGHTxWIDTH"),
        ("--images", "0", "images must be at least 1"),
        ("--directions", "sideways", "sideways"),
        ("--precision", "int8", "int8"),
        ("--repeats", "0", "repeats must be at least 1"),
        ("--threads", "0", "threads must be at least 1"),
        ("--device", "gpu", "cpu, cuda"),
    ],
)
def test_a_bad_value_ends_with_2_and_one_message(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("bench", "model", option, value) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_step_takes_far_less_processor_time_than_on_grid_sample() -> None:
    pytest.importorskip("numba", reason="vistalib-kernels is not installed")
    settings = ModelSettings(models=("t",), crop="192x256", repeats=2, directions=("step",), memory=False, threads=1)
    ours, theirs = ModelBench(settings).run()["rows"]
    assert min(theirs["processor_seconds"]) > 1.6 * min(ours["processor_seconds"])  # measured 2.2


def test_beside_a_neighbour_every_round_has_both_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistalib.bench.beside.ROUND", 0.01)
    options = "bench model --models nano --crop 64x96 --images 2 --directions step --repeats 2 --beside --json"
    assert main([*options.split(), str(tmp_path / "record.json")]) == 0
    (row,) = read_json(tmp_path / "record.json")["rows"]
    alone, beside = (row["seconds"][name] for name in ("alone", "beside"))
    assert row["ratio"]["median"] == pytest.approx(sum(b / a for a, b in zip(alone, beside, strict=True)) / 2)
    assert f"{row['ratio']['median']:.2f}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_neighbour_works_while_it_is_wanted() -> None:
    before = set(multiprocessing.active_children())
    with neighbour() as switch:
        (process,) = set(multiprocessing.active_children()) - before
        times = psutil.Process(process.pid).cpu_times
        switch(True)
        while times().user < 12:  # seconds; an import takes a few of them
            time.sleep(0.1)
        switch(False)
        time.sleep(0.5)
        rested = times().user
        time.sleep(0.5)
        assert times().user - rested < 0.1
    assert not process.is_alive()


def test_a_neighbour_of_a_gpu_is_refused() -> None:
    settings = ModelSettings(**SMALL)
    object.__setattr__(settings, "device", "cuda")
    with pytest.raises(ValueError, match="takes the cores of a CPU"):
        BesideBench(settings)
