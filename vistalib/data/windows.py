"""Images of which a window is all that is computed: decoded, mapped and resized only as far as the window needs.

A training sample is a crop of a resized image: most of the work on the whole would be thrown away. A window here has the bytes
that the same window of the whole would have:

- JPEG and PNG store rows from the top down. A file whose header promises fewer rows decodes to the first rows of the image.
- A look-up table maps pixels one by one.
- `cv2.resize` computes an output pixel from its place and the scale alone, so the first rows and columns of a source, under the
  scale of the whole, give the first rows and columns of the result.

What lies below a window is not decoded, so damage there goes unnoticed. Layout: uint8 (H, W, 3) RGB or (H, W).
"""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from vistalib.data.decode import (
    JPEG_SCAN,
    JPEG_START,
    PNG_START,
    UNKNOWN,
    Image,
    Label,
    complete,
    decode_image,
    jpeg_headers,
    map_label,
    read_file,
)

Box = tuple[slice, slice]  # rows and columns, in steps of 1
ORIENTATION = 0x0112  # of EXIF
MARGIN = 32  # rows of the tallest block of a JPEG: at the lower edge, colours are interpolated otherwise
FRAME = (0xC0, 0xC1)  # header of a sequential JPEG; its bytes 5 and 6 are the height


class Pixels(Protocol):
    """What can be asked for a window: an array, or something that computes no more than the window."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, box: Box, /) -> npt.NDArray[np.uint8]: ...


class ImageFile:
    """A photograph in memory as it was stored, decoded from the top down as far as a window reaches."""

    def __init__(self, path: Path, data: bytes, height: int, width: int) -> None:
        self.path, self.data, self.shape = path, data, (height, width, 3)

    def __getitem__(self, box: Box) -> Image:
        """The window `box` of the image; `ValueError` names a file that is damaged above its lower edge."""
        stop = box[0].indices(self.shape[0])[1]
        shorten = _shorter_png if self.data.startswith(PNG_START) else _shorter_jpeg
        try:
            with PillowImage.open(io.BytesIO(shorten(self.data, stop))) as image:
                return np.asarray(image, np.uint8)[:stop][box]
        except (OSError, SyntaxError, ValueError):
            return decode_image(self.path, self.data)[box]  # which says what is wrong


def open_image(path: Path) -> Pixels:
    """The photograph at `path`, which decodes as far as it is asked; `ValueError` names a missing or cut file.

    Pillow, which can stop early, and OpenCV decode the common kinds alike. The others are decoded here, whole, by OpenCV:
    progressive JPEGs, PNGs of 16 bits or with a palette, whatever is to be turned by its EXIF orientation.
    """
    data = read_file(path, "image")
    try:
        with PillowImage.open(io.BytesIO(data)) as image:
            width, height = image.size
            common = complete(data) and (_common_png(data) if image.format == "PNG" else _common_jpeg(data, image))
    except (OSError, SyntaxError, ValueError):
        common = False
    return ImageFile(path, data, height, width) if common else decode_image(path, data)


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

    def __getitem__(self, box: Box) -> npt.NDArray[np.uint8]:
        """The window `box` of the result, cut at its edges."""
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


def _common_png(data: bytes) -> bool:
    depth, kind, _, _, interlaced = data[24:29]
    return (depth, kind, interlaced) == (8, 2, 0) and not any(chunk in data for chunk in (b"eXIf", b"acTL", b"tRNS"))


def _common_jpeg(data: bytes, image: PillowImage.Image) -> bool:
    if not data.startswith(JPEG_START) or image.mode != "RGB" or image.getexif().get(ORIENTATION, 1) != 1:
        return False
    *before, (scan, last) = jpeg_headers(data)
    return last == JPEG_SCAN and data[scan + 4] == 3 and any(kind in FRAME for _, kind in before)  # one scan of all colours


def _shorter_png(data: bytes, rows: int) -> bytes:
    """The file with a header of `rows` rows."""
    header = data[12:20] + struct.pack(">I", rows) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def _shorter_jpeg(data: bytes, rows: int) -> bytes:
    """The file with a header of a few more rows than `rows`, if it has as many."""
    at = next(at for at, kind in jpeg_headers(data) if kind in FRAME) + 5
    height = min(rows + MARGIN, int.from_bytes(data[at : at + 2], "big"))
    return data[:at] + struct.pack(">H", height) + data[at + 2 :]
