"""Our kernels as nobody gets them unasked, for tools/gpu.py: what tiles and tensor cores are worth, on the same tensors."""

from typing import Any

import torch
from gpu_part import FAST
from torch import Tensor
from torch.autograd.function import once_differentiable
from vistalib_kernels import cuda

from vistalib.bench.baselines import Implementation
from vistalib.bench.workload import Workload


class InTiles(torch.autograd.Function):
    """The CUDA kernels in tiles where they suit, by tensor cores or not."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, offset: Tensor, mask: Tensor, settings: dict[str, Any], tensor_cores: bool) -> Tensor:
        """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C)."""
        ctx.save_for_backward(value, offset, mask)
        ctx.settings, ctx.tensor_cores = settings, tensor_cores
        return cuda.forward(value, offset, mask, **settings, tensor_cores=tensor_cores)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch leaves it unannotated
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of value, offset and mask."""
        how = {"in_tiles": True, "tensor_cores": ctx.tensor_cores}
        return (*cuda.backward(gradient, *ctx.saved_tensors, **ctx.settings, **how), None, None)


def fast() -> Implementation:
    """The fast tier, a contestant for `vistalib.bench.OperatorBench`."""
    return _contestant(FAST, tensor_cores=True)


def listed() -> Implementation:
    """The fast tier without tensor cores: the backward in tiles."""
    return _contestant("cuda-lists", tensor_cores=False)


def _contestant(name: str, *, tensor_cores: bool) -> Implementation:
    def bind(work: Workload, device: torch.device) -> Any:
        pairs = {"kernel_size": (3, 3), **dict.fromkeys(("stride", "padding", "dilation"), (1, 1))}
        settings = {"groups": work.groups, **pairs, "offset_scale": work.offset_scale, "mask_is_logits": False}
        return lambda *tensors: InTiles.apply(*tensors, settings, tensor_cores)  # type: ignore[no-untyped-call]

    return Implementation(name, bind)
