"""The loss of one head: cross-entropy at the size of the label, and the accuracy beside it.

Logits at label size are large, 300 MB for 150 classes on 512 x 1024 pixels, and autograd keeps three such tensors. Their
only use is one number. So on a CPU they come and go in bands of rows: each is resized, gives its part of the sum and of the
gradient at the logits' own size, and is forgotten. Letters: N images, K classes, h x w logits, H x W labels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vistalib.models import convolution
from vistalib.models.convolution import resize

IGNORE_INDEX = 255
BAND = 1 << 21  # logits: 8 MB


def head_loss(name: str, logits: Tensor, label: Tensor, *, weight: float) -> dict[str, Tensor]:
    """Loss and accuracy (percent) of one head; `logits` is (N, K, h, w), `label` is (N, H, W), 255 ignored.

    The loss is `weight` times the mean over **all** pixels: ignored ones add nothing and count in the divisor, as released.
    """
    whole = convolution.written_out(logits)
    total, right = _whole(logits, label) if whole else _Banded.apply(logits, label)  # type: ignore[no-untyped-call]  # of torch
    tiny = torch.finfo(torch.float32).eps
    accuracy = (right + tiny) * (100 / ((label != IGNORE_INDEX).sum() + tiny))  # 100 where no pixel is labelled
    return {f"{name}.loss_ce": weight * total / label.numel(), f"{name}.acc_seg": accuracy}


def _whole(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies, and how many pixels' most likely class is right."""
    return _sums(resize(logits, (label.shape[1], label.shape[2])), label)


def _sums(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.permute(0, 2, 3, 1).flatten(0, 2)  # (N*H*W, K), a view: softmax is fastest along the last dimension
    label = label.flatten()  # (N*H*W)
    total = nn.functional.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="sum")
    return total, (logits.detach().argmax(dim=1) == label).sum()


class _Banded(torch.autograd.Function):
    """`_whole` in bands of rows, with the gradient made on the way."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        kind = torch.promote_types(logits.dtype, torch.float32)
        (images, classes, low, _), (_, height, width) = logits.shape, label.shape
        step = max(1, BAND // (images * classes * width))
        rows = convolution.interpolation(low, height, like=logits.new_empty(0, dtype=kind))  # (H, h)
        gradient = torch.zeros_like(logits, dtype=kind)
        sums = [torch.zeros((), dtype=kind), torch.zeros((), dtype=torch.int64)]
        for first in range(0, height, step):
            band = rows[first : first + step]
            touched = band.any(0).nonzero()
            near = slice(int(touched[0]), int(touched[-1]) + 1)  # rows of the logits that the band is made of
            leaf = logits[:, :, near].detach().to(kind).requires_grad_(ctx.needs_input_grad[0])
            with torch.set_grad_enabled(leaf.requires_grad), torch.autocast("cpu", enabled=False):
                parts = _sums(_band(leaf, band[:, near], width), label[:, first : first + step])
            if leaf.requires_grad:
                gradient[:, :, near] += torch.autograd.grad(parts[0], leaf)[0]
            sums = [total + part.detach() for total, part in zip(sums, parts, strict=True)]
        ctx.save_for_backward(gradient.to(logits.dtype))
        ctx.mark_non_differentiable(sums[1])
        return sums[0], sums[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_total, None


def _band(logits: Tensor, rows: Tensor, width: int) -> Tensor:
    """Rows made of (N, K, h, w) by `rows` (H, h), resized to `width`: (N, K, H, W) in channels-last memory."""
    images, classes, low, narrow = logits.shape
    flat = logits.permute(0, 2, 3, 1).reshape(images, low, narrow * classes)
    tall = (rows @ flat).view(images, len(rows), narrow, classes).permute(0, 3, 1, 2)  # (N, K, H, w)
    return resize(tall, (len(rows), width))
