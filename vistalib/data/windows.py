"""Images of which a window is all that is computed: decoded, mapped and resized only as far as the window needs.

A training sample is a crop of a resized image: most of the work on the whole would be thrown away. A window here has the bytes
that the same window of the whole would have:

- A PNG stores rows from the top down, so the first ones can be decoded without the rest.
- A look-up table maps pixels one by one.
- `cv2.resize` computes an output pixel from its place and the scale alone, so the first rows and columns of a source, under the
  scale of the whole, give the first rows and columns of the result.

Layout: uint8 (H, W, 3) RGB or (H, W).
"""

import math
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from vistalib.data import png
from vistalib.data.decode import UNKNOWN, Image, Label, decode_image, map_label, read_file

Box = tuple[slice, slice]  # rows and columns, in steps of 1
UNUSUAL = {b"eXIf", b"acTL", b"tRNS"}  # parts of a PNG that say how to turn, move or see through it


class Pixels(Protocol):
    """What can be asked for a window: an array, or something that computes no more than the window."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, box: Box, /) -> npt.NDArray[np.uint8]: ...


class PngFile:
    """A photograph in memory as it was stored, decoded from the top down as far as a window reaches."""

    def __init__(self, path: Path, data: bytes, stored: png.Png) -> None:
        self.path, self.data, self.stored = path, data, stored
        self.shape = (stored.height, stored.width, 3)

    def __getitem__(self, box: Box) -> Image:
        """The window `box` of the image; `ValueError` names a file that is damaged."""
        try:
            return self.stored.rows(box[0].indices(self.shape[0])[1])[box]
        except ValueError:
            return decode_image(self.path, self.data)[box]  # which says what is wrong


def open_image(path: Path) -> Pixels:
    """The photograph at `path`, which decodes as far as it is asked; `ValueError` names a missing, damaged or cut file.

    All but PNGs of 8-bit red, green and blue is decoded here, whole; a JPEG of twelve megapixels takes no longer than the part
    that most crops need, since OpenCV cannot stop early and what can is slower.
    """
    data = read_file(path, "image")
    try:
        stored = png.parse(data)
    except ValueError:
        stored = None
    if stored is None or stored.channels < 3 or not UNUSUAL.isdisjoint(stored.chunks):
        return decode_image(path, data)
    return PngFile(path, data, stored)


class MappedLabel:
    """The values of a label file under a look-up table, which is applied where a window is."""

    def __init__(self, values: Label, table: npt.NDArray[np.uint8]) -> None:
        self.values, self.table, self.shape = values, table, values.shape

    def __getitem__(self, box: Box) -> Label:
        """The window `box` in training ids."""
        return np.asarray(cv2.LUT(self.values[box], self.table), np.uint8)


def open_label(values: Label, table: npt.NDArray[np.uint8], path: Path, names: str) -> Pixels:
    """`values` under `table`; as `map_label`, a `ValueError` for values anywhere that have no name."""
    unknown = np.flatnonzero(table == UNKNOWN)
    if len(unknown) and values.max() >= unknown[0]:
        return map_label(values, table, path, names)
    return MappedLabel(values, table)


class Resized:
    """`source` resized to (`height`, `width`) under an `interpolation` of OpenCV, a window at a time."""

    def __init__(self, source: Pixels, size: tuple[int, int], interpolation: int) -> None:
        self.source, self.shape, self.interpolation = source, size, interpolation
        self._last: tuple[Box, npt.NDArray[np.uint8]] | None = None

    def __getitem__(self, box: Box) -> npt.NDArray[np.uint8]:
        """The window `box` of the result, cut at its edges; the last one is kept."""
        if self._last is None or self._last[0] != box:
            self._last = box, self._window(box)
        return self._last[1]

    def _window(self, box: Box) -> npt.NDArray[np.uint8]:
        (bottom, down), (right, across) = (
            _needed(span, whole, resized) for span, whole, resized in zip(box, self.source.shape, self.shape)
        )
        if (round(bottom * down), round(right * across)) == (bottom, right):  # OpenCV copies where nothing seems to be resized
            bottom, right = self.source.shape[:2]
        part = self.source[:bottom, :right]
        resized = cv2.resize(part, None, fx=across, fy=down, interpolation=self.interpolation)
        return np.asarray(resized, np.uint8)[box]


def _needed(span: slice, whole: int, resized: int) -> tuple[int, float]:
    """The source rows (or columns), from the first, that rows up to `span.stop` depend on, and the scale of the whole."""
    scale = resized / whole
    return min(whole, math.ceil(min(span.stop, resized) / scale) + 1), scale
