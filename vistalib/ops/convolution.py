"""The 3 x 3 convolution of the heads: by Winograd's method where `vistalib-kernels` has it and it is faster, else by PyTorch.

Winograd's way is float32 as well, with a quarter of the multiplications; its rounding errors are six times those of the plain
sum, a millionth of the result. Layout and letters: (N, C, H, W) to (N, O, H, W), channels last in memory.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vistalib.ops.backends import winograd


def same_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """(N, C, H, W) with weight (O, C, k, k), k odd, to (N, O, H, W): zeros around the image, no bias."""
    plain = x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    module = None if plain else winograd()
    if module is None or not module.worthwhile(x, weight):
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    output: Tensor = _Winograd.apply(x, weight, module)  # type: ignore[no-untyped-call]  # of torch
    return output


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, module: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.module = module
        output: Tensor = module.forward(x, weight)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = ctx.module.backward(grad_output, x, weight, ctx.needs_input_grad[:2])
        return grad_x, grad_weight, None
