"""The released training augmentations, byte for byte: resize, crop, flip, colour, normalise, pad.

Source: the pipeline of the released InternImage segmentation configurations (mmsegmentation 0.30, mmcv 1.7.2), rebuilt from
its measured behaviour. The order and number of random draws are those of the released code, so a `RandomState` gives what
`numpy.random.seed` gave there; a seed stands for one augmentation. Images are RGB here and BGR there; every step treats the
channels alike or by name, so the bytes agree. Every colour step maps an 8-bit value to a value: a table of 256 entries.
Letters: H, W height and width; h, w height and width of the crop.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vistalib.data.decode import Image, Label
from vistalib.data.labels import IGNORE_INDEX

MEAN = (123.675, 116.28, 103.53)  # RGB, over ImageNet
STD = (58.395, 57.12, 57.375)
BRIGHTNESS = 32.0
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18  # of OpenCV's 180 steps
CROP_RETRIES = 10


@dataclass(frozen=True)
class AugmentationSettings:
    """What the augmentation of a recipe may choose.

    `scale` is (width, height) in pixels, the box that the whole image fits after resizing with its aspect kept;
    `ratio_range` multiplies it by a random number (None: no draw, always `scale`). `crop` is (height, width) in pixels.
    A crop where one class covers `cat_max_ratio` or more of the labelled pixels is drawn again, ten times at most.
    `flip` is the probability of a mirrored sample. Raises `ValueError` for values out of range.
    """

    scale: tuple[int, int] = (2048, 1024)
    ratio_range: tuple[float, float] | None = (0.5, 2.0)
    crop: tuple[int, int] = (512, 1024)
    cat_max_ratio: float = 0.75
    flip: float = 0.5
    photometric: bool = True

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


class Augmentation:
    """Turns one decoded sample into one training sample; see the module's words for what it reproduces."""

    def __init__(self, settings: AugmentationSettings) -> None:
        self.settings = settings

    def __call__(self, image: Image, label: Label, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
        """`image` (H, W, 3) RGB and `label` (H, W) to (3, h, w) float32, normalised, and (h, w) int64; pads by 0 and 255."""
        settings = self.settings
        scale = settings.scale if settings.ratio_range is None else draw_scale(settings.scale, settings.ratio_range, rng)
        image, label = resize(image, scale), resize_label(label, scale)
        rows, columns = draw_crop(label, settings.crop, settings.cat_max_ratio, rng)
        image, label = image[rows, columns], label[rows, columns]  # at most (h, w)
        if rng.rand() < settings.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        if settings.photometric:
            image = distort_colors(image, rng)
        height, width = label.shape
        pixels = torch.zeros(3, *settings.crop)  # (3, h, w)
        pixels[:, :height, :width] = normalize(image)
        target = torch.full(settings.crop, IGNORE_INDEX, dtype=torch.int64)  # (h, w)
        target[:height, :width] = torch.from_numpy(np.ascontiguousarray(label))
        return pixels, target


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


def draw_crop(label: Label, crop: tuple[int, int], cat_max_ratio: float, rng: np.random.RandomState) -> tuple[slice, slice]:
    """Rows and columns of a random crop in which no class reaches `cat_max_ratio`; the eleventh draw is taken unchecked."""
    box = _draw_box(label.shape, crop, rng)
    if cat_max_ratio < 1:
        for _ in range(CROP_RETRIES):
            counts = np.bincount(label[box].ravel(), minlength=256)
            counts[IGNORE_INDEX] = 0
            if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio:
                break
            box = _draw_box(label.shape, crop, rng)
    return box


def _draw_box(shape: tuple[int, ...], crop: tuple[int, int], rng: np.random.RandomState) -> tuple[slice, slice]:
    top = rng.randint(0, max(shape[0] - crop[0], 0) + 1)
    left = rng.randint(0, max(shape[1] - crop[1], 0) + 1)
    return slice(top, top + crop[0]), slice(left, left + crop[1])


def distort_colors(image: Image, rng: np.random.RandomState) -> Image:
    """Random brightness, contrast (first or last, by a draw), saturation and hue of `image` (H, W, 3), each half the time."""
    if rng.randint(2):
        image = _look_up(image, _line(beta=rng.uniform(-BRIGHTNESS, BRIGHTNESS)))
    contrast_first = rng.randint(2) == 1
    if contrast_first and rng.randint(2):
        image = _look_up(image, _line(alpha=rng.uniform(*CONTRAST)))
    if rng.randint(2):
        image = _look_up_in_hsv(image, 1, _line(alpha=rng.uniform(*SATURATION)))
    if rng.randint(2):
        image = _look_up_in_hsv(image, 0, ((np.arange(256) + rng.randint(-HUE, HUE)) % 180).astype(np.uint8))
    if not contrast_first and rng.randint(2):
        image = _look_up(image, _line(alpha=rng.uniform(*CONTRAST)))
    return image


def _line(alpha: float = 1.0, beta: float = 0.0) -> npt.NDArray[np.uint8]:
    """The table of alpha * value + beta in float32, clipped and cut (not rounded) to 8 bits."""
    line: npt.NDArray[np.float32] = np.arange(256, dtype=np.float32) * alpha + beta
    return np.clip(line, 0, 255).astype(np.uint8)


def _look_up(image: Image, table: npt.NDArray[np.uint8]) -> Image:
    return np.asarray(cv2.LUT(image, table), np.uint8)


def _look_up_in_hsv(image: Image, channel: int, table: npt.NDArray[np.uint8]) -> Image:
    """`image` with one channel of hue, saturation, value replaced through `table`; rounds on both ways, as released."""
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.uint8)
    hsv[..., channel] = table[hsv[..., channel]]
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _normalizing_table() -> npt.NDArray[np.float32]:
    """(1, 256, 3) float32: value minus mean in float32, times 1 / std in float64, as the released code computes them."""
    values = np.arange(256, dtype=np.float32)[:, None]
    centred = values - np.asarray(MEAN, np.float32)  # (256, 3)
    inverse = 1 / np.asarray(STD, np.float32).astype(np.float64)
    return (centred.astype(np.float64) * inverse).astype(np.float32)[None]


NORMALIZING_TABLE = _normalizing_table()


def normalize(image: Image) -> Tensor:
    """`image` (H, W, 3) RGB uint8 to (3, H, W) float32: minus the mean, over the standard deviation, by channel."""
    pixels = np.asarray(cv2.LUT(np.ascontiguousarray(image), NORMALIZING_TABLE), np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()  # (3, H, W)
