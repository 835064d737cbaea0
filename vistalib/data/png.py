"""8-bit PNGs decoded row by row from the top, as far as they are needed.

Source: the PNG specification (third edition), sections 5 (chunks) and 7 (filters); RFC 1950 and 1951 for what is deflated.
A PNG is one deflated stream of rows, each under a filter. Inflating the stream can stop anywhere; it is done by isal where that
is installed, which takes a third of zlib's time. What undoes the filters best is a decoder: it is given the first rows as a PNG
of its own, stored instead of deflated. That is pyspng where it is installed, which takes a third of OpenCV's time. Checksums of
the whole file are looked at first, so that damage is found wherever it lies. Letters: W width.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

START = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3  # kinds of pixels
STORED = 65535  # bytes of the largest block that is not deflated


@cache
def _zlib() -> Any:
    try:
        from isal import isal_zlib
    except ModuleNotFoundError:
        return zlib  # the same names
    return isal_zlib


@cache
def _decoder() -> Callable[[bytes], npt.NDArray[np.uint8]]:
    try:
        from pyspng import load
    except ModuleNotFoundError:
        return _by_opencv
    return load  # type: ignore[no-any-return]  # it has no types


def _by_opencv(stored: bytes) -> npt.NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("OpenCV gives no reason")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels) if pixels.ndim == 3 else pixels, np.uint8)


@dataclass(frozen=True)
class Png:
    """A PNG of palette indices or of red, green and blue, not yet decoded; `chunks` are the names of its parts."""

    height: int
    width: int
    channels: int
    stream: bytes  # deflated
    chunks: frozenset[bytes]

    def rows(self, stop: int) -> npt.NDArray[np.uint8]:
        """The first `stop` rows, (stop, W) indices or (stop, W, 3) RGB, not to be written to; `ValueError` if broken."""
        size = stop * (1 + self.width * self.channels)
        try:
            data = _zlib().decompressobj().decompress(self.stream, size)
        except Exception as error:  # either library has an error of its own, without a common ancestor
            raise ValueError(f"its stream is damaged: {error}") from None
        if len(data) < size:
            raise ValueError("its stream ends early")
        filtered = np.frombuffer(data, np.uint8).reshape(stop, -1)
        if self.channels == 1 and not filtered[:, 0].any():  # no filter, as most labels with a palette are written
            return filtered[:, 1:]
        stored = _stored(data, struct.pack(">IIBBBBB", self.width, stop, 8, RGB if self.channels == 3 else GREY, 0, 0, 0))
        try:
            return _decoder()(stored)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"its rows do not decode: {error}") from None


def parse(data: bytes) -> Png | None:
    """The PNG that `data` is, or None where it is of another kind than is decoded here; `ValueError` for a damaged one."""
    if not data.startswith(START) or len(data) < 33:
        return None
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if depth != 8 or kind not in (RGB, PALETTE) or interlaced:
        return None
    chunks = list(_chunks(data))
    stream = b"".join(content for name, content in chunks if name == b"IDAT")
    return Png(height, width, 3 if kind == RGB else 1, stream, frozenset(name for name, _ in chunks))


def damage(data: bytes) -> str:
    """What is wrong with the parts of a PNG, in words, or nothing; what a part holds is not looked at. Other formats pass."""
    try:
        for _ in _chunks(data) if data.startswith(START) else ():
            pass
    except ValueError as error:
        return str(error)
    return ""


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Name and content of each part, to the last; `ValueError` for one whose checksum is wrong, or without a last one."""
    position, view, crc32 = len(START), memoryview(data), _zlib().crc32
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        stop = position + 8 + length
        if stop + 4 <= len(data) and crc32(view[position + 4 : stop]).to_bytes(4, "big") != data[stop : stop + 4]:
            raise ValueError(f"a part at byte {position} of {len(data)} whose checksum is wrong")
        if name == b"IEND":
            return
        if stop + 4 <= len(data):
            yield name, view[position + 8 : stop]
        position = stop + 4
    raise ValueError(f"{len(data)} bytes that end before the PNG does")


def _stored(data: bytes, header: bytes) -> bytes:
    """A PNG of rows that are filtered already."""
    view = memoryview(data)
    blocks: list[bytes | memoryview] = [b"\x78\x01"]
    for start in range(0, len(data), STORED):
        length = min(STORED, len(data) - start)
        blocks += [struct.pack("<BHH", start + length == len(data), length, length ^ 0xFFFF), view[start : start + length]]
    stream = b"".join((*blocks, _zlib().adler32(data).to_bytes(4, "big")))
    return b"".join((START, *_chunk(b"IHDR", header), *_chunk(b"IDAT", stream), *_chunk(b"IEND", b"")))


def _chunk(name: bytes, content: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    return struct.pack(">I", len(content)), name, content, _zlib().crc32(content, _zlib().crc32(name)).to_bytes(4, "big")
