"""From an image to class probabilities and a label map: whole image, sliding window, several scales, mirrored.

Source: the test-time path of the released InternImage segmentation code (mmsegmentation 0.30), rebuilt from its measured
behaviour. For each scale, mirrored or not: image -> resized into the scale -> normalised -> logits -> upsampled to the size of
the network's input (averaged there where windows overlap) -> to the image's own size -> softmax; these probabilities are
averaged. Both resizings of the logits are bilinear with align_corners=False. A model maps (N, 3, h, w) to logits of any size.

Only the logits as the network gives them are kept, a sixteenth of the pixels; they are upsampled for one band of rows at a
time. So memory grows with the network's input and hardly with the photograph: a laptop labels 12 megapixels in 150 classes.
Letters: N = images, C = classes, H, W = the image as read, h, w = the image as the network sees it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vistalib.data.augment import resize
from vistalib.data.colors import normalize

MULTI_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # the released multi-scale evaluation, with flip=True
# Probabilities made at a time, and a few copies of them on the way: 64 MB on a GPU, on a CPU what its caches hold.
BANDS = {"cuda": 2**24, "cpu": 2**20}


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
                yield slice(top, min(top + self.crop[0], height)), slice(left, min(left + self.crop[1], width))


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
    bands = probability_bands(model, [image], scale=scale, scales=scales, flip=flip, window=window)
    return torch.cat(list(bands), dim=2).squeeze(0)


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
    bands = probability_bands(model, [image], scale=scale, scales=scales, flip=flip, window=window)
    return torch.cat([band.squeeze(0).max(dim=0).indices.to(torch.uint8) for band in bands]).cpu().numpy()  # (H, W)


def mode_name(scales: Sequence[float], flip: bool, window: Window | None) -> str:
    """How an image is shown to the network, in words."""
    mode = "single scale" if len(scales) == 1 else "multi-scale"
    return mode + (" + flip" if flip else "") + (" + sliding window" if window else "")


def probability_bands(
    model: nn.Module,
    images: Sequence[NDArray[np.uint8]],
    *,
    scale: tuple[int, int],
    scales: Sequence[float],
    flip: bool,
    window: Window | None,
) -> Iterator[Tensor]:
    """What `predict_probabilities` returns, of N images of one size, top to bottom in bands (N, C, some rows, W).

    The network sees all N at once: for a GPU that one image does not keep busy.
    """
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image must be RGB uint8 (H, W, 3), got {image.dtype} {image.shape}; convert it first")
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales must be one or more positive numbers, got {tuple(scales)}; use (1.0,) for one scale")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    views = []
    with torch.no_grad(), _evaluating(model):
        for ratio in scales:
            box = (int(scale[0] * ratio), int(scale[1] * ratio))
            pixels = torch.stack([normalize(resize(image, box)) for image in images]).to(device)  # (N, 3, h, w)
            views += [_look(model, pixels, window, mirrored=mirrored) for mirrored in ((False, True) if flip else (False,))]
    height, width = images[0].shape[:2]
    step = max(1, BANDS["cpu" if device.type == "cpu" else "cuda"] // (len(images) * views[0].num_classes * width))
    for top in range(0, height, step):
        rows = range(top, min(top + step, height))
        yield _probabilities(views, (height, width), rows)  # (N, C, rows, W)


def network_probabilities(model: nn.Module, pixels: Tensor, size: tuple[int, int], window: Window | None = None) -> Tensor:
    """Probabilities (N, C, *size), float32, from normalised `pixels` (N, 3, h, w): logits to (h, w), then to `size` (H, W)."""
    return _probabilities([_look(model, pixels, window, mirrored=False)], size, range(size[0]))


@dataclass(frozen=True)
class _View:
    """One look of the network at the image: the logits of each window (N, C, any, any), as they came."""

    size: tuple[int, int]  # (h, w)
    parts: list[tuple[slice, slice, Tensor]]  # rows and columns of the window, its logits
    mirrored: bool

    @property
    def num_classes(self) -> int:
        return self.parts[0][2].shape[1]

    def rows(self, rows: range) -> Tensor:
        """Logits (N, C, rows, w) at the size of the network's input, averaged where windows overlap."""
        first = self.parts[0][2]
        total = first.new_zeros(*first.shape[:2], len(rows), self.size[1])  # (N, C, rows, w)
        count = first.new_zeros(len(rows), self.size[1])
        for window_rows, columns, logits in self.parts:
            inside = range(max(rows.start, window_rows.start), min(rows.stop, window_rows.stop))
            if inside:
                size = (window_rows.stop - window_rows.start, columns.stop - columns.start)
                here = slice(inside.start - rows.start, inside.stop - rows.start)
                within = range(inside.start - window_rows.start, inside.stop - window_rows.start)
                total[:, :, here, columns] += _resized(partial(_rows_of, logits), logits.shape[2], size, within)
                count[here, columns] += 1
        return total.div_(count)


def _look(model: nn.Module, pixels: Tensor, window: Window | None, *, mirrored: bool) -> _View:
    """The logits of `pixels` (N, 3, h, w), whole or window by window."""
    height, width = pixels.shape[2:]
    seen = pixels.flip(3) if mirrored else pixels
    whole = Window((height, width), (height, width))
    places = (window or whole).places(height, width)
    parts = [(rows, columns, model(seen[:, :, rows, columns]).float()) for rows, columns in places]
    return _View((height, width), parts, mirrored)


def _probabilities(views: Sequence[_View], size: tuple[int, int], rows: range) -> Tensor:
    """Rows `rows` of the probabilities at `size` (H, W), the average of all views: (N, C, rows, W)."""
    total: Tensor | None = None
    for view in views:
        probabilities = _resized(view.rows, view.size[0], size, rows).softmax(dim=1)  # (N, C, rows, W)
        if view.mirrored:
            probabilities = probabilities.flip(3)
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(views))


def _resized(read: Callable[[range], Tensor], height: int, size: tuple[int, int], rows: range) -> Tensor:
    """Rows `rows` of a map resized to `size`, (N, C, rows, size[1]); `read` gives rows of the map, which has `height` of them.

    `F.interpolate` has no way to make some rows only. It does the columns here; the rows are its formula, their position
    rounded once to float32, as its own vector code does.
    """
    if height == size[0]:
        return _columns(read(rows), size[1])
    scale = torch.tensor(height, dtype=torch.float32) / size[0]
    position = ((torch.arange(rows.start, rows.stop, dtype=torch.float64) + 0.5) * scale.double() - 0.5).float().clamp(min=0)
    above = position.long()  # (rows,)
    below = (above + 1).clamp(max=height - 1)
    needed = range(int(above[0]), int(below[-1]) + 1)
    wide = _columns(read(needed), size[1])  # (N, C, needed, W)
    weight = (position - above).to(wide.device).unsqueeze(1)
    upper, lower = (wide.index_select(2, (index - needed.start).to(wide.device)) for index in (above, below))
    return upper.mul_(1 - weight).addcmul_(lower, weight)  # (N, C, rows, W)


def _rows_of(maps: Tensor, rows: range) -> Tensor:
    return maps[:, :, rows.start : rows.stop]


def _columns(maps: Tensor, width: int) -> Tensor:
    """`maps` (N, C, any, any) with their columns resized bilinearly to `width`."""
    if maps.shape[3] == width:
        return maps
    return F.interpolate(maps, size=(maps.shape[2], width), mode="bilinear", align_corners=False)


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
