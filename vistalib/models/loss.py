"""The loss of one head: cross-entropy at the size of the label, and the accuracy beside it.

On a CPU the logits at label size, which are large, come and go in tiles (`loss_tiles`); what stands here is the same in plain
PyTorch. Where `LossSettings` ask for more than the sum, the gradient of a pixel depends on all of them.
Letters: N images, K classes, h x w logits, H x W labels.
"""

import math

import torch
from torch import Tensor, nn

from vistalib.models import convolution
from vistalib.models.convolution import resize
from vistalib.models.loss_settings import LossSettings
from vistalib.models.loss_tiles import IGNORE_INDEX, PixelEntropy, SummedEntropy

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
        summed = _whole if whole else SummedEntropy.apply
        total, right = summed(logits, label)
        losses = {f"{name}.loss_ce": weight * total / label.numel()}
    else:
        parts = _pixels_whole if whole else PixelEntropy.apply
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
