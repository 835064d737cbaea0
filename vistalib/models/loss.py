"""The loss of one head: cross-entropy at the size of the label, and the accuracy beside it.

Logits at label size are large, 300 MB for 150 classes on 512 x 1024 pixels, and autograd keeps three such tensors. Their
only use is a few numbers. So on a CPU they come and go in bands of rows: each is resized, gives its part of the sum and of the
gradient at the logits' own size, and is forgotten. Where `LossSettings` ask for more than the sum, the gradient of a pixel
depends on all of them: then the bands come twice, forward for the cross-entropy of each pixel and backward for the gradient.
Letters: N images, K classes, h x w logits, H x W labels.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vistalib.models import convolution
from vistalib.models.convolution import resize
from vistalib.models.loss_settings import LossSettings

IGNORE_INDEX = 255
BAND = 1 << 21  # logits: 8 MB
RELEASED = LossSettings()


def head_loss(
    name: str,
    logits: Tensor,
    label: Tensor,
    *,
    weight: float,
    settings: LossSettings = RELEASED,
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Loss and accuracy (percent) of one head; `logits` is (N, K, h, w), `label` is (N, H, W), 255 ignored.

    The loss is `weight` times the mean over **all** pixels: ignored ones add nothing and count in the divisor, as released.
    `class_weights` (at least as many as there are classes) are those of `settings`, on the device of the logits. With
    `settings.ohem_threshold` the mean is over the pixels that are kept. Dice has an entry of its own.
    """
    whole = convolution.written_out(logits)
    if settings.released:
        total, right = _whole(logits, label) if whole else _Banded.apply(logits, label)  # type: ignore[no-untyped-call]  # of torch
        losses = {f"{name}.loss_ce": weight * total / label.numel()}
    else:
        parts = _pixels_whole if whole else _BandedTwice.apply
        entropy, mass, right = parts(logits, label, settings.dice_weight > 0)
        total, divisor = _chosen(entropy, label, settings, class_weights)
        losses = {f"{name}.loss_ce": weight * total / divisor}
        if settings.dice_weight:
            losses[f"{name}.loss_dice"] = weight * settings.dice_weight * _dice(entropy, mass, label)
    tiny = torch.finfo(torch.float32).eps
    accuracy = (right + tiny) * (100 / ((label != IGNORE_INDEX).sum() + tiny))  # 100 where no pixel is labelled
    return {**losses, f"{name}.acc_seg": accuracy}


def _whole(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies, and how many pixels' most likely class is right."""
    return _sums(resize(logits, (label.shape[1], label.shape[2])), label)


def _sums(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.permute(0, 2, 3, 1).flatten(0, 2)  # (N*H*W, K), a view: softmax is fastest along the last dimension
    label = label.flatten()  # (N*H*W)
    total = nn.functional.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="sum")
    return total, (logits.detach().argmax(dim=1) == label).sum()


def _chosen(
    entropy: Tensor, label: Tensor, settings: LossSettings, class_weights: Tensor | None
) -> tuple[Tensor, Tensor | int]:
    """The sum of the cross-entropies (N, H, W) that count, each as much as it does, and what to divide it by."""
    labelled = label != IGNORE_INDEX
    counts = labelled.to(entropy.dtype)
    divisor: Tensor | int = label.numel()
    if settings.ohem_threshold is not None:
        # By number among all pixels, not among labelled ones: so no device is asked how many those are. Ignored ones have
        # none, and come last.
        hardness, least = entropy.detach(), math.ceil(settings.ohem_share * label.numel())
        worst = hardness.flatten().kthvalue(label.numel() - least + 1).values
        counts = counts * ((hardness > -math.log(settings.ohem_threshold)) | (hardness >= worst))
        divisor = counts.sum().clamp(min=1)
    if class_weights is not None:
        counts = counts * class_weights.to(counts)[torch.where(labelled, label, 0)]
    return (entropy * counts).sum(), divisor


def _dice(entropy: Tensor, mass: Tensor, label: Tensor) -> Tensor:
    """1 - the mean over the classes that the labels show of 2 (probability on its pixels) / (probability + its pixels).

    `entropy` (N, H, W) is that of each pixel, `mass` (K,) the probability of each class summed over all labelled pixels.
    """
    classes, rows = len(mass), label.flatten(0, 1)  # (N*H, W)
    labelled = rows != IGNORE_INDEX
    # Sums by row first: millions of float32 numbers, added one after the other, would stop counting.
    place = torch.where(labelled, rows, 0) + classes * torch.arange(len(rows), device=label.device)[:, None]  # (N*H, W)
    counted, true = labelled.to(mass), torch.exp(-entropy).flatten(0, 1) * labelled  # (N*H, W)
    pixels, found = (
        mass.new_zeros(len(rows) * classes).index_add(0, place.flatten(), each.flatten()).view(-1, classes).sum(0)  # (K,)
        for each in (counted, true)
    )
    shown = pixels > 0
    scores = 2 * found / torch.where(shown, mass + pixels, 1)  # 0 of a class that is not shown
    return (shown.sum() - scores.sum()) / shown.sum().clamp(min=1)


def _pixels_whole(logits: Tensor, label: Tensor, with_mass: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The cross-entropy of each pixel (N, H, W), the probability of each class over labelled ones (K,), how many are right."""
    return _pixels(resize(logits, (label.shape[1], label.shape[2])), label, with_mass)


def _pixels(logits: Tensor, label: Tensor, with_mass: bool) -> tuple[Tensor, Tensor, Tensor]:
    logits, flat = logits.permute(0, 2, 3, 1).flatten(0, 2), label.flatten()  # (N*H*W, K), (N*H*W)
    log = logits.log_softmax(dim=1)
    entropy = nn.functional.nll_loss(log, flat, ignore_index=IGNORE_INDEX, reduction="none").view_as(label)
    if with_mass:
        mass = log.exp().masked_fill((flat == IGNORE_INDEX)[:, None], 0).sum(0)
    else:
        mass = log.new_zeros(log.shape[1])
    return entropy, mass, (logits.detach().argmax(dim=1) == flat).sum()


class _Banded(torch.autograd.Function):
    """`_whole` in bands of rows, with the gradient made on the way."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(_wide(logits))
        sums = [gradient.new_zeros(()), torch.zeros((), dtype=torch.int64)]
        for rows, near, weights in _bands(logits, label):
            leaf = _wide(logits[:, :, near].detach()).requires_grad_(ctx.needs_input_grad[0])
            with _plainly(grad=leaf.requires_grad):
                parts = _sums(_band(leaf, weights, label.shape[2]), label[:, rows])
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


class _BandedTwice(torch.autograd.Function):
    """`_pixels_whole` in bands of rows, each made a second time for its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, with_mass: bool) -> tuple[Tensor, Tensor, Tensor]:
        found = []
        for rows, near, weights in _bands(logits, label):
            with _plainly(grad=False):
                found.append(_pixels(_band(_wide(logits[:, :, near]), weights, label.shape[2]), label[:, rows], with_mass))
        entropies, masses, rights = zip(*found, strict=True)
        right = torch.stack(rights).sum(0)
        ctx.save_for_backward(logits, label)
        ctx.with_mass = with_mass
        ctx.mark_non_differentiable(right)
        return torch.cat(entropies, dim=1), torch.stack(masses).sum(0), right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_entropy: Tensor, grad_mass: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logits, label = ctx.saved_tensors
        gradient = torch.zeros_like(_wide(logits))
        for rows, near, weights in _bands(logits, label):
            leaf = _wide(logits[:, :, near].detach()).requires_grad_()
            with _plainly(grad=True):
                entropy, mass, _ = _pixels(_band(leaf, weights, label.shape[2]), label[:, rows], ctx.with_mass)
                total = (entropy * grad_entropy[:, rows]).sum() + (mass * grad_mass).sum()
            gradient[:, :, near] += torch.autograd.grad(total, leaf)[0]
        return gradient.to(logits.dtype), None, None


def _bands(logits: Tensor, label: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Each band's rows of the label, the rows of the logits that it is made of, and what these count in it."""
    (images, classes, low, _), (_, height, width) = logits.shape, label.shape
    step = max(1, BAND // (images * classes * width))
    weights = convolution.interpolation(low, height, like=_wide(logits[:0]))  # (H, h)
    for first in range(0, height, step):
        band = weights[first : first + step]
        touched = band.any(0).nonzero()
        near = slice(int(touched[0]), int(touched[-1]) + 1)
        yield slice(first, first + step), near, band[:, near]


@contextmanager
def _plainly(*, grad: bool) -> Iterator[None]:
    """Compute in the numbers that are given, with gradients or without."""
    with torch.set_grad_enabled(grad), torch.autocast("cpu", enabled=False):
        yield


def _wide(logits: Tensor) -> Tensor:
    """As float32, or float64 where that is what comes."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _band(logits: Tensor, rows: Tensor, width: int) -> Tensor:
    """Rows made of (N, K, h, w) by `rows` (H, h), resized to `width`: (N, K, H, W) in channels-last memory."""
    images, classes, low, narrow = logits.shape
    flat = logits.permute(0, 2, 3, 1).reshape(images, low, narrow * classes)
    tall = (rows @ flat).view(images, len(rows), narrow, classes).permute(0, 3, 1, 2)  # (N, K, H, w)
    return resize(tall, (len(rows), width))
