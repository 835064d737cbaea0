"""What only a GPU has: streams, CUDA graphs, order of additions; and the rehearsal of the script that runs on one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from backend_pairs import GPU_PAIRS, in_tier, skip_unusable
from data_helpers import write_folder
from helpers import ROOT, run_with_torch
from kernels_helpers import FAST, library
from ops_helpers import Inputs, random_inputs, worst
from torch import Tensor
from train_helpers import Noise, settings, tiny

from vistalib.bench.parts import by_part
from vistalib.bench.timing import seconds
from vistalib.bench.workload import Offsets, Workload, draw
from vistalib.ops import dcnv3
from vistalib.ops.definition import dcnv3_gradients
from vistalib.train import fit, read_log

sys.path.insert(0, str(ROOT / "tools"))


@pytest.fixture(params=[*(name for name, _ in GPU_PAIRS), *(["cuda-fast"] if GPU_PAIRS else [])])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = in_tier(request.param, monkeypatch)
    skip_unusable(name)
    return name


def on_gpu(**shape: Any) -> Inputs:
    return random_inputs(**{"group_channels": 16, "dtype": torch.float32, **shape}).to("cuda")


def results(inputs: Inputs, backend: str) -> list[Tensor]:
    tensors = [tensor.detach().requires_grad_() for tensor in inputs.tensors]
    output = dcnv3(*tensors, **inputs.settings, mask_is_logits=True, backend=backend)
    return [output.detach(), *torch.autograd.grad(output, tensors, inputs.grad_output)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_tiny_inputs_run(backend: str, dtype: torch.dtype) -> None:
    assert all(tensor.isfinite().all() for tensor in results(on_gpu(images=1, height=3, width=5, dtype=dtype), backend))


def test_a_side_stream_gives_the_same_numbers(backend: str) -> None:
    inputs = on_gpu(height=33, width=65)
    expected = results(inputs, backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = results(inputs, backend)
    torch.cuda.current_stream().wait_stream(stream)
    for one, other in zip(expected, found):
        assert worst(other.cpu(), one.cpu()) < 1e-4  # atomics add in any order


def test_a_captured_graph_computes_from_new_numbers(backend: str) -> None:
    inputs, other = on_gpu(seed=1), on_gpu(seed=2)
    results(inputs, backend)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        captured = results(inputs, backend)
    for mine, theirs in zip((*inputs.tensors, inputs.grad_output), (*other.tensors, other.grad_output)):
        mine.copy_(theirs)
    graph.replay()
    for one, expected in zip(captured, results(other, backend)):
        assert worst(one.cpu(), expected.cpu()) < 1e-4


@pytest.mark.parametrize("spread", [0.5, 6.0], ids=["near", "far"])
def test_a_backward_in_tiles_gives_what_one_without_gives(spread: float) -> None:
    skip_unusable("cuda")
    from vistalib_kernels import cuda

    inputs = on_gpu(height=50, width=70, offset_scale=2.0, spread=spread)
    rest = {**inputs.settings, "mask_is_logits": True}
    tiled, plain = (cuda.backward(inputs.grad_output, *inputs.tensors, **rest, in_tiles=tiles) for tiles in (True, False))
    for one, other in zip(tiled, plain):
        assert worst(one.cpu(), other.cpu()) < 1e-4  # atomics add in any order


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("spread", [0.5, 6.0], ids=["near", "far"])
@pytest.mark.parametrize("channels", [16, 32], ids="D{}".format)
def test_a_backward_by_tensor_cores_gives_what_one_without_gives(dtype: torch.dtype, spread: float, channels: int) -> None:
    skip_unusable("cuda")
    from vistalib_kernels import cuda

    inputs = on_gpu(height=50, width=70, offset_scale=2.0, spread=spread, group_channels=channels, dtype=dtype)
    inputs.value[0, 7, 9, 3] = torch.inf  # whose row of units goes another way
    rest = {**inputs.settings, "mask_is_logits": True, "in_tiles": True}
    ours, plain = (cuda.backward(inputs.grad_output, *inputs.tensors, **rest, tensor_cores=choice) for choice in (True, False))
    for one, other in zip(ours, plain):
        finite = other.isfinite()
        assert torch.equal(one.isfinite(), finite)
        mine, theirs = one[finite].float().cpu(), other[finite].float().cpu()
        assert worst(mine, theirs) <= torch.finfo(dtype).eps * float(theirs.abs().max())  # one rounding


def test_a_ring_of_sums_serves_many_sheets_at_each_replay() -> None:
    skip_unusable("cuda")
    from vistalib_kernels import cuda

    # 40 sheets of 24 tiles, in a ring that has places for 25.
    inputs = on_gpu(images=2, height=64, width=96, groups=20, offset_scale=2.0, spread=0.5, dtype=torch.bfloat16)
    given, rest = (inputs.grad_output, *inputs.tensors), {**inputs.settings, "mask_is_logits": True}
    expected = cuda.backward(*given, **rest, in_tiles=False)[0].float().cpu()
    rounding = torch.finfo(torch.bfloat16).eps * float(expected.abs().max())
    cuda.backward(*given, **rest, **FAST)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        found, *_ = cuda.backward(*given, **rest, **FAST)
    for _ in range(3):
        found.fill_(torch.nan)
        graph.replay()
        assert worst(found.float().cpu(), expected) <= rounding


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("spread", [0.1, 0.25, 2.0], ids=["within-one", "within-two", "far"])
def test_a_forward_by_tensor_cores_gives_what_one_without_gives(dtype: torch.dtype, spread: float) -> None:
    skip_unusable("cuda")
    from vistalib_kernels import cuda

    inputs = on_gpu(height=50, width=70, offset_scale=2.0, spread=spread, dtype=dtype)
    rest = {**inputs.settings, "mask_is_logits": True}
    window, plain = (cuda.forward(*inputs.tensors, **rest, tensor_cores=choice) for choice in (True, False))
    assert worst(window.float().cpu(), plain.float().cpu()) <= torch.finfo(dtype).eps * float(plain.abs().max())  # one rounding


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("fast", {"tensor_cores": True, "in_tiles": True}),
        ("listed", {"tensor_cores": False, "in_tiles": True}),
    ],
)
def test_a_contestant_asks_for_its_kernels(monkeypatch: pytest.MonkeyPatch, name: str, choice: dict[str, bool]) -> None:
    import gpu_op
    from vistalib_kernels import cuda, extension

    library()
    asked: dict[str, bool] = {}

    def forward(*tensors: Tensor, tensor_cores: bool, **settings: Any) -> Tensor:
        asked["tensor_cores"] = tensor_cores
        return extension.forward(*tensors, **settings)

    def backward(*tensors: Tensor, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
        assert settings.pop("tensor_cores") == asked["tensor_cores"]
        asked["in_tiles"] = settings.pop("in_tiles")
        return extension.backward(*tensors, **settings)

    monkeypatch.setattr(cuda, "forward", forward)  # the C++ twin stands in for a GPU
    monkeypatch.setattr(cuda, "backward", backward)
    work = Workload("", None, 1, 5, 7, 12, 3)
    *tensors, gradient = draw(work, Offsets("uniform:3"), torch.float64, device=torch.device("cpu"), seed=0)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = getattr(gpu_op, name)().bind(work, torch.device("cpu"))(*leaves)
    expected = dcnv3_gradients(gradient, *tensors, groups=work.groups)
    for ours, theirs in zip(torch.autograd.grad(output, leaves, gradient), expected):
        assert worst(ours, theirs) < 1e-12  # measured 1e-15
    assert asked == choice


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_deterministic_algorithms_repeat_to_the_bit_or_are_refused(backend: str) -> None:
    inputs = on_gpu(height=40, width=40, spread=8.0)
    if backend == "numba-cuda":
        with pytest.raises(RuntimeError, match="is not deterministic"):
            results(inputs, backend)
        return
    first = results(inputs, backend)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, results(inputs, backend)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_as_a_graph_takes_the_steps_of_one_without(tmp_path: Path, precision: Any, accumulate: int) -> None:
    """With dropout, batch norm, clipping, a loss scale and averaged weights."""
    chosen = settings(precision=precision, accumulate=accumulate, ema_decay=0.9, log_every=1)
    for name in ("plain", "graph"):
        changed = replace(chosen, cuda_graphs=name == "graph")
        fit(tiny(), Noise(batch_size=4), changed, folder=tmp_path / name, evaluate=score_there, device="cuda")
    bound = {"fp32": 1e-4, "bf16": 1e-2, "fp16": 1e-3}[precision]
    for first, second in zip(*(read_log(tmp_path / name) for name in ("plain", "graph")), strict=True):
        for key in {"loss", "grad_norm", "mean_iou", "skipped", "loss_scale"} & first.keys():
            assert first[key] == pytest.approx(second[key], rel=bound)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_profile_counts_the_time_of_kernels() -> None:
    device = torch.device("cuda")
    factor = torch.randn(8192, 8192, device=device)
    torch.mm(factor, factor)
    found = by_part(lambda: torch.mm(factor, factor), device)
    assert found["products"] == pytest.approx(seconds(lambda: torch.mm(factor, factor), device), rel=0.3)


def score_there(model: torch.nn.Module) -> dict[str, float]:
    image = next(Noise(batch_size=4).batches(10_000))["image"].cuda()
    return {"mean_iou": float(model(image).double().sigmoid().mean())}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_script_names_the_rehearsal(tmp_path: Path) -> None:
    command = [str(ROOT / "tools" / "gpu.py"), "build", "--out", str(tmp_path)]
    said = run_with_torch(
        f"import runpy, sys\nsys.argv, sys.stderr = {command}, sys.stdout\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\nexcept SystemExit as end:\n    print(end.code)"
    )
    assert "--dry-run rehearses everything" in said
    assert said.splitlines()[-1] == "2"


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The records of every part, by name."""
    out, photographs = tmp_path_factory.mktemp("gpu"), write_folder(tmp_path_factory.mktemp("photographs") / "mine")
    for kind in ("images", "labels"):
        shutil.copytree(photographs / kind / "train", photographs / kind / "val")
    command = [sys.executable, str(ROOT / "tools" / "gpu.py"), "all", "--dry-run", "--out", str(out)]
    done = subprocess.run([*command, "--folder", str(photographs)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


@pytest.mark.slow
def test_every_part_can_be_rehearsed_on_a_cpu(rehearsal: dict[str, dict[str, Any]]) -> None:
    parts = {"build", "test", "agree", "bench-op", "counters", "bench-model", "inference", "evaluate", "train", "streets"}
    assert parts <= rehearsal.keys()
    assert all(rehearsal[part]["dry_run"] and rehearsal[part]["facts"]["commit"] for part in parts)
    assert {part for part in parts if "skipped" in rehearsal[part]} == {"counters"}


@pytest.mark.slow
def test_a_step_is_measured_by_every_operator_and_in_every_variant(rehearsal: dict[str, dict[str, Any]]) -> None:
    rows = rehearsal["bench-model"]["training"]
    assert {row["operator"] for row in rows if row["variant"] == "eager"} == {"ours", "cuda-fast", "grid_sample"}
    graphs = [(row["operator"], row["variant"]) for row in rows if "failed" in row]  # which a CPU does not have
    assert graphs == [("ours", "graph"), ("cuda-fast", "graph"), ("ours", "compiled, graph")]
    assert {row["variant"] for row in rows if "seconds" in row} == {"eager", "channels last", "compiled"}
    (largest,) = (row for row in rows if row.get("largest_that_fits"))
    assert largest["batch"] == 4
    assert rows[0]["parts"]["convolution"] > 0
    assert rows[0]["host_parts"]["optimizer"] > 0


@pytest.mark.slow
def test_a_rehearsed_training_is_scored_and_its_network_looked_at(rehearsal: dict[str, dict[str, Any]]) -> None:
    runs = rehearsal["streets"]["runs"]
    assert list(runs) == ["pretrain", "finetune", "small pretrain", "small finetune"]
    for run in (rehearsal["train"], *runs.values()):
        assert [point["iteration"] for point in run["curve"]] == [1, 2]
        assert run["mean_iou"] == run["curve"][-1]["mean_iou"]
    for run in (rehearsal["train"], runs["finetune"]):
        assert len(run["offsets"]["layers"]) == 6  # blocks of the toy model
        assert 0.5 < run["labels"]["same_labels"] <= 1
    assert rehearsal["train"]["multi_scale"]["mode"] == "multi-scale + flip"
    assert runs["finetune"]["recipe"]["starts_from"] == runs["pretrain"]["recipe"]["name"]
    assert runs["small finetune"]["checkpoint"]["bytes"] < 10e6


@pytest.mark.slow
def test_a_rehearsed_evaluation_counts_every_image(rehearsal: dict[str, dict[str, Any]]) -> None:
    found = [(row["precision"], row["mode"], row["images"]) for row in rehearsal["evaluate"]["rows"]]
    assert found == [("bf16", "single scale", 2), ("tf32", "single scale", 2), ("bf16", "multi-scale + flip", 1)]
