"""Our kernels as nobody takes them by default, for tools/gpu.py: what tiles and tensor cores are worth, on the same tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from vistalib_kernels import cuda

from vistalib.bench.baselines import Implementation
from vistalib.bench.workload import Workload


class Chosen(torch.autograd.Function):
    """The CUDA kernels: by tensor cores or not, the backward in tiles, or adding all to memory."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, offset: Tensor, mask: Tensor, settings: dict[str, Any], tensor_cores: bool, in_tiles: bool
    ) -> Tensor:
        """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C)."""
        ctx.save_for_backward(value, offset, mask)
        ctx.settings, ctx.how = settings, {"tensor_cores": tensor_cores, "in_tiles": in_tiles}
        return cuda.forward(value, offset, mask, **settings, tensor_cores=tensor_cores)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch leaves it unannotated
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of value, offset and mask."""
        gradients = cuda.backward(gradient, *ctx.saved_tensors, **ctx.settings, **ctx.how)
        return (*gradients, None, None, None)


def untiled() -> Implementation:
    """Without tiles and tensor cores, a contestant for `vistalib.bench.OperatorBench`."""
    return _contestant("cuda-untiled", in_tiles=False)


def listed() -> Implementation:
    """In tiles, but without tensor cores."""
    return _contestant("cuda-lists", in_tiles=True)


def _contestant(name: str, *, in_tiles: bool) -> Implementation:
    def bind(work: Workload, device: torch.device) -> Any:
        pairs = {"kernel_size": (3, 3), **dict.fromkeys(("stride", "padding", "dilation"), (1, 1))}
        settings = {"groups": work.groups, **pairs, "offset_scale": work.offset_scale, "mask_is_logits": False}
        return lambda *tensors: Chosen.apply(*tensors, settings, False, in_tiles)  # type: ignore[no-untyped-call]

    return Implementation(name, bind)
