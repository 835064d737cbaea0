"""The released photometric distortion and normalisation, byte for byte, of one image on a CPU.

Every step maps an 8-bit value to a value: a table of 256 entries, in RGB or in OpenCV's 8-bit hue, saturation, value. What is
random are the tables; they do not depend on the image. Layout: an image is uint8 (H, W, 3) RGB.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vistalib.data.decode import Image

MEAN = (123.675, 116.28, 103.53)  # RGB, over ImageNet
STD = (58.395, 57.12, 57.375)
BRIGHTNESS = 32.0
CONTRAST = SATURATION = (0.5, 1.5)
HUES = 180  # steps of OpenCV
HUE = 18  # of them

Table = npt.NDArray[np.uint8]  # (256,)
IDENTITY: Table = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True)
class Distortion:
    """What happens to the colours of one image, in order; None is a step that was not drawn."""

    before: Table | None = None
    """Brightness, then contrast, of each of red, green, blue."""
    saturation: Table | None = None
    hue: Table | None = None
    after: Table | None = None
    """Contrast, if it was drawn to come last."""


def draw_distortion(rng: np.random.RandomState) -> Distortion:
    """Random brightness, contrast (first or last, by a draw), saturation and hue, each half the time."""
    before = saturation = hue = after = None
    if rng.randint(2):
        before = _line(beta=rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = rng.randint(2) == 1
    if contrast_first and rng.randint(2):
        contrast = _line(alpha=rng.uniform(*CONTRAST))
        before = contrast if before is None else contrast[before]
    if rng.randint(2):
        saturation = _line(alpha=rng.uniform(*SATURATION))
    if rng.randint(2):
        hue = ((np.arange(256) + rng.randint(-HUE, HUE)) % HUES).astype(np.uint8)
    if not contrast_first and rng.randint(2):
        after = _line(alpha=rng.uniform(*CONTRAST))
    return Distortion(before, saturation, hue, after)


def distort(image: Image, distortion: Distortion) -> Image:
    """`image` (H, W, 3) with its colours changed."""
    if distortion.before is not None:
        image = _look_up(image, distortion.before)
    if distortion.saturation is not None:
        image = _look_up_in_hsv(image, 1, distortion.saturation)
    if distortion.hue is not None:
        image = _look_up_in_hsv(image, 0, distortion.hue)
    if distortion.after is not None:
        image = _look_up(image, distortion.after)
    return image


def distort_colors(image: Image, rng: np.random.RandomState) -> Image:
    """`image` (H, W, 3) under a random distortion."""
    return distort(image, draw_distortion(rng))


def _line(alpha: float = 1.0, beta: float = 0.0) -> Table:
    """The table of alpha * value + beta in float32, clipped and cut (not rounded) to 8 bits."""
    line: npt.NDArray[np.float32] = np.arange(256, dtype=np.float32) * alpha + beta
    return np.clip(line, 0, 255).astype(np.uint8)


def _look_up(image: Image, table: Table) -> Image:
    return np.asarray(cv2.LUT(image, table), np.uint8)


def _look_up_in_hsv(image: Image, channel: int, table: Table) -> Image:
    """`image` with one channel of hue, saturation, value replaced through `table`; rounds on both ways, as released."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    tables = np.stack([table if c == channel else IDENTITY for c in range(3)], 1)[None]  # (1, 256, 3)
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, tables), cv2.COLOR_HSV2RGB), np.uint8)


def _normalizing_tables() -> npt.NDArray[np.float32]:
    """(3, 256) float32: value minus mean in float32, times 1 / std in float64, as the released code computes them."""
    centred = np.arange(256, dtype=np.float32) - np.asarray(MEAN, np.float32)[:, None]  # (3, 256)
    inverse = 1 / np.asarray(STD, np.float32).astype(np.float64)[:, None]
    return (centred.astype(np.float64) * inverse).astype(np.float32)


NORMALIZING_TABLES = _normalizing_tables()


def normalize(image: Image) -> Tensor:
    """`image` (H, W, 3) RGB uint8 to (3, H, W) float32: minus the mean, over the standard deviation, by channel."""
    pixels = np.empty((3, *image.shape[:2]), np.float32)
    for channel, table, plane in zip(cv2.split(image), NORMALIZING_TABLES, pixels):
        cv2.LUT(channel, table, dst=plane)
    return torch.from_numpy(pixels)
