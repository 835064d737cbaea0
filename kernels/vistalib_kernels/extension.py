"""DCNv3 by the library that `vistalib_kernels.build` made: the C++ twin on CPU tensors, the kernels on CUDA tensors.

The arguments must fit together; only what would read beyond a tensor is checked. Pairs are (height, width).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vistalib_kernels.build import COMMAND, Built, find, last_failure

_loaded: Built | None = None


def load() -> Built | None:
    """Load the library into this process; None where it was not built. `RuntimeError` where it does not load."""
    global _loaded
    if _loaded is None and (built := find()) is not None:
        try:
            torch.ops.load_library(built.path)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        except OSError as error:
            raise RuntimeError(f"{built.path} does not load: {error}; run: {COMMAND} --again") from error
        _loaded = built
    return _loaded


def status() -> tuple[bool, str, str | None]:
    """Whether the C++ twin can be used; why not, and the command that helps. `RuntimeError` where the library does not load."""
    if load() is not None:
        return True, "runs on CPUs; the compiled twin of the CUDA kernels", None
    failure = last_failure()
    return False, f"the last build failed: {failure}" if failure else "not built", COMMAND


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
    tensor_cores: bool = False,
) -> Tensor:
    """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C), all of one dtype.

    With `tensor_cores` a GPU takes them where they suit: faster by all reckoning, and never yet tried on one.
    """
    sizes = [list(pair) for pair in (kernel_size, stride, padding, dilation)]
    output: Tensor = _operators().dcnv3(value, offset, mask, groups, *sizes, offset_scale, mask_is_logits, tensor_cores)
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
    deterministic: bool = False,
    in_tiles: bool = False,
    tensor_cores: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, offset and mask; with `deterministic` the same bits every time (on CPUs always).

    With `in_tiles` a GPU adds up a tile's corners on chip where that suits, not each to memory; with `tensor_cores` as well,
    by these in 16 bits: faster by all reckoning, and never yet tried on one.
    """
    sizes = [list(pair) for pair in (kernel_size, stride, padding, dilation)]
    arguments = (groups, *sizes, offset_scale, mask_is_logits, deterministic, in_tiles, tensor_cores)
    gradients: tuple[Tensor, Tensor, Tensor] = _operators().dcnv3_backward(grad_output, value, offset, mask, *arguments)
    return gradients


def _operators() -> Any:
    assert load() is not None, "the caller has asked before"
    return torch.ops.vistalib_kernels
