"""DCNv3 on a GPU by Numba: the version to read, forward and backward, in float32, float64, float16 and bfloat16.

The kernels are a ladder of three steps, "naive", "shared" and "vector" (gpu_forward.py and gpu_backward.py); each computes the
same and can be called by its name. Without a name a call gets the last step that its sizes allow.

Works on the stream and the device that PyTorch would use, reads PyTorch's memory where it lies, and never waits. Numba compiles
a kernel at its first call, a second or two; later calls cost some hundred microseconds of Python each, which a captured CUDA
graph does not repeat. Needs numba-cuda 0.22 or newer. Under Numba's CUDA simulator the same calls take CPU tensors.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from numba import cuda, types
from torch import Tensor

from vistalib_kernels import gpu_backward, gpu_forward
from vistalib_kernels.gpu_numbers import SIMULATED
from vistalib_kernels.gpu_parts import THREADS, Build

VARIANTS = ("naive", "shared", "vector")
MAKERS: dict[str, dict[str, Callable[[Build], tuple[Any, int]]]] = {
    "forward": {"naive": gpu_forward.naive, "shared": gpu_forward.shared, "vector": gpu_forward.vector},
    "backward": {"naive": gpu_backward.naive, "shared": gpu_backward.shared, "vector": gpu_backward.vector},
}
if not SIMULATED:
    cuda.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a small image is no mistake


def status() -> tuple[bool, str, str | None]:
    """Whether CUDA tensors can be treated here; why not, and the command that helps."""
    if not cuda.is_available():
        toolkit = (torch.version.cuda or "13").partition(".")[0]
        repair = f'python -m pip install --force-reinstall "vistalib-kernels[cu{toolkit}]"'
        return False, f"Numba finds no GPU: {cuda.cuda_error()}", repair
    return True, "runs on NVIDIA GPUs; the version to read", None


def forward(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    offset_scale: float,
    mask_is_logits: bool,
    variant: str | None = None,
) -> Tensor:
    """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C) in the dtype of `value`.

    The arguments must fit together: nothing but `variant` is checked here. Pairs are (height, width).
    """
    build = make_build(value, groups, kernel_size, stride, padding, dilation, mask_is_logits)
    kernel, units = _make("forward", choose(variant, build), build)
    output = value.new_empty((*offset.shape[:3], value.shape[3]))
    arrays = [_flat(tensor) for tensor in (value, offset, mask, output)]
    blocks = _blocks(output.numel() // build.channels, units) if units else _blocks(output.numel(), THREADS)
    _launch(kernel, blocks, value.device, *arrays, _sizes(value, offset, groups), _stretch(build, offset_scale))
    return output


def backward(
    grad_output: Tensor,
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    offset_scale: float,
    mask_is_logits: bool,
    variant: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, offset and mask, each in the dtype of its tensor, from that of the output.

    Raises `RuntimeError` under `torch.use_deterministic_algorithms(True)`: the gradient of value is added up by atomics.
    """
    _refuse_determinism()
    build = make_build(value, groups, kernel_size, stride, padding, dilation, mask_is_logits)
    kernel, units = _make("backward", choose(variant, build), build)
    grad_value = torch.zeros(value.shape, dtype=torch.promote_types(value.dtype, torch.float32), device=value.device)
    grad_offset, grad_mask = torch.empty_like(offset, memory_format=torch.contiguous_format), mask.new_empty(mask.shape)
    tensors = (grad_output, value, offset, mask, grad_value, grad_offset, grad_mask)
    arrays = [_flat(tensor) for tensor in tensors]
    blocks = _blocks(grad_output.numel() // build.channels, units)
    _launch(kernel, blocks, value.device, *arrays, _sizes(value, offset, groups), _stretch(build, offset_scale))
    return grad_value.to(value.dtype), grad_offset, grad_mask


@cache
def _make(direction: str, variant: str, build: Build) -> tuple[Any, int]:
    return MAKERS[direction][variant](build)


def make_build(
    value: Tensor,
    groups: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    logits: bool,
) -> Build:
    """What a kernel for these arguments is compiled for."""
    _, height, width, channels = value.shape
    if height * width >= 2**31:
        raise ValueError(f"an image must have fewer than 2**31 pixels, got {height} x {width}; cut it into tiles")
    sizes = [(int(size[0]), int(size[1])) for size in (kernel_size, stride, padding, dilation)]
    return Build(value.dtype, channels // groups, sizes[0], sizes[1], sizes[2], sizes[3], logits)


def choose(variant: str | None, build: Build) -> str:
    """The step that is run: the one asked for, or the last one that fits. Raises `ValueError` for one that does not."""
    fits = build.channels % build.vector == 0
    if variant is None:
        return "vector" if fits else "shared"
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}; leave it out for the fastest")
    if variant == "vector" and not fits:
        raise ValueError(
            f"variant 'vector' needs a multiple of {build.vector} channels a group in {build.dtype}, got {build.channels}; "
            "use variant='shared'"
        )
    return variant


def ptx(direction: str, variant: str, build: Build, *, capability: tuple[int, int]) -> str:
    """The code of a kernel for a GPU of `capability`, such as (9, 0); needs no GPU, but the compiler of numba-cuda[cu13]."""
    kernel, _ = _make(direction, variant, build)
    arrays = [types.Array(build.stored, 1, "C")] * (4 if direction == "forward" else 7)
    if direction == "backward":
        arrays[4] = types.Array(build.real, 1, "C")
    numbers = types.UniTuple(types.int64, 5), types.UniTuple(build.real, 3)  # type: ignore[no-untyped-call]
    signature = types.void(*arrays, *numbers)
    code, _ = cuda.compile(kernel.py_func, signature, cc=capability, device=False, abi="numba", output="ptx")
    return str(code)


def _flat(tensor: Tensor) -> Any:
    """The elements in order as a one-dimensional array on a boundary of 16 bytes, without a copy where they lie so already."""
    tensor = tensor.detach().contiguous()
    if tensor.data_ptr() % 16:
        tensor = tensor.clone()
    flat = tensor.view(-1)
    flat = flat.view(torch.int16) if flat.dtype.itemsize == 2 else flat
    return flat.numpy() if SIMULATED else flat


def _sizes(value: Tensor, offset: Tensor, groups: int) -> tuple[int, ...]:
    return (value.shape[1], value.shape[2], offset.shape[1], offset.shape[2], groups)


def _stretch(build: Build, scale: float) -> tuple[Any, ...]:
    centre_y, centre_x = ((build.dilation[axis] * (build.kernel_size[axis] - 1)) // 2 for axis in (0, 1))
    return build.cast(scale), build.cast(centre_x * scale), build.cast(centre_y * scale)


def _blocks(items: int, of: int) -> int:
    return -(-items // of)


def _launch(kernel: Any, blocks: int, device: torch.device, *arguments: Any) -> None:
    if blocks == 0:
        return
    if SIMULATED:
        kernel[blocks, THREADS](*arguments)
        return
    with torch.cuda.device(device):
        pointer = torch.cuda.current_stream().cuda_stream
        kernel[blocks, THREADS, cuda.external_stream(pointer) if pointer else 0](*arguments)


def _refuse_determinism() -> None:
    if not torch.are_deterministic_algorithms_enabled():
        return
    sentence = (
        "the backward pass of backend 'numba-cuda' is not deterministic: it adds by atomics, in any order; "
        "use backend='torch', or torch.use_deterministic_algorithms(True, warn_only=True)"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(sentence)
    warnings.warn(sentence, stacklevel=3)
