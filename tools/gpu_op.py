"""Our backward without tiles, for tools/gpu.py: what tiles are worth, in one run on the same tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from vistalib_kernels import cuda

from vistalib.bench.baselines import Implementation
from vistalib.bench.workload import Workload


class Untiled(torch.autograd.Function):
    """The CUDA kernels, with the backward that adds every corner of every point to memory."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, offset: Tensor, mask: Tensor, settings: dict[str, Any]) -> Tensor:
        """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C)."""
        ctx.save_for_backward(value, offset, mask)
        ctx.settings = settings
        return cuda.forward(value, offset, mask, **settings)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch leaves it unannotated
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of value, offset and mask."""
        return (*cuda.backward(gradient, *ctx.saved_tensors, **ctx.settings, in_tiles=False), None)


def untiled() -> Implementation:
    """A contestant for `vistalib.bench.OperatorBench`."""

    def bind(work: Workload, device: torch.device) -> Any:
        pairs = {"kernel_size": (3, 3), **dict.fromkeys(("stride", "padding", "dilation"), (1, 1))}
        settings = {"groups": work.groups, **pairs, "offset_scale": work.offset_scale, "mask_is_logits": False}
        return lambda value, offset, mask: Untiled.apply(value, offset, mask, settings)  # type: ignore[no-untyped-call]

    return Implementation("cuda-untiled", bind)
