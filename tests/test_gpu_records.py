"""What tools/gpu.py makes of what a GPU said: counters, worst errors, histograms, curves, and the table of targets."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import ROOT

from vistalib.bench import Workload
from vistalib.bench.machine import Machine
from vistalib.models import create_model
from vistalib.ops import DCNv3, dcnv3_definition

sys.path.insert(0, str(ROOT / "tools"))
import gpu
import gpu_agree
import gpu_counters
import gpu_offsets
import gpu_part
import gpu_targets
import gpu_train
from gpu_part import Options, attempt
from vistalib_kernels import cuda

# As ncu writes it: its own words between, commas in numbers, units in the second row, n/a where there is no such counter.
NCU = """==PROF== Connected to process 4242 (/usr/bin/python3)
"ID","Process ID","Kernel Name","Block Size","dram__bytes_read.sum","dram__bytes_write.sum","gpu__time_duration.sum",\
"launch__registers_per_thread","lts__throughput.avg.pct_of_peak_sustained_elapsed"
"","","","","byte","Kbyte","ns","register/thread","%"
"0","4242","void forward<__nv_bfloat16, 16>(Problem<float>, T1 *)","(256, 1, 1)","40,000,000","20,000","40,000","64","n/a"
"1","4242","fill(float *)","(256, 1, 1)","0","1,000","10,000","16","12.5"
==PROF== Disconnected from process 4242
""".replace("\\\n", "")
WORK = Workload("l1", "512x1024", 2, 128, 256, 160, 10, 2.0)


def test_counters_are_read_in_seconds_bytes_and_percent() -> None:
    first, second = gpu_counters.parse(NCU.splitlines())
    assert first == {
        "kernel": "void forward<__nv_bfloat16, 16>",
        "dram_read_bytes": 40e6,
        "dram_write_bytes": 20e6,
        "seconds": pytest.approx(40e-6),
        "registers": 64,
        "l2_percent": None,
    }
    assert (second["kernel"], second["l2_percent"]) == ("fill", 12.5)


@pytest.mark.parametrize("said", ["", "==WARNING== No kernels were profiled.\n"], ids=["nothing", "no-kernel"])
def test_without_kernels_there_are_no_counters(said: str) -> None:
    assert gpu_counters.parse(said.splitlines()) == []


def test_the_refusal_of_counters_is_found() -> None:
    said = "==PROF== Connected\n==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n"
    assert gpu_counters.refused(said) == "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission"
    assert gpu_counters.refused(NCU) is None


def ncu_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> Options:
    """A program of that name on the PATH, since machines with the real one are rare; the arguments of a part."""
    program = tmp_path / "bin" / "ncu"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return Options(tmp_path, False, None, 5.0)


def test_a_machine_that_refuses_counters_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission"
    record = gpu_counters.counters(ncu_that(tmp_path, monkeypatch, f"echo '{said}'; exit 1"))
    assert record == {"skipped": f"ncu cannot read counters on this machine: {said}"}


def test_a_case_is_read_from_the_file_that_ncu_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "said").write_text(NCU)
    writes = f'while [ $1 != --log-file ]; do shift; done; cp {tmp_path}/said "$2"'
    options, case = ncu_that(tmp_path, monkeypatch, writes), gpu_counters.CASES[0]
    row = gpu_counters.measured(gpu_counters.find_ncu() or "", case, options, Machine(4e12, {"float32": 6e13}))
    assert (row["model"], row["direction"], row["dram_bytes"], len(row["kernels"])) == ("l", "forward", 61e6, 2)
    assert {case.backend for case in gpu_counters.CASES} == {"cuda", "cuda-fast"}


def test_a_case_that_ncu_could_not_profile_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ncu_that(tmp_path, monkeypatch, "echo 'no such driver'; exit 3")
    row = gpu_counters.measured("ncu", gpu_counters.CASES[0], options, Machine(4e12, {"float32": 6e13}))
    assert row["failed"] == "no such driver"


def test_a_call_is_held_against_its_bytes_and_the_copy_of_the_machine() -> None:
    machine = Machine(4e12, {"float32": 6e13})
    row = gpu_counters.on_roofline(gpu_counters.parse(NCU.splitlines()), WORK, "forward", machine)
    pixels = 2 * 128 * 256
    assert row["bytes_once"] == 2 * (2 * pixels * 160 + pixels * 10 * 27)
    assert row["dram_bytes"] == 61e6
    assert row["seconds"] == pytest.approx(50e-6)
    assert row["bandwidth"] == pytest.approx(61e6 / 50e-6 / 4e12)
    assert row["of_floor"] == pytest.approx(row["bytes_once"] / 4e12 / 50e-6)


def test_a_counter_that_is_missing_leaves_out_what_follows_from_it() -> None:
    kernels = [{"kernel": "forward", "seconds": None, "dram_read_bytes": 1.0, "dram_write_bytes": 1.0}]
    assert "dram_bytes" not in gpu_counters.on_roofline(kernels, WORK, "forward", Machine(4e12, {"float32": 6e13}))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(gpu_agree.operator_rows(gpu_agree.TOY, ("torch", "cuda"), torch.device("cpu")))


def test_errors_lie_within_the_tolerance_of_their_dtype(rows: list[dict[str, Any]]) -> None:
    found = {row["dtype"]: row for row in gpu_agree.worst(rows) if row["backend"] == "torch"}
    assert all(row["agrees"] and row["cases"] == 2 for row in found.values())
    assert max(found["float32"]["worst"].values()) < 1e-6  # measured 2e-7
    assert 1e-3 < found["bfloat16"]["worst"]["output"] < 2.0**-8  # half a unit of the largest number


def test_a_backend_that_does_not_run_is_a_failed_row_that_does_not_agree(rows: list[dict[str, Any]]) -> None:
    failed = [row for row in gpu_agree.worst(rows) if row["backend"] == "cuda"]
    assert [row["failed"] for row in failed] == [2] * 4
    assert not any(row["agrees"] for row in failed)
    assert failed[0]["worst"] == dict.fromkeys(gpu_agree.TENSORS)


def test_a_backend_of_the_records_runs_in_its_tier_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.TIER, "fast")
    found = []
    for name in ("torch", "cuda", "cuda-fast"):
        with gpu_part.backend_of(name) as backend:
            found.append((backend, cuda.tier()))
    assert found == [("torch", "default"), ("cuda", "default"), ("cuda", "fast")]
    assert cuda.tier() == "fast"


@pytest.mark.slow
def test_both_tiers_are_compared_with_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    def dcnv3(*tensors: torch.Tensor, backend: str, **settings: Any) -> torch.Tensor:
        asked.add((backend, cuda.tier()))
        return dcnv3_definition(*tensors, **settings)

    monkeypatch.setattr(gpu, "operator_settings", lambda given, device: SimpleNamespace(backends=("cuda",)))
    monkeypatch.setattr(gpu_agree, "dcnv3", dcnv3)
    record = gpu.agree(Options(tmp_path, True, None, 1.0))
    assert asked == {("cuda", "default"), ("cuda", "fast")}
    assert {row["backend"] for row in record["worst"]} == {"cuda", "cuda-fast"}


def test_a_wrong_operator_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*tensors: torch.Tensor, backend: str, **settings: Any) -> torch.Tensor:
        return dcnv3_definition(*tensors, **settings | {"offset_scale": 1.0})

    monkeypatch.setattr(gpu_agree, "dcnv3", wrong)
    found = gpu_agree.worst(list(gpu_agree.operator_rows(gpu_agree.TOY, ("torch",), torch.device("cpu"))))
    assert not any(row["agrees"] for row in found)


def test_what_is_not_finite_has_no_error() -> None:
    with pytest.raises(ArithmeticError, match="not finite"):
        gpu_agree.error(torch.tensor([1.0, torch.nan]), torch.ones(2))


def test_labels_are_the_same_where_precision_does_not_matter() -> None:
    model = create_model("upernet_internimage_nano", 3).eval()
    torch.nn.init.zeros_(model.decode_head.conv_seg.weight)
    model.decode_head.conv_seg.bias.data = torch.tensor([0.0, 1.0, 0.0])
    images = [torch.randint(256, (64, 96, 3), dtype=torch.uint8).numpy() for _ in range(2)]
    found = gpu_agree.label_agreement(model, images, scale=(96, 64), device=torch.device("cpu"))
    assert (found["same_labels"], found["least"], found["images"]) == (1, 1, 2)


def test_offsets_are_counted_before_and_after_their_scale() -> None:
    layer = DCNv3(8, 2, offset_scale=2.0)
    with torch.no_grad():
        layer.offset.bias.copy_(torch.tensor([0.3, 1.2]).repeat(18))  # x, y
    counts = gpu_offsets._Layer()
    with torch.no_grad():
        counts.add(layer, torch.randn(1, 16, 20, 8))
    row = counts.row()
    assert row["before"] == [0, 0.5, 0, 0.5, 0, 0, 0, 0, 0]  # 0.3 below 0.5, 1.2 below 2
    assert row["after"] == [0, 0, 0.5, 0, 0.5, 0, 0, 0, 0]  # 0.6 below 1, 2.4 below 3
    assert row["tiles_within"] == {"1.0": 0, "2.0": 0, "3.0": 1, "4.0": 1}
    assert row["largest_after"] == pytest.approx(2.4, abs=1e-5)


def test_one_far_offset_spoils_its_tile_and_group_alone() -> None:
    sizes = torch.zeros(1, 16, 20, 2)
    sizes[0, 9, 17, 1] = 5
    most = gpu_offsets.tile_maxima(sizes)  # (1, 2, 3, 2)
    assert most.shape == (1, 2, 3, 2)
    assert (most > 0).nonzero().tolist() == [[0, 1, 2, 1]]


def test_every_layer_of_a_network_has_a_histogram() -> None:
    model = create_model("upernet_internimage_nano", 3)
    image = torch.randint(256, (64, 96, 3), dtype=torch.uint8).numpy()
    found = gpu_offsets.offset_histograms(model, [image], scale=(96, 64), device=torch.device("cpu"))
    assert len(found["layers"]) == 6
    assert all(row["after"][0] == 1 for row in found["layers"].values())  # a new network has not moved its points
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_curve_counts_the_seconds_of_training_alone() -> None:
    log = [
        {"kind": "train", "iteration": 10, "seconds": 0.5},
        {"kind": "evaluation", "iteration": 10, "seconds": 100.0, "mean_iou": 0.2},
        {"kind": "train", "iteration": 14, "seconds": 1.0},
        {"kind": "evaluation", "iteration": 14, "seconds": 100.0, "mean_iou": 0.3},
    ]
    expected = [(10, 5.0, 0.2), (14, 9.0, 0.3)]
    assert [tuple(point.values()) for point in gpu_train.curve(log)] == expected


def test_a_training_and_its_evaluations_fill_the_time() -> None:
    class Foretold:
        step_seconds, images, image_seconds = (0.1, 0.3), 20, (0.5,)

    evaluations = gpu_train.EVALUATIONS * 20 * 0.5
    found = gpu_train.iterations_within(evaluations + 100.0, Foretold())  # type: ignore[arg-type]
    assert found * 0.2 <= 100 < (found + gpu_train.EVALUATIONS) * 0.2
    assert found % gpu_train.EVALUATIONS == 0
    assert gpu_train.iterations_within(-1.0, Foretold()) == gpu_train.EVALUATIONS  # type: ignore[arg-type]


def step(model: str, operator: str, variant: str, seconds: float, batch: int = 2) -> dict[str, Any]:
    return {"model": model, "operator": operator, "variant": variant, "batch": batch, "seconds": {"median": seconds}}


def operation(name: str, direction: str, implementation: str, seconds: float, **more: str) -> dict[str, Any]:
    case = {"name": name, "crop": "512x1024", "dtype": "bfloat16", "offsets": "normal:0.5", "cache": "cold", "mode": "eager"}
    times = {"time": {"median": seconds}, "of_floor": 18e-6 / seconds}
    return {**case, "direction": direction, "implementation": implementation, **times, **more}


OPERATIONS = [
    operation("l1", "forward", "cuda", 60e-6),
    operation("l1", "forward", "cuda", 40e-6, mode="graph"),
    operation("l1", "forward", "cuda", 10e-6, dtype="float32"),
    operation("l1", "forward", "DCNv3", 400e-6),
    operation("l1", "backward", "DCNv4", 400e-6),
    operation("l1", "forward", "cuda", 36e-6, offsets="uniform:4"),
    operation("l1", "forward", "cuda-fast", 20e-6),
    *(operation(f"l{stage}", "forward", "cuda", 10e-6, mode="graph", cache="warm") for stage in (1, 2, 3, 4)),
]
RECORDS: dict[str, Any] = {
    "bench-op": {"bench": {"rows": OPERATIONS}},
    "agree": {
        "worst": [
            {"backend": "cuda", "dtype": "float32", "failed": 0, "tolerance": 1e-5, "worst": {"output": 1e-6, "mask": 5e-6}},
            {
                "backend": "cuda-fast",
                "dtype": "float32",
                "failed": 0,
                "tolerance": 1e-5,
                "worst": {"output": 2e-5, "mask": 5e-6},
            },
            {"backend": "numba-cuda", "dtype": "float32", "failed": 2, "tolerance": 1e-5, "worst": {"output": None}},
        ]
    },
    "bench-model": {
        "training": [
            step("upernet_internimage_l", "ours", "eager", 0.08),
            step("upernet_internimage_l", "ours", "graph", 0.04),
            step("upernet_internimage_l", "ours", "channels last", 0.01, batch=1),
            step("upernet_internimage_l", "grid_sample", "eager", 0.12),
            step("upernet_internimage_l", "cuda-fast", "graph", 0.02),
            {"model": "segformer_internimage_l", "operator": "ours", "batch": 2, "failed": "out of memory"},
        ]
    },
    "train": {"mean_iou": 0.61, "labels": {"same_labels": 0.997}},
    "streets": {"runs": {"finetune": {"labels": {"failed": "no"}}, "small finetune": {"checkpoint": {"bytes": 4_000_000}}}},
    "evaluate": {
        "rows": [
            {"mode": "single scale", "extrapolated_to_500": 90.0},
            {"mode": "multi-scale + flip", "extrapolated_to_500": 9.0},
        ]
    },
}


def judged(records: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in gpu_targets.judge(records)}


@pytest.mark.parametrize(
    ("what", "measured", "met"),
    [
        ("cuda: worst error / tolerance, float32", 0.5, True),
        ("cuda-fast: worst error / tolerance, float32", 2.0, False),
        ("numba-cuda: worst error / tolerance, float32", "not measured", None),
        ("L stage 1, bf16: forward against DCNv3", 10.0, True),
        ("L stage 1, bf16: forward against DCNv3, fast tier", 20.0, True),
        ("L stage 1, bf16: backward against DCNv4", "not measured", None),
        ("L stage 1, bf16: forward, offsets normal:0.5", 0.45, False),
        ("L stage 1, bf16: forward, offsets uniform:4", 0.5, True),
        ("L stage 1, bf16: forward, offsets normal:0.5, fast tier", 0.9, True),
        ("L, bf16: its 37 forward calls as graphs", 370e-6, True),
        ("L, bf16: its 37 forward calls as graphs, fast tier", "not measured", None),
        ("UperNet-T: same labels, bf16 on the GPU and fp32 on a CPU", 0.997, True),
        ("UperNet-L: a training step, batch 2", 0.04, True),
        ("SegFormer-L: a training step, batch 2", "not measured", None),
        ("UperNet-L: a step against the released operator", "not measured", None),
        ("UperNet-L: a step against grid_sample", 3.0, False),
        ("UperNet-L: a step against grid_sample, fast tier", 6.0, True),
        ("Photographs: validation mIoU, single scale", 0.61, False),
        ("Small checkpoint of drawn streets", 4_000_000, True),
        ("UperNet-L: 500 images of 1024x2048 evaluated, extrapolated", 90.0, True),
    ],
)
def test_a_target_is_met_by_what_the_records_say(what: str, measured: float | str, met: bool | None) -> None:
    row = judged(RECORDS)[what]
    assert row["measured"] == (measured if isinstance(measured, str) else pytest.approx(measured))
    assert row["met"] is met
    assert row["ratio"] == (None if met is None else pytest.approx(float(measured) / row["wanted"]))


def test_without_records_nothing_was_measured() -> None:
    assert {row["measured"] for row in gpu_targets.judge({})} == {"not measured"}


def test_the_table_says_what_was_missed() -> None:
    lines = list(gpu_targets.table(gpu_targets.judge(RECORDS)))
    (missed,) = (line.split() for line in lines if line.startswith("UperNet-L: a step against grid_sample "))
    assert missed[-5:] == ["3,", "0.6", "of", "it", "missed"]
    assert sum(line.endswith("not measured") for line in lines) == 26
    assert max(map(len, lines)) <= 128


def write(out: Path, name: str, dry_run: bool) -> None:
    (out / f"{name}.json").write_text(json.dumps({"dry_run": dry_run} | RECORDS.get(name, {})))


def test_records_are_collected_with_the_targets_and_rehearsals_are_not(tmp_path: Path) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    (out / gpu_train.SMALL).mkdir(parents=True)
    (out / gpu_train.SMALL / "model.safetensors").write_bytes(b"weights")
    write(out, "train", dry_run=False)
    write(out, "evaluate", dry_run=True)
    gpu.collect(out, results)
    found = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    assert found == {"train.json", "targets.json", f"{gpu_train.SMALL}/model.safetensors"}
    rows = {row["what"]: row for row in json.loads((results / "targets.json").read_text())["targets"]}
    assert rows["Photographs: validation mIoU, single scale"]["measured"] == 0.61
    assert rows["UperNet-L: 500 images of 1024x2048 evaluated, extrapolated"]["met"] is None


def test_rehearsals_alone_leave_no_results(tmp_path: Path) -> None:
    write(tmp_path, "train", dry_run=True)
    gpu.collect(tmp_path, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_part_runs_in_the_default_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.TIER, "fast")
    monkeypatch.setitem(gpu.PARTS, "build", lambda options: {"tier": cuda.tier()})
    assert gpu.perform("build", Options(tmp_path, True, None, 1.0))
    assert json.loads((tmp_path / "build.json").read_text())["tier"] == "default"


@pytest.mark.parametrize("answer", [{"failed": "it broke"}, {"value": float("nan")}], ids=["failed", "not JSON"])
def test_a_part_that_fails_leaves_a_record_that_says_so(
    answer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu.PARTS, "build", lambda options: answer)
    assert not gpu.perform("build", Options(tmp_path, True, None, 1.0))
    assert json.loads((tmp_path / "build.json").read_text())["failed"]


def test_without_room_to_share_batches_nobody_else_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(tmp_path, False, None, 1.0)
    monkeypatch.setattr(gpu_part, "SHARED", tmp_path)
    monkeypatch.setattr(gpu_part, "ROOM", 0)
    assert options.readers == gpu_part.PROCESSES
    monkeypatch.setattr(gpu_part, "ROOM", 1 << 60)
    assert options.readers == 0


def test_an_attempt_that_fails_gives_its_reason_in_a_line() -> None:
    def work() -> dict[str, Any]:
        raise RuntimeError("no memory\nbut many words")

    assert attempt(work, torch.device("cpu")) == {"failed": "RuntimeError: no memory"}
