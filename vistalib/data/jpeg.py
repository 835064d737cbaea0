"""JPEGs decoded from the top, as far as they are needed.

Source: ITU-T T.81, annex B. A header that promises fewer rows makes a decoder stop after them: Pillow, which has the decoder
that OpenCV has, libjpeg-turbo, and does not mind what is left over.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

START, END = b"\xff\xd8", b"\xff\xd9"
FRAMES = (0xC0, 0xC1)  # headers of a sequential JPEG; bytes 5 and 6 are its height
SCAN = 0xDA  # header of a scan; byte 4 is how many colours it has
ORIENTATION = 0x0112  # of EXIF
MARGIN = 32  # rows of the tallest block: at the lower edge of an image, colours are interpolated otherwise


@dataclass(frozen=True)
class Jpeg:
    """A JPEG of three colours in one scan, not yet decoded; the height stands at `place` in its data."""

    height: int
    width: int
    data: bytes
    place: int

    def rows(self, stop: int) -> npt.NDArray[np.uint8]:
        """The first `stop` rows, (stop, W, 3) RGB; `ValueError` where they are damaged."""
        height = struct.pack(">H", min(self.height, stop + MARGIN))
        data = b"".join((self.data[: self.place], height, memoryview(self.data)[self.place + 2 :]))
        try:
            with PillowImage.open(io.BytesIO(data)) as image:
                return np.asarray(image, np.uint8)[:stop]
        except (OSError, SyntaxError) as error:
            raise ValueError(f"its rows do not decode: {error}") from None


def parse(data: bytes) -> Jpeg | None:
    """The JPEG that `data` is, or None for another kind than is decoded here, among them one to be turned by its EXIF data."""
    found = list(headers(data))
    frame = next((place for place, kind in found if kind in FRAMES), None)
    if frame is None or found[-1][1] != SCAN or data[found[-1][0] + 4 : found[-1][0] + 5] != b"\3" or not complete(data):
        return None
    try:
        with PillowImage.open(io.BytesIO(data)) as image:
            if image.mode != "RGB" or image.getexif().get(ORIENTATION, 1) != 1:
                return None
            return Jpeg(image.height, image.width, data, frame + 5)
    except (OSError, SyntaxError, ValueError):
        return None


def complete(data: bytes) -> bool:
    """Whether the file runs to its end mark; that of an embedded thumbnail, which lies in a header, does not count."""
    pixels = len(START)
    for place, kind in headers(data):
        pixels = place if kind == SCAN else place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.rfind(END) > pixels


def headers(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the headers lie, and of which kind they are, up to that of the first scan."""
    position, kind = len(START), 0
    while position + 4 <= len(data) and data[position] == 0xFF and kind != SCAN:
        kind = data[position + 1]
        if kind == 0xFF:  # markers may be stretched by bytes of 0xFF
            position += 1
        else:
            yield position, kind
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
