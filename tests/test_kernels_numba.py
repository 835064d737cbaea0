"""The Numba kernels against the definition: every shape, dtype and number of threads; beside forks and concurrent calls."""

import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_with_torch
from ops_helpers import NAMES, RECORDED, Inputs, disagreements, random_inputs, recorded, worst
from torch import Tensor

from vistalib.ops import dcnv3_definition
from vistalib.ops.definition import dcnv3_gradients

pytest.importorskip("numba")
from vistalib_kernels import numba_cpu


def kernels(inputs: Inputs, **more: bool) -> tuple[Tensor, ...]:
    settings = {"mask_is_logits": False, **inputs.settings, **more}
    gradients = numba_cpu.backward(inputs.grad_output, *inputs.tensors, **settings)
    return (numba_cpu.forward(*inputs.tensors, **settings), *gradients)


def definition(inputs: Inputs, **more: bool) -> tuple[Tensor, ...]:
    gradients = dcnv3_gradients(inputs.grad_output, *inputs.tensors, **inputs.settings, **more)
    return (dcnv3_definition(*inputs.tensors, **inputs.settings, **more), *gradients)


@pytest.fixture
def threads() -> Any:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", RECORDED)
def test_output_and_gradients_are_the_recorded_ones(name: str) -> None:
    inputs, truth = recorded(name)
    assert not disagreements(kernels(inputs), truth)  # measured 3.6e-15


SHAPES = [
    pytest.param({"group_channels": 1, "groups": 3}, id="D1"),
    pytest.param({"group_channels": 3, "groups": 3}, id="D3"),
    pytest.param({"group_channels": 30, "groups": 1}, id="D30"),
    pytest.param({"height": 1, "width": 1}, id="one-pixel"),
    pytest.param({"height": 1, "width": 600}, id="longer-than-a-tile"),
    pytest.param({"height": 9, "width": 8, "stride": (2, 3)}, id="stride"),
    pytest.param({"kernel_size": (4, 2), "padding": (3, 0), "dilation": (2, 1)}, id="even-kernel"),
    pytest.param({"kernel_size": (7, 7), "padding": (3, 3), "groups": 30}, id="more-points-than-a-tile"),
    pytest.param({"offset_scale": 0.7, "spread": 0.0}, id="whole-locations"),
    pytest.param({"spread": 30.0}, id="mostly-outside"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_float64_agrees_with_the_definition(shape: dict[str, Any], logits: bool) -> None:
    inputs = random_inputs(**shape)
    for key, ours, theirs in zip(NAMES, kernels(inputs, mask_is_logits=logits), definition(inputs, mask_is_logits=logits)):
        assert worst(ours, theirs) < 1e-12, key  # measured 5e-14


@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_float32_agrees_with_the_float64_definition_at_the_same_locations(logits: bool) -> None:
    inputs = random_inputs(2, 16, 32, groups=4, group_channels=16, dtype=torch.float32, spread=1.0)
    exact_offset = (inputs.offset * 64).round() / 64  # few digits: locations are exact in float32 too
    inputs = inputs._replace(offset=exact_offset)
    expected = definition(inputs.to(torch.float64), mask_is_logits=logits)
    for key, ours, theirs in zip(NAMES, kernels(inputs, mask_is_logits=logits), expected):
        assert worst(ours, theirs.float()) < 2e-5, key  # measured 4e-6, at gradients of about 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_softmax_inside_is_the_softmax_outside(dtype: torch.dtype) -> None:
    inputs = random_inputs(dtype=dtype)
    inputs = inputs._replace(mask=inputs.mask * 20)
    mask = inputs.mask.unflatten(-1, (2, 9)).softmax(-1).flatten(-2)
    inside, outside = kernels(inputs, mask_is_logits=True)[0], kernels(inputs._replace(mask=mask))[0]
    assert worst(inside, outside) < 8 * torch.finfo(dtype).eps  # measured 2


def test_a_logit_of_minus_infinity_leaves_its_point_out() -> None:
    inputs = random_inputs()
    inputs.mask[..., ::9] = -torch.inf
    for ours, theirs in zip(kernels(inputs, mask_is_logits=True), definition(inputs, mask_is_logits=True)):
        assert worst(ours, theirs) < 1e-12  # measured 4e-15


def test_nan_and_infinity_stay_where_the_definition_has_them() -> None:
    inputs = random_inputs(1, 8, 8)
    inputs.value[0, 3, 3, 1] = torch.nan
    inputs.value[0, 6, 2, 5] = torch.inf
    inputs.offset[0, 0, 0, :4] = torch.tensor([torch.nan, 0.0, torch.inf, -torch.inf])
    inputs.mask[0, 7, 7, 0] = torch.nan
    inputs.offset[0, 7, 7, :2] = 0.0
    for logits in (False, True):
        ours, theirs = kernels(inputs, mask_is_logits=logits)[0], definition(inputs, mask_is_logits=logits)[0]
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12, equal_nan=True)


def test_slices_of_one_tensor_are_read_where_they_lie() -> None:
    inputs = random_inputs(2, 6, 9)
    both = torch.cat((inputs.offset, inputs.mask), -1)
    offset, mask = both.split((inputs.offset.shape[-1], inputs.mask.shape[-1]), -1)
    for slice_ in (offset, mask):
        assert numba_cpu._pixels(slice_, slice_.dtype)[0].ctypes.data == slice_.data_ptr()
    for ours, whole in zip(kernels(inputs._replace(offset=offset, mask=mask)), kernels(inputs)):
        assert torch.equal(ours, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_gradients_are_rounded_once(dtype: torch.dtype) -> None:
    inputs = random_inputs(dtype=dtype)
    for ours, exact in zip(kernels(inputs), kernels(inputs.to(torch.float32))):
        assert torch.equal(ours, exact.to(dtype))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({}, id="several-images"),
        pytest.param({"images": 1, "groups": 1, "group_channels": 64, "spread": 5.0}, id="one-image-one-group"),
        pytest.param({"stride": (3, 1), "height": 130, "offset_scale": -2.0}, id="stride"),
        pytest.param({"padding": (9, 0), "kernel_size": (3, 1)}, id="more-output-than-input"),
        pytest.param({"spread": 0.0}, id="whole-locations"),
    ],
)
def test_any_number_of_threads_gives_the_same_bits(threads: Any, shape: dict[str, Any], monkeypatch: Any) -> None:
    shape = {"images": 2, "height": 40, "width": 50, "groups": 3, "group_channels": 16, **shape}
    inputs = random_inputs(dtype=torch.float32, seed=3, **shape)
    inputs.offset[0, -1, 0, :4] = torch.tensor([torch.nan, torch.inf, 0.0, -torch.inf])
    monkeypatch.setattr(numba_cpu, "ALONE", 0)
    results = []
    for count in (1, 2, 5, 16):
        threads(count)
        results.append(kernels(inputs, mask_is_logits=True))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_concurrent_calls_do_not_disturb_each_other(threads: Any) -> None:
    threads(2)
    cases = [random_inputs(2, 40, 50, groups=3, group_channels=16, dtype=torch.float32, seed=seed) for seed in range(4)]
    expected = [kernels(inputs) for inputs in cases]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(expected * 3, pool.map(kernels, cases * 3)):
            assert all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_works_with_threads_of_its_own() -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from ops_helpers import random_inputs
from vistalib_kernels import numba_cpu
inputs = random_inputs(2, 40, 50, groups=3, group_channels=16, dtype=torch.float32)
torch.set_num_threads(2)
call = lambda: numba_cpu.forward(*inputs.tensors, **inputs.settings, mask_is_logits=True)
before = call()
child = os.fork()
if child == 0:
    os._exit(0 if call().numpy().tobytes() == before.numpy().tobytes() else 1)
print(os.waitpid(child, 0)[1])
"""
    assert run_with_torch(code) == "0"


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_compute_what_the_main_process_does(start: str) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {start}")
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from ops_helpers import Sampled
expected = [Sampled()[index] for index in range(4)]  # this process has threads of its own by then
loader = torch.utils.data.DataLoader(Sampled(), batch_size=None, num_workers=2, multiprocessing_context={start!r})
print(all(torch.equal(ours, theirs) for ours, theirs in zip(loader, expected, strict=True)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.slow
def test_compiled_code_is_kept_on_disk(tmp_path: Path) -> None:
    code = """
import time, torch
from vistalib_kernels import numba_cpu
began = time.perf_counter()
numba_cpu._compile("forward", 5, torch.float32)
print(time.perf_counter() - began)
"""
    seconds = []
    for _ in range(2):
        environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
        seconds.append(float(done.stdout))
    assert seconds[1] < seconds[0] / 4  # measured 0.1 and 2


LINE = "vistalib: compiling the CPU code of DCNv3 (forward, 5 channels a group), once for this machine"


@pytest.mark.slow
def test_processes_that_start_together_compile_once_and_say_so_once(tmp_path: Path) -> None:
    code = """
import torch
from vistalib_kernels import numba_cpu
numba_cpu.PATIENCE = 0.0  # as on a machine so busy that all takes long
numba_cpu._compile("forward", 5, torch.float32)
"""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)

    together = [start(), start()]
    assert sorted(process.communicate(timeout=120)[1] for process in together) == ["", f"{LINE}\n"]
    later = start()
    assert later.communicate(timeout=120)[1] == ""
    assert [process.returncode for process in (*together, later)] == [0, 0, 0]


def test_what_another_thread_compiles_meanwhile_is_not_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def ours() -> None: ...

    monkeypatch.setattr(numba_cpu, "PATIENCE", 0.0)
    with numba_cpu.event.install_listener("numba:compile", numba_cpu._Notice(ours, "ours")):
        numba_cpu.njit("int64(int64)")(lambda number: number + 1)
    time.sleep(0.1)
    assert capfd.readouterr().err == ""


def by_grid_sample(value: Tensor, offset: Tensor, mask: Tensor, *, groups: int) -> Tensor:
    """3x3, stride 1, padding 1, by the library's own sampler: what one writes in PyTorch without this package."""
    images, height, width, channels = value.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    point = torch.stack((torch.arange(9) // 3 - 1, torch.arange(9) % 3 - 1), -1)
    location = torch.stack((x, y), -1)[:, :, None, None] + point + offset.view(images, height, width, groups, 9, 2)
    grid = (location * 2 + 1) / torch.tensor([width, height]) - 1
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(images * groups, height * width, 9, 2)
    planes = value.view(images, height, width, groups, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)
    found = torch.nn.functional.grid_sample(planes, grid, align_corners=False)  # (N*G, D, H*W, 9)
    weights = mask.view(images, height * width, groups, 9).transpose(1, 2).flatten(0, 1)[:, None]
    return (found * weights).sum(-1).view(images, channels, height, width).permute(0, 2, 3, 1).contiguous()


@pytest.mark.slow
def test_one_thread_needs_a_tenth_of_the_processor_time_of_grid_sample(threads: Any) -> None:
    """Processor time, since other work on the machine changes it less than wall time."""
    threads(1)
    inputs = random_inputs(1, 128, 256, groups=4, group_channels=16, dtype=torch.float32, spread=1.0)
    tensors = [tensor.clone().requires_grad_() for tensor in inputs.tensors]
    settings = {**inputs.settings, "mask_is_logits": False}
    output = by_grid_sample(*tensors, groups=4)
    assert worst(output.detach(), numba_cpu.forward(*inputs.tensors, **settings)) < 1e-3  # another rounding of locations

    calls = (
        lambda: by_grid_sample(*inputs.tensors, groups=4),
        lambda: numba_cpu.forward(*inputs.tensors, **settings),
        lambda: torch.autograd.grad(output, tensors, inputs.grad_output, retain_graph=True),
        lambda: numba_cpu.backward(inputs.grad_output, *inputs.tensors, **settings),
    )
    seconds = [float("inf")] * 4
    for _ in range(10):  # in turns, the best of each
        for i, call in enumerate(calls):
            began = time.process_time()
            call()
            seconds[i] = min(seconds[i], time.process_time() - began)
    print("ms of processor time forward, grid_sample and Numba, then backward:", *(f"{1e3 * second:.1f}" for second in seconds))
    assert seconds[0] > 10 * seconds[1]  # measured 18 to 20
    assert seconds[2] > 8 * seconds[3]  # measured 14 to 15
