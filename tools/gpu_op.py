"""Our kernels as nobody takes them by default, for tools/gpu.py: what tiles and windows are worth, on the same tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from vistalib_kernels import cuda

from vistalib.bench.baselines import Implementation
from vistalib.bench.workload import Workload


class Chosen(torch.autograd.Function):
    """The CUDA kernels: the forward by tensor cores or not, the backward in tiles, by these or not, or adding all to memory."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, offset: Tensor, mask: Tensor, settings: dict[str, Any], in_window: bool, how: dict[str, bool]
    ) -> Tensor:
        """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C)."""
        ctx.save_for_backward(value, offset, mask)
        ctx.settings, ctx.how = settings, how
        return cuda.forward(value, offset, mask, **settings, in_window=in_window)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch leaves it unannotated
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of value, offset and mask."""
        gradients = cuda.backward(gradient, *ctx.saved_tensors, **ctx.settings, **ctx.how)
        return (*gradients, None, None, None)


def untiled() -> Implementation:
    """The backward without tiles, a contestant for `vistalib.bench.OperatorBench`."""
    return _contestant("cuda-untiled", in_tiles=False)


def listed() -> Implementation:
    """The backward in tiles without tensor cores."""
    return _contestant("cuda-lists", tensor_cores=False)


def windowed() -> Implementation:
    """The forward by tensor cores, where offsets are small enough."""
    return _contestant("cuda-window", in_window=True)


def _contestant(name: str, *, in_window: bool = False, **how: bool) -> Implementation:
    def bind(work: Workload, device: torch.device) -> Any:
        pairs = {"kernel_size": (3, 3), **dict.fromkeys(("stride", "padding", "dilation"), (1, 1))}
        settings = {"groups": work.groups, **pairs, "offset_scale": work.offset_scale, "mask_is_logits": False}
        return lambda *tensors: Chosen.apply(*tensors, settings, in_window, how)  # type: ignore[no-untyped-call]

    return Implementation(name, bind)
