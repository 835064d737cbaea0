"""From an image to class probabilities and a label map: whole image, sliding window, several scales, mirrored.

Source: the test-time path of the released InternImage segmentation code (mmsegmentation 0.30), rebuilt from its measured
behaviour. For each scale, mirrored or not: image -> resized into the scale -> normalised -> logits -> upsampled to the size of
the network's input -> to the image's own size -> softmax; these probabilities are averaged. Both resizings of the logits are
bilinear with align_corners=False. A model maps (N, 3, h, w) to logits of any smaller size.
Letters: C = classes, H, W = the image as read, h, w = the image as the network sees it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vistalib.data.augment import normalize, resize

MULTI_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # the released multi-scale evaluation, with flip=True


@dataclass(frozen=True)
class Window:
    """A sliding window: `crop` and `stride` are (height, width) in pixels of the resized image; overlaps are averaged."""

    crop: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        if not all(1 <= stride <= crop for stride, crop in zip(self.stride, self.crop, strict=True)):
            raise ValueError(
                f"stride must lie between 1 and crop on each side, got stride={self.stride} and crop={self.crop}; "
                "two thirds of the crop is usual"
            )

    def places(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of every window over a (height, width) image; the last ones are moved back to end at its edge."""
        for top in _starts(height, self.crop[0], self.stride[0]):
            for left in _starts(width, self.crop[1], self.stride[1]):
                yield slice(top, top + self.crop[0]), slice(left, left + self.crop[1])


def predict_probabilities(
    model: nn.Module,
    image: NDArray[np.uint8],
    *,
    scale: tuple[int, int] = (2048, 1024),
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: Window | None = None,
) -> Tensor:
    """Class probabilities (C, H, W), float32, of an RGB uint8 image (H, W, 3), on the model's device.

    `scale` (width, height) is the box the image fits with its aspect kept; `scales` multiply it, and `flip` adds the mirrored
    image to each. `window` slides over the resized image instead of taking it whole. The model runs in evaluation mode and is
    left in the mode it was in. `ValueError` for an image of another kind and for scales that are not positive.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be RGB uint8 (H, W, 3), got {image.dtype} {image.shape}; convert it first")
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales must be one or more positive numbers, got {tuple(scales)}; use (1.0,) for one scale")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    total: Tensor | None = None
    with torch.no_grad(), _evaluating(model):
        for ratio in scales:
            resized = resize(image, (int(scale[0] * ratio), int(scale[1] * ratio)))  # (h, w, 3)
            pixels = normalize(resized).unsqueeze(0).to(device)  # (1, 3, h, w)
            for mirrored in (False, True) if flip else (False,):
                seen = pixels.flip(3) if mirrored else pixels
                probabilities = network_probabilities(model, seen, (image.shape[0], image.shape[1]), window)  # (1, C, H, W)
                if mirrored:
                    probabilities = probabilities.flip(3)
                total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(scales) * (2 if flip else 1)).squeeze(0)  # (C, H, W)


def predict_labels(
    model: nn.Module,
    image: NDArray[np.uint8],
    *,
    scale: tuple[int, int] = (2048, 1024),
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: Window | None = None,
) -> NDArray[np.uint8]:
    """The most probable class of each pixel, (H, W) uint8; arguments and errors as `predict_probabilities`."""
    probabilities = predict_probabilities(model, image, scale=scale, scales=scales, flip=flip, window=window)
    return probabilities.argmax(dim=0).to(torch.uint8).cpu().numpy()  # (H, W)


def network_probabilities(model: nn.Module, pixels: Tensor, size: tuple[int, int], window: Window | None = None) -> Tensor:
    """Probabilities (N, C, *size), float32, from normalised `pixels` (N, 3, h, w): logits to (h, w), then to `size` (H, W)."""
    return _resized(_logits(model, pixels, window), *size).softmax(dim=1)


def _logits(model: nn.Module, pixels: Tensor, window: Window | None) -> Tensor:
    """Logits (N, C, h, w) at the size of `pixels` (N, 3, h, w)."""
    height, width = pixels.shape[2:]
    if window is None:
        return _resized(model(pixels), height, width)
    total: Tensor | None = None
    count = pixels.new_zeros(1, 1, height, width)
    for rows, columns in window.places(height, width):
        part = pixels[:, :, rows, columns]
        logits = _resized(model(part), *part.shape[2:])
        if total is None:
            total = logits.new_zeros(*logits.shape[:2], height, width)
        total[:, :, rows, columns] += logits
        count[:, :, rows, columns] += 1
    assert total is not None
    return total.div_(count)


def _resized(logits: Tensor, height: int, width: int) -> Tensor:
    """`logits` (N, C, any, any) as float32 (N, C, height, width)."""
    if logits.shape[2:] == (height, width):
        return logits.float()
    return F.interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)


def _starts(length: int, crop: int, stride: int) -> Iterator[int]:
    last = max(length - crop, 0)
    yield from range(0, last, stride)
    yield last


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each module is as it was (a frozen batch norm stays frozen)."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
