"""Choices of the loss for one's own data; as they come, the loss is the released one.

Sources: class weights by frequency, Paszke et al., "ENet", 2016, section 5.2 (its c = 1.02); hard pixels, Wu, Shen and van den
Hengel, "High-performance semantic segmentation using very deep fully convolutional networks", 2016, section 3 ("online
bootstrapping", known as OHEM after Shrivastava et al., CVPR 2016); Dice, Milletari et al., "V-Net", 2016, section 3, and for
several classes Sudre et al., "Generalised Dice overlap as a deep learning loss function", 2017, section 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SHARE = 1 / 16


@dataclass(frozen=True)
class LossSettings:
    """What is added to the released cross-entropy over all pixels; the same for every head.

    Hard pixels and Dice are of the images that are seen at once: each rank, and each piece of `accumulate`, has its own.
    Raises `ValueError` naming the field, the value and a value that would do.
    """

    class_weights: tuple[float, ...] | Literal["balanced"] | None = None
    """What a pixel of each class counts in the cross-entropy, in the order of the classes; balanced: by how rare it is."""
    ohem_threshold: float | None = None
    """Cross-entropy of the pixels alone whose true class has less than this probability (usual: 0.7), as their mean."""
    ohem_share: float = SHARE
    """The least share of all pixels of a batch that is kept with ohem-threshold, the worst ones."""
    dice_weight: float = 0.0
    """Add so many times the Dice loss, which counts every class that a batch shows the same, however small."""

    def __post_init__(self) -> None:
        weights = self.class_weights
        fine = weights in (None, "balanced") or (isinstance(weights, tuple) and all(map(_counts, weights)) and sum(weights) > 0)
        self._require("class_weights", fine, "None, 'balanced' or finite numbers of at least 0, not all 0", '"balanced"')
        threshold, share = self.ohem_threshold, self.ohem_share
        self._require("ohem_threshold", threshold is None or 0 < threshold <= 1, "None or above 0 and at most 1", "0.7")
        self._require("ohem_share", 0 < share <= 1, "above 0 and at most 1", str(SHARE))
        self._require("dice_weight", _counts(self.dice_weight), "a finite number of at least 0", "1.0")

    @property
    def released(self) -> bool:
        """Whether this is the released loss."""
        return self.class_weights is None and self.ohem_threshold is None and self.dice_weight == 0

    def _require(self, name: str, holds: bool, rule: str, example: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {rule}, got {getattr(self, name)!r}; try {name}={example}")


def balanced_weights(pixels: Sequence[int]) -> tuple[float, ...]:
    """What a pixel of each class should count where class c has `pixels[c]` of all labelled ones: 1 / ln(1.02 + share).

    The logarithm bounds them: the rarest class counts at most 35 times the one that has all. They are scaled so that a
    labelled pixel counts 1 on average, which leaves the learning rate its meaning. Raises `ValueError` where there are none.
    """
    total = sum(pixels)
    if total < 1:
        raise ValueError("balanced class weights need labelled pixels, got none in any image; check the map")
    weights = [1 / math.log(1.02 + count / total) for count in pixels]
    mean = sum(weight * count for weight, count in zip(weights, pixels, strict=True)) / total
    return tuple(weight / mean for weight in weights)


def _counts(value: float) -> bool:
    return math.isfinite(value) and value >= 0
