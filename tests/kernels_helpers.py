"""The compiled kernels for tests: built once for all test processes, into a folder of the checkout with blanks in its name."""

import ctypes
import hashlib
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from helpers import ROOT
from ops_helpers import Inputs
from torch import Tensor

FOLDER = ROOT / "build" / "kernels for tests"  # VISTALIB_KERNELS_CACHE, see conftest.py
FAST = {"in_tiles": True, "tensor_cores": True}  # the tier that is nobody's default
HALF = pytest.param(torch.float16, marks=pytest.mark.slow)  # a processor takes its time over these numbers
SIXTEEN_BITS = pytest.mark.parametrize("dtype", [torch.bfloat16, HALF], ids=str)
KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
Run = Callable[
    ..., tuple[Tensor, ...]
]  # inputs, mask_is_logits, deterministic, in_tiles, tensor_cores -> output and three gradients


@cache
def build_once() -> Exception | None:
    """Build the library, by one of all test processes; the error where that fails."""
    from vistalib_kernels import build

    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock"):
        try:
            build.build(say=lambda line: None)
        except build.BuildFailed as error:
            return error
    return None


def library() -> None:
    """See that the library is there; skips where there is no C++ compiler."""
    error = build_once()
    if error is not None and "there is no C++ compiler" in str(error):
        pytest.skip(str(error))
    if error is not None:
        raise error


@cache
def cuda_on_a_cpu() -> Any:
    """The CUDA kernels compiled for this CPU (cuda_on_a_cpu.cpp); skips where there is no GCC on Linux."""
    from vistalib_kernels import build

    source = Path(__file__).parent / "cuda_on_a_cpu.cpp"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (source, *sorted(build.SOURCES.iterdir()))))
    made = FOLDER / f"cuda_on_a_cpu-{digest.hexdigest()[:16]}.so"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock"):
        if not made.exists():
            command = ["g++", "-std=c++20", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wno-unknown-pragmas"]
            try:
                done = subprocess.run(
                    [*command, f"-I{build.SOURCES}", str(source), "-o", str(made)], capture_output=True, text=True
                )
            except FileNotFoundError:
                pytest.skip("no g++ here to run the CUDA kernels on a CPU with")
            assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(made))


def by_twin(inputs: Inputs, *, mask_is_logits: bool = False, deterministic: bool = False) -> tuple[Tensor, ...]:
    """By the C++ twin."""
    from vistalib_kernels import extension

    library()
    settings = {**inputs.settings, "mask_is_logits": mask_is_logits}
    gradients = extension.backward(inputs.grad_output, *inputs.tensors, **settings, deterministic=deterministic)
    return (extension.forward(*inputs.tensors, **settings), *gradients)


def by_cuda_on_a_cpu(
    inputs: Inputs,
    *,
    mask_is_logits: bool = False,
    deterministic: bool = False,
    in_tiles: bool = False,
    tensor_cores: bool = False,
    processes: int = 1,
) -> tuple[Tensor, ...]:
    """By the CUDA kernels, launched as the extension does; results lie in memory that was poisoned and is guarded.

    Several processes take blocks one after the other, so that blocks run at the same time, in an order that nobody knows.
    """
    emulator, kind = cuda_on_a_cpu(), KINDS.index(inputs.value.dtype)
    sizes, scale = _sizes(inputs, mask_is_logits)
    value, offset, mask, grad_output = (guarded(tensor) for tensor in (*inputs.tensors, inputs.grad_output))
    output, grad_value, grad_offset, grad_mask = (
        guarded(torch.full_like(tensor, torch.nan)) for tensor in (inputs.grad_output, *inputs.tensors)
    )
    sums = torch.zeros_like(value, dtype=torch.int64 if deterministic else torch.promote_types(value.dtype, torch.float32))
    sums = grad_value.zero_() if sums.dtype == value.dtype else guarded(sums)
    how_many, counters = (ctypes.c_longlong(), ctypes.c_longlong()), None
    if not deterministic and emulator.sheets(kind, sizes, scale, int(in_tiles), *map(ctypes.byref, how_many)):
        sums, counters = guarded(torch.full((how_many[0].value,), torch.nan)), guarded(torch.zeros(how_many[1].value).int())
    largest = torch.zeros(2, dtype=torch.float64) if deterministic else None
    emulator.at_once(processes)
    for tensor in (value, offset, mask, grad_output, output, grad_value, grad_offset, grad_mask, sums, counters):
        if processes > 1 and tensor is not None:
            tensor.untyped_storage().share_memory_()
    if output.numel():
        emulator.forward(kind, sizes, scale, *map(_address, (value, offset, mask)), int(tensor_cores), _address(output))
        given = map(_address, (grad_output, value, offset, mask, sums, largest, counters))
        how = int(in_tiles), int(tensor_cores)
        emulator.backward(kind, sizes, scale, *given, *how, *map(_address, (grad_value, grad_offset, grad_mask)))
    for tensor in (output, grad_value, grad_offset, grad_mask, sums, counters):
        if tensor is not None:
            assert_unharmed(tensor)
    return output, grad_value, grad_offset, grad_mask


def tiles(inputs: Inputs) -> int:
    """Blocks of the backward in tiles, as the extension launches it; 0 where it does not."""
    return _blocks(cuda_on_a_cpu().tiles, inputs)


def windows(inputs: Inputs) -> int:
    """Blocks of the forward by tensor cores, as the extension launches it; 0 where it does not."""
    return _blocks(cuda_on_a_cpu().windows, inputs)


def products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Twice a b in float32, (16, 16) times (16, 8) of 16 bits, b loaded by rows and by columns."""
    kind = KINDS.index(a.dtype)
    by_rows, by_columns = torch.empty(16, 8), torch.empty(16, 8)
    tensors = (a, b, b.T.contiguous(), by_rows, by_columns)
    cuda_on_a_cpu().products(kind, *map(_address, tensors))
    return by_rows, by_columns


def _blocks(count: Any, inputs: Inputs) -> int:
    count.restype = ctypes.c_longlong
    return int(count(*_sizes(inputs, True)))


def _sizes(inputs: Inputs, mask_is_logits: bool) -> tuple[Any, ctypes.c_double]:
    settings = inputs.settings
    groups, pairs = settings["groups"], [settings[name] for name in ("kernel_size", "stride", "padding", "dilation")]
    numbers = (*inputs.value.shape[:3], *inputs.offset.shape[1:3], groups, inputs.value.shape[3] // groups)
    sizes = (ctypes.c_longlong * 16)(*numbers, *(size for pair in pairs for size in pair), mask_is_logits)
    return sizes, ctypes.c_double(settings["offset_scale"])


def by_nvrtc_on_a_cpu(
    inputs: Inputs,
    *,
    mask_is_logits: bool = False,
    deterministic: bool = False,
    in_tiles: bool = False,
    tensor_cores: bool = False,
) -> tuple[Tensor, ...]:
    """By the CUDA kernels, launched as `vistalib_kernels.nvrtc` does, from Python."""
    from vistalib_kernels import nvrtc

    emulator = cuda_on_a_cpu()

    def launch(name: str, blocks: int, where: Tensor, *arguments: Any) -> None:
        values, pointers = nvrtc.packed(arguments)
        assert emulator.launch_named(name.encode(), blocks, pointers), name
        del values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "_launch", launch)
        patch.setattr(nvrtc, "IN_FLIGHT", 4)  # as in cuda_on_a_cpu.cpp
        emulator.at_once(1)
        settings = {**inputs.settings, "mask_is_logits": mask_is_logits}
        how = {"deterministic": deterministic, "in_tiles": in_tiles, "tensor_cores": tensor_cores}
        gradients = nvrtc.backward(inputs.grad_output, *inputs.tensors, **settings, **how)
        return (nvrtc.forward(*inputs.tensors, **settings, tensor_cores=tensor_cores), *gradients)


GUARD = 64  # numbers before and behind a guarded tensor


def guarded(tensor: Tensor) -> Tensor:
    """A copy of `tensor` between numbers that are not its own: NaN, which would show in a result, or a known integer."""
    poison = torch.nan if tensor.is_floating_point() else 77
    around = torch.full((tensor.numel() + 2 * GUARD,), poison, dtype=tensor.dtype)
    inside = around[GUARD : GUARD + tensor.numel()]
    inside.copy_(tensor.flatten())
    return inside.view(tensor.shape)


def assert_unharmed(tensor: Tensor) -> None:
    """Nothing was written beside a guarded tensor."""
    around = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    for guard in (around[:GUARD], around[GUARD + tensor.numel() :]):
        assert (guard.isnan() if tensor.is_floating_point() else guard == 77).all()


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
