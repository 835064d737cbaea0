"""The photometric distortion and the normalisation of a batch on its device, with the bytes that `colors` gives on a CPU.

Workers then hand out 8-bit crops, a fifth of the bytes, and the numbers that were drawn for each as tables. OpenCV's
conversions from RGB to 8-bit hue, saturation, value and back round in ways of their own; here they are tables over all their
inputs that OpenCV itself makes, 121 MB on the device, so that nothing can differ. Back from HSV there are two: OpenCV has code
for as many pixels at once as the processor's vectors hold, and code for the last few of a row, which gives three quarters of
all colours another value, by one. Where in a row it changes from one to the other is found by trying.
Layout: images come as uint8 (B, h, w, 3) RGB and leave as float32 (B, 3, h, w), in that order of memory, too: with
another, a first convolution would round otherwise, and a run would not be the same.
Letters: B batch; h, w crop.
"""

from collections.abc import Mapping
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vistalib.data.augment import Crop
from vistalib.data.colors import HUES, IDENTITY, NORMALIZING_TABLES
from vistalib.data.labels import IGNORE_INDEX


def packed(crop: Crop, size: tuple[int, int]) -> dict[str, Tensor]:
    """A crop as tensors of equal shapes for all crops, padded to `size`: what `DeviceColors` asks for, of one sample."""
    drawn = crop.distortion
    steps = (drawn.before, drawn.saturation, drawn.hue, drawn.after)
    height, width = crop.label.shape
    missing = (0, size[0] - height, 0, size[1] - width, cv2.BORDER_CONSTANT)
    return {
        "image": torch.from_numpy(cv2.copyMakeBorder(crop.image, *missing, value=0)),  # (h, w, 3)
        "label": torch.from_numpy(cv2.copyMakeBorder(crop.label, *missing, value=IGNORE_INDEX)),  # (h, w)
        "size": torch.tensor([height, width]),
        "tables": torch.from_numpy(np.stack([IDENTITY if table is None else table for table in steps])),  # (4, 256)
        "steps": torch.tensor([table is not None for table in steps]),  # (4,)
    }


class DeviceColors:
    """Finishes batches of `packed` crops on `device`."""

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch as a loader without `DeviceColors` gives it, on the device, but for "sample"."""
        image, label, tables = (batch[key].to(self.device, non_blocking=True) for key in ("image", "label", "tables"))
        before, saturation, hue, after = tables.unbind(1)  # (B, 256) each
        drawn, widths = batch["steps"].tolist(), batch["size"][:, 1].tolist()
        image = _look_up(image, before)
        for step, channel, table in ((1, 1, saturation), (2, 0, hue)):
            chosen = [i for i, steps in enumerate(drawn) if steps[step]]
            if chosen:
                image[chosen] = _look_up_in_hsv(image[chosen], channel, table[chosen], [widths[i] for i in chosen])
        image = _look_up(image, after)
        normalizing = torch.from_numpy(NORMALIZING_TABLES).to(self.device)
        pixels = torch.stack([normalizing[c][image[..., c].int()] for c in range(3)], 1)  # (B, 3, h, w)
        for i, (height, width) in enumerate(batch["size"].tolist()):
            pixels[i, :, height:] = 0
            pixels[i, :, :, width:] = 0
        return {"image": pixels, "label": label.long(), "sample": batch["sample"]}


def _look_up(image: Tensor, table: Tensor) -> Tensor:
    """`image` (B, h, w, ...) through a table for each sample, (B, 256)."""
    return table.gather(1, image.flatten(1).long()).view_as(image)


def _look_up_in_hsv(image: Tensor, channel: int, table: Tensor, widths: list[int]) -> Tensor:
    """`image` (B, h, w, 3) with one channel of hue, saturation, value replaced through a table for each sample, (B, 256).

    `widths` are those of the crops without their padding.
    """
    to_hsv, to_rgb = conversions(image.device)
    hsv = to_hsv[_place(image)]  # (B, h, w, 3)
    hsv[..., channel] = _look_up(hsv[..., channel], table)
    place = _place(hsv)
    for i, width in enumerate(widths):
        place[i, :, _last_few(width) :] += HUES << 16
    return to_rgb[place]


def _place(image: Tensor) -> Tensor:
    """Where the three bytes of each pixel stand in a table over all of them, (B, h, w)."""
    first, second, third = image.int().unbind(-1)
    return (first << 16) | (second << 8) | third


@cache
def conversions(device: torch.device) -> tuple[Tensor, Tensor]:
    """RGB to HSV, (2^24, 3), and back, twice (180 * 2^16, 3): of many pixels at once, and of single ones."""
    rgb, hsv = _everything(256), _everything(HUES)
    to_hsv = cv2.cvtColor(rgb.reshape(256, -1, 3), cv2.COLOR_RGB2HSV)
    to_rgb = [cv2.cvtColor(hsv.reshape(*shape, 3), cv2.COLOR_HSV2RGB) for shape in ((HUES, -1), (-1, 1))]
    tables = [to_hsv.reshape(-1, 3), np.concatenate([part.reshape(-1, 3) for part in to_rgb])]
    return torch.from_numpy(tables[0]).to(device), torch.from_numpy(tables[1]).to(device)


def _everything(first: int) -> npt.NDArray[np.uint8]:
    """(first * 2^16, 3): all triples of bytes in order, the first below `first`."""
    values = np.arange(256, dtype=np.uint8)
    return np.stack(np.meshgrid(values[:first], values, values, indexing="ij"), -1).reshape(-1, 3)


@cache
def _last_few(width: int) -> int:
    """The column from which OpenCV converts the pixels of a row of `width` one by one."""
    many, single = conversions(torch.device("cpu"))[1].numpy().reshape(2, -1, 3)
    differ = many != single
    which = int(differ.argmax()) // 3  # the first, without a look at the others
    if not differ[which].any():
        return width
    row = np.full((1, width, 3), (which >> 16, which >> 8 & 255, which & 255), np.uint8)
    return int((cv2.cvtColor(row, cv2.COLOR_HSV2RGB)[0] == many[which]).all(1).sum())
