"""The released training augmentations, byte for byte: resize, crop, flip, colour, normalise, pad.

Source: the pipeline of the released InternImage segmentation configurations (mmsegmentation 0.30, mmcv 1.7.2), rebuilt from
its measured behaviour. The order and number of random draws are those of the released code, so a `RandomState` gives what
`numpy.random.seed` gave there; a seed stands for one augmentation. Images are RGB here and BGR there; every step treats the
channels alike or by name, so the bytes agree. The crop is drawn before anything is resized, and no more than it is computed
(see `vistalib.data.windows`).
Letters: H, W height and width; h, w height and width of the crop.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistalib.data.colors import Distortion, distort, draw_distortion, normalize
from vistalib.data.colors import distort_colors as distort_colors
from vistalib.data.decode import Image, Label
from vistalib.data.labels import IGNORE_INDEX
from vistalib.data.windows import Box, Pixels, Resized

CROP_RETRIES = 10


@dataclass(frozen=True)
class AugmentationSettings:
    """What the augmentation of a recipe may choose. Raises `ValueError` for values out of range."""

    scale: tuple[int, int] = (2048, 1024)
    """(width, height) in pixels of the box that the whole image fits after resizing with its aspect kept."""
    ratio_range: tuple[float, float] | None = (0.5, 2.0)
    """Multiply that box by a random number from the first to the second (None: no draw, always that box)."""
    crop: tuple[int, int] = (512, 1024)
    """(height, width) in pixels of what is cut out."""
    cat_max_ratio: float = 0.75
    """Draw a crop again, ten times at most, where one class covers so large a share of the labelled pixels."""
    flip: float = 0.5
    """Probability of a mirrored sample."""
    photometric: bool = True
    """Change brightness, contrast, saturation and hue at random."""

    def __post_init__(self) -> None:
        if min(*self.scale, *self.crop) < 1:
            raise ValueError(f"scale and crop must be at least 1 pixel, got scale={self.scale} and crop={self.crop}")
        if self.ratio_range is not None and not 0 < self.ratio_range[0] <= self.ratio_range[1]:
            raise ValueError(f"ratio_range must be (low, high) with 0 < low <= high, got {self.ratio_range}; try (0.5, 2.0)")
        if not (0 < self.cat_max_ratio <= 1 and 0 <= self.flip <= 1):
            raise ValueError(
                f"cat_max_ratio must lie in (0, 1] and flip in [0, 1], got cat_max_ratio={self.cat_max_ratio} "
                f"and flip={self.flip}; the released values are 0.75 and 0.5"
            )


@dataclass(frozen=True)
class Crop:
    """A sample of which the colours are still to be changed: image (h, w, 3), label (h, w), at most of the settings' crop."""

    image: Image
    label: Label
    distortion: Distortion


class Augmentation:
    """Turns one decoded sample into one training sample; see the module's words for what it reproduces."""

    def __init__(self, settings: AugmentationSettings) -> None:
        self.settings = settings

    def __call__(self, image: Pixels, label: Pixels, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
        """`image` (H, W, 3) RGB and `label` (H, W) to (3, h, w) float32, normalised, and (h, w) int64; pads by 0 and 255."""
        pixels, target = self.finish(self.crop(image, label, rng))
        return pixels, target.long()

    def finish(self, crop: Crop) -> tuple[Tensor, Tensor]:
        """A crop with its colours changed, normalised and padded: (3, h, w) float32 and (h, w) uint8."""
        pixels = normalize(distort(crop.image, crop.distortion))  # (3, h, w), or less
        target = torch.from_numpy(crop.label)  # (h, w), or less
        return pad(pixels, self.settings.crop, 0), pad(target, self.settings.crop, IGNORE_INDEX)

    def crop(self, image: Pixels, label: Pixels, rng: np.random.RandomState) -> Crop:
        """All but the colours of `image` (H, W, 3) RGB and `label` (H, W), of which only the crop is ever computed."""
        settings = self.settings
        scale = settings.scale if settings.ratio_range is None else draw_scale(settings.scale, settings.ratio_range, rng)
        size = fitted_size(image.shape[0], image.shape[1], scale)[::-1]  # height, width
        targets = Resized(label, size, cv2.INTER_NEAREST)
        box = draw_crop(targets, settings.crop, settings.cat_max_ratio, rng)
        pixels, target = Resized(image, size, cv2.INTER_LINEAR)[box], targets[box]
        if rng.rand() < settings.flip:
            pixels, target = mirror(pixels), mirror(target)
        distortion = draw_distortion(rng) if settings.photometric else Distortion()
        return Crop(np.ascontiguousarray(pixels), np.ascontiguousarray(target), distortion)


def draw_scale(scale: tuple[int, int], ratio_range: tuple[float, float], rng: np.random.RandomState) -> tuple[int, int]:
    """`scale` times a random number of `ratio_range`, in whole pixels (one draw)."""
    low, high = ratio_range
    ratio = rng.random_sample() * (high - low) + low
    return int(scale[0] * ratio), int(scale[1] * ratio)


def fitted_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of an image resized into `scale`, aspect kept: long edge in its longer number, short in shorter."""
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))


def resize(image: Image, scale: tuple[int, int]) -> Image:
    """`image` (H, W, 3) resized bilinearly into `scale` (see `fitted_size`)."""
    return np.asarray(
        cv2.resize(image, fitted_size(image.shape[0], image.shape[1], scale), interpolation=cv2.INTER_LINEAR), np.uint8
    )


def resize_label(label: Label, scale: tuple[int, int]) -> Label:
    """`label` (H, W) resized to the size `resize` gives its image, by nearest neighbours."""
    return np.asarray(
        cv2.resize(label, fitted_size(label.shape[0], label.shape[1], scale), interpolation=cv2.INTER_NEAREST), np.uint8
    )


def pad(pixels: Tensor, size: tuple[int, int], value: int) -> Tensor:
    """`pixels` (..., H, W) with rows and columns of `value` below and to the right, (..., h, w)."""
    missing = size[0] - pixels.shape[-2], size[1] - pixels.shape[-1]
    return pixels if missing == (0, 0) else F.pad(pixels, (0, missing[1], 0, missing[0]), value=value)


def mirror(pixels: Image) -> Image:
    """`pixels` with left and right exchanged."""
    return np.asarray(cv2.flip(pixels, 1), np.uint8)


def draw_crop(label: Pixels, crop: tuple[int, int], cat_max_ratio: float, rng: np.random.RandomState) -> Box:
    """Rows and columns of a random crop in which no class reaches `cat_max_ratio`; the eleventh draw is taken unchecked."""
    box = _draw_box(label.shape, crop, rng)
    if cat_max_ratio < 1:
        for _ in range(CROP_RETRIES):
            if _is_mixed(label[box], cat_max_ratio):
                break
            box = _draw_box(label.shape, crop, rng)
    return box


def _is_mixed(label: Label, limit: float) -> bool:
    """Whether every class of `label` (H, W) has less than `limit` (below 1) of its labelled pixels, and there are any.

    A histogram takes long. Mostly two numbers tell: how many pixels are labelled, and how many are of the class that a few
    pixels show most; every other class has at most the rest.
    """
    few = np.bincount(label[::16, ::16].ravel(), minlength=256)
    few[IGNORE_INDEX] = 0
    labelled = int(np.count_nonzero(label != IGNORE_INDEX))
    most = int(np.count_nonzero(label == int(few.argmax())))
    if labelled == 0 or most / labelled >= limit:
        return False
    if (labelled - most) / labelled < limit:
        return True
    counts = cv2.calcHist([label], [0], None, [256], [0, 256])  # (256, 1)
    counts[IGNORE_INDEX] = 0
    return int(counts.max()) / labelled < limit


def _draw_box(shape: tuple[int, ...], crop: tuple[int, int], rng: np.random.RandomState) -> Box:
    top = rng.randint(0, max(shape[0] - crop[0], 0) + 1)
    left = rng.randint(0, max(shape[1] - crop[1], 0) + 1)
    return slice(top, top + crop[0]), slice(left, left + crop[1])
