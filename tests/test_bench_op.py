"""The operator's bench: every combination has its row, nothing wrong is timed, the record can be written, read and drawn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vistalib.bench import OperatorBench, OperatorSettings, operator_settings, table
from vistalib.bench import op as module
from vistalib.bench.baselines import Implementation, baselines, ours
from vistalib.cli import main
from vistalib.files import read_json, write_json
from vistalib.viz import plot_bench

SMALL: dict[str, Any] = {"models": ("nano",), "stages": (3, 4), "crops": ("64x128",), "offsets": ("uniform:4",), "repeats": 2}
CLI = ["bench", "op", "--models", "nano", "--stages", "4", "--crops", "64x128", "--repeats", "1", "--offsets", "normal:1"]


@pytest.fixture(scope="module", autouse=True)
def quick_machine() -> Any:
    """Small copies and products: these tests do not hold the speeds against anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vistalib.bench.machine.COPY", {"cpu": 1 << 22})
        patch.setattr("vistalib.bench.machine.SIDE", {"cpu": 128})
        patch.setattr("vistalib.bench.timing.FLUSH", 1 << 20)
        yield


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return OperatorBench(OperatorSettings(**SMALL, dtypes=("float32", "bfloat16"), caches=("cold", "warm"))).run()


def test_every_combination_has_a_row_for_every_implementation(record: dict[str, Any]) -> None:
    keys = ("name", "dtype", "offsets", "direction", "cache", "implementation")
    rows = [tuple(row[key] for key in keys) for row in record["rows"]]
    assert len(rows) == len(set(rows)) == 2 * 2 * 3 * 2 * len(record["settings"]["backends"] + ("grid_sample",))


def test_every_row_follows_from_the_times_in_it(record: dict[str, Any]) -> None:
    for row in record["rows"]:
        assert len(row["seconds"]) == 2
        assert row["time"]["median"] == pytest.approx(sum(row["seconds"]) / 2)
        assert row["of_floor"] == pytest.approx(row["floor"] / row["time"]["median"])
        machine = record["machine"]
        floors = (row["bytes"] / machine["bytes_per_second"], row["flops"] / machine["flops_per_second"]["float32"])
        assert row["floor"] == max(floors)


def test_ratios_are_to_grid_sample_round_by_round(record: dict[str, Any]) -> None:
    first, second = record["rows"][:2]
    assert (first["implementation"], second["implementation"]) == ("torch", "grid_sample")
    assert second["ratio"] == {"median": 1.0, "min": 1.0, "q1": 1.0, "q3": 1.0}
    ratios = [theirs / own for theirs, own in zip(second["seconds"], first["seconds"])]
    assert first["ratio"]["median"] == pytest.approx(sum(ratios) / 2)


def test_what_is_timed_agrees_with_grid_sample(record: dict[str, Any]) -> None:
    worst = {dtype: max(row["error"] for row in record["rows"] if row["dtype"] == dtype) for dtype in ("float32", "bfloat16")}
    assert worst["float32"] < 1e-5  # measured 2e-7
    assert worst["bfloat16"] < 0.01  # measured 0.0006


def test_a_record_says_where_it_comes_from_and_survives_writing(record: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", record)
    again = read_json(tmp_path / "record.json")
    assert again["rows"] == record["rows"]
    assert {"commit", "cpu", "threads", "versions"} <= again["facts"].keys()
    assert again["settings"]["stages"] == [3, 4]
    assert again["backends"] == {"torch": "runs on every device"}


def test_the_table_names_every_case_and_fits_a_terminal(record: dict[str, Any]) -> None:
    lines = list(table(record))
    assert max(map(len, lines)) <= 120
    assert sum("floor" in line and line.startswith("nano") for line in lines) == 2 * 2 * 3 * 2


def test_the_figure_draws_every_time_and_a_roofline(record: dict[str, Any], tmp_path: Path) -> None:
    rows = [row for row in record["rows"] if row["dtype"] == "float32"]
    write_json(tmp_path / "record.json", record | {"rows": rows})
    figure = plot_bench(read_json(tmp_path / "record.json"))
    *panels, roofline = figure.axes
    assert len(panels) == 2 * 3  # cache, direction
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == ["nano3", "nano4"]
    floors = [path.vertices[0, 1] for lines in panels[0].collections for path in lines.get_paths()]
    assert floors == list(dict.fromkeys(1e3 * row["floor"] for row in rows if row["direction"] == "forward"))
    assert len(roofline.collections[0].get_offsets()) == len(rows)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def swapped(work: Any, value: Tensor, offset: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    return value, offset.unflatten(-1, (-1, 2)).flip(-1).flatten(-2), mask


def failing(*tensors: Tensor) -> Tensor:
    raise RuntimeError("no such kernel\nand a long story")


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "swapped offset pairs": (lambda: Implementation("theirs", ours("torch").bind, swapped), "from grid_sample"),
    "a call that fails": (lambda: Implementation("theirs", lambda work, device: failing), "RuntimeError: no such kernel"),
}


@pytest.mark.parametrize(("make", "reason"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_left_out_with_the_reason(
    make: Callable[..., Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "baselines", lambda: ([*baselines()[0][:1], make()], {}))
    bench = OperatorBench(OperatorSettings(**SMALL | {"stages": (4,)}, directions=("forward",)))
    assert {row["implementation"] for row in bench.run()["rows"]} == {"torch", "grid_sample"}
    ((where, why),) = bench.left_out.items()
    assert where == "theirs eager, nano4 64x128, float32, forward"
    assert why.endswith(reason) or reason in why


def test_threads_are_as_asked_for_during_the_run_and_as_before_after_it() -> None:
    before = torch.get_num_threads()
    bench = OperatorBench(OperatorSettings(**SMALL | {"stages": (4,)}, directions=("forward",), threads=before + 1))
    assert bench.run()["facts"]["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_the_estimate_counts_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "seconds", lambda trial, device: 0.1)  # for the smaller stage, by each of two
    bench = OperatorBench(OperatorSettings(**SMALL | {"repeats": 4}, dtypes=("float32", "float64"), caches=("cold", "warm")))
    stages, dtypes, rounds, directions = 1 + 2, 2, 2 + 4 * 2, 1 / 3 + 1 + 1
    assert bench.estimate() == pytest.approx(2 * 0.1 * stages * dtypes * rounds * directions)


def test_quick_keeps_what_is_given() -> None:
    settings = operator_settings({"models": ("nano",), "crops": (), "repeats": None}, device="cpu", quick=True)
    assert (settings.models, settings.stages, settings.crops, settings.repeats) == (("nano",), (3,), ("512x1024",), 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning")  # of the code generator's own parts
def test_compiled_operators_are_timed_too() -> None:
    bench = OperatorBench(OperatorSettings(**SMALL | {"stages": (4,)}, modes=("compiled",)))
    rows = {(row["implementation"], row["mode"], row["direction"]) for row in bench.run()["rows"]}
    assert [(where, why) for where, why in bench.left_out.items() if "compiled" in where] == []
    names = {("torch", "compiled"), ("grid_sample", "compiled"), ("grid_sample", "eager")}
    assert rows == {(*name, direction) for name in names for direction in ("forward", "backward", "both")}


def status(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as stop:
        return int(str(stop.code))


def test_the_command_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*CLI, "--json", str(tmp_path / "a.json"), "--figure", str(tmp_path / "a.svg")) == 0
    said = capsys.readouterr()
    assert "this will take about" in said.err
    assert "nano4  64x128  float32  normal:1  forward" in said.out
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert read_json(tmp_path / "a.json")["settings"]["offsets"] == ["normal:1"]


def test_the_command_times_one_shape(tmp_path: Path) -> None:
    shape = ["--shape", "1x8x9x32", "--groups", "2", "--repeats", "1", "--directions", "forward"]
    assert status("bench", "op", *shape, "--json", str(tmp_path / "a.json")) == 0
    row = read_json(tmp_path / "a.json")["rows"][0]
    assert (row["name"], row["crop"], row["images"], row["channels"], row["groups"]) == ("1x8x9x32", None, 1, 32, 2)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--models", "q", "must be among nano, micro, t, s, b, l, xl, h, g, got 'q'"),
        ("--stages", "5", "1, 2, 3 or 4, got 5"),
        ("--crops", "512", "HEIGHTxWIDTH"),
        ("--images", "0", "images must be at least 1"),
        ("--shape", "1x8x8x16", "shape and groups go together"),
        ("--dtypes", "int8", "float32, bfloat16"),
        ("--backends", "fast", "backend must be one of"),
        ("--offsets", "normal", "normal:DEVIATION"),
        ("--directions", "sideways", "sideways"),
        ("--modes", "graph", "eager, compiled, got 'graph'"),
        ("--caches", "hot", "hot"),
        ("--repeats", "0", "repeats must be at least 1"),
        ("--threads", "0", "threads must be at least 1"),
        ("--device", "gpu", "cpu, cuda"),
        ("--device", "meta", "cpu and cuda devices"),
        ("--figure", "a.xyz", ".svg, .png or .pdf"),
    ],
)
def test_a_bad_value_ends_with_2_and_one_message(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("bench", "op", "--device", "cpu", option, value) == 2
    assert said in capsys.readouterr().err
