"""The released training pipeline in its own order, as one writes it: everything on the whole image first, the crop afterwards.

Source: the facts of the released configurations (mmsegmentation 0.30, mmcv 1.7.2), in our own words. Images are BGR until they
are normalised, colours are float32 between 8-bit steps, a label is mapped by one mask for each of its values. It makes the same
draws as `vistalib.data.Augmentation` and gives the same bytes, which the bench makes sure of.
Letters: H, W height and width; h, w height and width of the crop.
"""

import io
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vistalib.data import AugmentationSettings, Sampler, StreetDataset
from vistalib.data.augment import draw_scale, fitted_size
from vistalib.data.colors import BRIGHTNESS, CONTRAST, HUE, MEAN, SATURATION, STD
from vistalib.data.decode import UNKNOWN
from vistalib.data.labels import IGNORE_INDEX
from vistalib.data.loader import start_worker

Sample = tuple[Tensor, Tensor]
Bytes = npt.NDArray[np.uint8]


class ReleasedOrder(Dataset[Sample]):
    """Sample n of a run; `masks` maps whole labels by masks, as released, without them a crop is looked up in a table."""

    def __init__(self, dataset: StreetDataset, settings: AugmentationSettings, *, seed: int, masks: bool) -> None:
        self.dataset, self.settings, self.masks = dataset, settings, masks
        self.sampler = Sampler(len(dataset), seed)

    def __getitem__(self, n: int) -> Sample:
        """Image (3, h, w) float32 and label (h, w) int64."""
        i, seed = self.sampler[n]
        settings, pair, rng = self.settings, self.dataset.pairs[i], np.random.RandomState(seed)
        image, label = decode_image(pair.image), decode_label(pair.label)
        if self.masks:
            label = map_by_masks(label, pair.reading.table)
        scale = settings.scale if settings.ratio_range is None else draw_scale(settings.scale, settings.ratio_range, rng)
        image, label = resize(image, label, scale)
        if not self.masks:
            label = np.asarray(cv2.LUT(label, pair.reading.table), np.uint8)
        image, label = crop(image, label, settings, rng)
        if rng.rand() < settings.flip:
            image, label = mirror(image, label)
        return collect(normalize(distort(image, rng)), label, settings.crop)

    def batches(self, batch_size: int, num_workers: int) -> Iterator[list[Tensor]]:
        """Batches of images and labels, without end."""
        steps = (list(self.sampler.step(step, batch_size=batch_size)) for step in count())
        loader = DataLoader(self, batch_sampler=steps, num_workers=num_workers, worker_init_fn=start_worker)
        return iter(loader)


def decode_image(path: Path) -> Bytes:
    """(H, W, 3) BGR."""
    return np.asarray(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR), np.uint8)


def decode_label(path: Path) -> Bytes:
    """(H, W) as stored, by Pillow, as released."""
    with PillowImage.open(io.BytesIO(path.read_bytes())) as image:
        return np.array(image, np.uint8)


def map_by_masks(label: Bytes, table: Bytes) -> Bytes:
    """One mask of the whole label for every value that has a name."""
    mapped = np.zeros_like(label)
    for value in np.flatnonzero(table != UNKNOWN):
        mapped[label == value] = table[value]
    return mapped


def resize(image: Bytes, label: Bytes, scale: tuple[int, int]) -> tuple[Bytes, Bytes]:
    """Both, wholly."""
    size = fitted_size(image.shape[0], image.shape[1], scale)
    return (
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8),
        np.asarray(cv2.resize(label, size, interpolation=cv2.INTER_NEAREST), np.uint8),
    )


def crop(image: Bytes, label: Bytes, settings: AugmentationSettings, rng: np.random.RandomState) -> tuple[Bytes, Bytes]:
    """Up to eleven draws, each looked at in the label."""
    box = _draw_box(label.shape, settings.crop, rng)
    for _ in range(10):
        values, counts = np.unique(label[box], return_counts=True)
        counts = counts[values != IGNORE_INDEX]
        if len(counts) > 1 and counts.max() / counts.sum() < settings.cat_max_ratio:
            break
        box = _draw_box(label.shape, settings.crop, rng)
    return image[box], label[box]


def _draw_box(shape: tuple[int, ...], size: tuple[int, int], rng: np.random.RandomState) -> tuple[slice, slice]:
    top, left = (rng.randint(0, max(whole - part, 0) + 1) for whole, part in zip(shape, size))
    return slice(top, top + size[0]), slice(left, left + size[1])


def mirror(image: Bytes, label: Bytes) -> tuple[Bytes, Bytes]:
    """Left and right exchanged."""
    return np.flip(image, 1).copy(), np.flip(label, 1).copy()


def distort(image: Bytes, rng: np.random.RandomState) -> Bytes:
    """Brightness, contrast, saturation, hue, each half the time."""
    if rng.randint(2):
        image = _line(image, beta=rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = rng.randint(2) == 1
    if contrast_first and rng.randint(2):
        image = _line(image, alpha=rng.uniform(*CONTRAST))
    if rng.randint(2):
        hsv: Any = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = _line(hsv[..., 1], alpha=rng.uniform(*SATURATION))
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)
    if rng.randint(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.randint(-HUE, HUE)) % 180
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)
    if not contrast_first and rng.randint(2):
        image = _line(image, alpha=rng.uniform(*CONTRAST))
    return image


def _line(values: Bytes, alpha: float = 1.0, beta: float = 0.0) -> Bytes:
    line: npt.NDArray[np.float32] = values.astype(np.float32) * alpha + beta
    return np.clip(line, 0, 255).astype(np.uint8)


def normalize(image: Bytes) -> npt.NDArray[np.float32]:
    """(h, w, 3) RGB float32: minus the mean, over the standard deviation."""
    pixels = image.astype(np.float32)
    cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, pixels)
    cv2.subtract(pixels, np.float64(np.asarray(MEAN, np.float32)).reshape(1, -1), pixels)
    cv2.multiply(pixels, 1 / np.float64(np.asarray(STD, np.float32)).reshape(1, -1), pixels)
    return pixels


def collect(image: npt.NDArray[np.float32], label: Bytes, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Padded to the crop's size, channels first, as tensors."""
    down, across = size[0] - label.shape[0], size[1] - label.shape[1]
    image = np.asarray(cv2.copyMakeBorder(image, 0, down, 0, across, cv2.BORDER_CONSTANT, value=0), np.float32)
    label = np.asarray(cv2.copyMakeBorder(label, 0, down, 0, across, cv2.BORDER_CONSTANT, value=IGNORE_INDEX), np.uint8)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(label.astype(np.int64))
