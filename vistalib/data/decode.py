"""From files to arrays: images as RGB, labels as the class indices they store; a damaged file is named, never passed on.

Images go through OpenCV, which turns a photograph by its EXIF orientation as the released code does. Older versions of
it hand out the readable part of a cut JPEG in silence, so the end mark is looked for first. Labels are read as the
indices of a palette PNG, which OpenCV may expand to colours and Pillow keeps.
Layout: an image is uint8 (H, W, 3) RGB, a label uint8 (H, W).
"""

import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from vistalib.data import png

Image = npt.NDArray[np.uint8]
Label = npt.NDArray[np.uint8]

UNKNOWN = 254  # in a look-up table: a value that the dataset's classes do not name

_JPEG_START, _JPEG_END, _JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_PNG_KINDS = {0: "grey", 2: "colour (RGB)", 3: "palette", 4: "grey with alpha", 6: "colour with alpha (RGBA)"}


def read_image(path: Path) -> Image:
    """The photograph at `path` (JPEG or PNG), (H, W, 3) RGB; `ValueError` names a missing, damaged or cut file."""
    return decode_image(path, read_file(path, "image"))


def decode_image(path: Path, data: bytes) -> Image:
    """The photograph that `data`, the content of `path`, holds; see `read_image`."""
    pixels = _decoded(data, cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(
            f"{path} must be a whole JPEG or PNG image, got {len(data)} bytes that end early or do not decode; "
            "copy or unpack this file again"
        )
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), np.uint8)


def read_label(path: Path) -> Label:
    """The stored indices (H, W) of a palette PNG or an 8-bit grey PNG, not to be written to.

    `ValueError` names a file that is anything else.
    """
    data = read_file(path, "label")
    if data[:8] != png.START or len(data) < 33:
        raise ValueError(f"{path} must be a PNG that stores class indices, got {data[:8]!r} at its start; write labels as PNG")
    depth, kind = data[24], data[25]
    if not (kind == 3 or (kind == 0 and depth == 8)):
        raise ValueError(
            f"{path} must store one class index a pixel (a palette PNG, or 8-bit grey), got {depth}-bit "
            f"{_PNG_KINDS.get(kind, 'unknown')}: the palette was expanded or the file was converted; take the original file, "
            "or write the indices again with Pillow in mode P or L"
        )
    try:
        plain = png.parse(data)
        if plain is not None:
            return plain.rows(plain.height)  # (H, W)
        with PillowImage.open(io.BytesIO(data)) as image:
            return np.asarray(image, np.uint8)  # (H, W)
    except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
        raise ValueError(
            f"{path} must be a whole PNG, got one that does not decode ({error}); copy or unpack this file again"
        ) from None


def read_probability(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """How sure an automatic label of `shape` (H, W) is, in steps of 1/255; `ValueError` names a file that is anything else."""
    data = read_file(path, "probability")
    values = _decoded(data, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint8 or values.shape != shape:
        got = "a file that does not decode" if values is None else f"{values.dtype} of shape {values.shape}"
        raise ValueError(
            f"{path} must be an 8-bit grey PNG of the size of its label, {shape[1]}x{shape[0]}, got {got}; unpack it again"
        )
    return np.asarray(values, np.uint8)


def read_instances(path: Path) -> npt.NDArray[np.uint16]:
    """The instance ids (H, W) of Cityscapes; `ValueError` names a file that is no 16-bit grey PNG."""
    values = _decoded(read_file(path, "instance map"), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype not in (np.uint8, np.uint16) or values.ndim != 2:
        got = "a file that does not decode" if values is None else f"{values.dtype} of shape {values.shape}"
        raise ValueError(f"{path} must be a 16-bit grey PNG of instance ids, got {got}; unpack it again")
    return np.asarray(values, np.uint16)


def map_label(label: Label, table: npt.NDArray[np.uint8], path: Path, names: str) -> Label:
    """`table[label]`; where that is `UNKNOWN`, a `ValueError` tells the file and the values. `names` is what names them."""
    mapped = np.asarray(cv2.LUT(label, table), np.uint8)
    if (mapped == UNKNOWN).any():
        values, counts = np.unique(label[mapped == UNKNOWN], return_counts=True)
        raise unnamed(path, names, values, int(counts.sum()))
    return mapped


def unnamed(path: Path, names: str, values: npt.NDArray[Any], pixels: int) -> ValueError:
    """The error for a label file that holds `values` (at so many pixels) which `names` does not name."""
    return ValueError(
        f"{path} must hold only the values that {names} names, got {', '.join(map(str, values))} at {pixels} pixels; "
        "check that the labels are of this version, and take the original file again if they are"
    )


def wrong_size(path: Path | str, label: tuple[int, ...], image: tuple[int, ...]) -> ValueError:
    """The error for a label file, or an entry of one, whose shape (H, W) is not that of its image."""
    repair = "; export the label again at the image's size"
    if label[:2] == image[1::-1]:
        repair = ", so one is turned, perhaps the image by its EXIF orientation; turn the label as the image is shown"
    return ValueError(
        f"{path} must have the size of its image, got a label of {label[1]}x{label[0]} for an image of {image[1]}x{image[0]}"
        + repair
    )


def read_file(path: Path, what: str) -> bytes:
    """The content of a file; the `ValueError` for one that cannot be read calls it `what`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, what, error) from None


def unreadable(path: Path, what: str, error: OSError) -> ValueError:
    """The error for a file, called `what`, that the system does not hand out."""
    got, repair = f": {error.strerror}", "restore it or mend its permissions"
    if os.path.islink(path) and not os.path.exists(path):
        got, repair = f" a link to {os.readlink(path)}, which is not there", "restore what it leads to, or remove the link"
    return ValueError(f"the {what} {path} must be a readable file, got{got}; {repair}")


def _decoded(data: bytes, flags: int) -> Any:
    """What OpenCV makes of a whole image file, or None."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if _complete(data) else None
    except cv2.error:  # a damaged header may ask for more pixels than there is memory
        return None


def _complete(data: bytes) -> bool:
    """Whether a JPEG runs to its end mark and the parts of a PNG are whole; other formats are left to the decoder."""
    if data.startswith(_JPEG_START):
        return data.rfind(_JPEG_END) > _first_scan(data)
    if data.startswith(png.START):
        return not png.damage(data)
    return len(data) > 0


def _first_scan(data: bytes) -> int:
    """Where the pixels of a JPEG begin: behind every header, so that the end mark of an embedded thumbnail does not count."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _JPEG_SCAN:
        fill = data[position + 1] == 0xFF  # markers may be stretched by bytes of 0xFF
        position += 1 if fill else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position
