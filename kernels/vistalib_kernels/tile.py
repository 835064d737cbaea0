"""What happens to a tile of neighbouring output pixels before and after their channels are touched.

Plain loops over contiguous scratch arrays that fit into the first-level cache, few arrays a loop and no branches, so that
LLVM makes vectors of them by itself. All arrays are flat; pairs are (x, y).

Letters: H x W input, P x Q output, G groups, K points.
`sizes` is (H, W, P, Q, G, height and width of kernel, stride, padding and dilation, steps from pixel to pixel of offset, mask).
"""

from typing import Any

import numpy as np
from numba import njit

from vistalib_kernels.simd import power_of_two

POINTS = 1024  # of a tile, about: a few arrays of 4 kB


@njit(nogil=True)
def scratch(like: Any, sizes: Any) -> Any:
    """How many pixels a tile has, and arrays for its points: point, start, location, cell, pixel, inside, weight."""
    _, _, _, _, G, KH, KW, _, _, _, _, DH, DW, _, _ = sizes
    K = KH * KW
    pixels = max(1, POINTS // (G * K))
    points = pixels * G * K
    real = like.dtype.type
    point = np.empty(2 * points, like.dtype)  # of the window, from its top left
    for e in range(points):
        k = e % K
        point[2 * e] = real((k // KH) * DW)
        point[2 * e + 1] = real((k % KH) * DH)
    return pixels, (
        point,
        np.empty(2 * points, like.dtype),
        np.empty(2 * points, like.dtype),
        np.empty(2 * points, np.int32),
        np.empty(points, np.int32),
        np.empty(points, np.int32),
        np.empty(points, like.dtype),
    )


@njit(nogil=True)
def prepare(
    offset: Any, mask: Any, arrays: Any, sizes: Any, scale: float, logits: bool, row: int, first: int, pixels: int
) -> None:
    """Fill the arrays for `pixels` pixels from `first` on in row `row` of all images; location with how far beyond its cell."""
    _, _, P, Q, G, KH, KW, _, _, _, _, _, _, offset_step, mask_step = sizes
    _, _, location, _, _, _, weight = arrays
    K = KH * KW
    _gather(offset, (row * Q + first) * offset_step, offset_step, location, 2 * G * K, pixels)
    _locate(arrays, sizes, scale, row % P, first, pixels)
    _gather(mask, (row * Q + first) * mask_step, mask_step, weight, G * K, pixels)
    if logits:
        _softmax(weight[: pixels * G * K], K)


@njit(nogil=True)
def share_out(arrays: Any, points: int, own: bool, low: int, high: int) -> None:
    """Four bits up in `inside`, a bit for each corner in rows low..high - 1 of the input, to which this thread is to add.

    The lower four, for the corners whose values it is to read, stay if the output pixels are its own.
    """
    _, _, _, cell, _, inside, _ = arrays
    first, end, read = np.int32(low), np.int32(high), np.int32(15 if own else 0)
    for e in range(points):
        y = cell[2 * e + 1]
        band = 3 * np.int32((y >= first) & (y < end)) | 12 * np.int32((y >= first - 1) & (y < end - 1))
        inside[e] = (inside[e] & read) | (inside[e] & band) << 4


@njit(nogil=True)
def copy(source: Any, target: Any, factor: Any) -> None:
    """`factor` times `source`."""
    for e in range(source.size):
        target[e] = source[e] * factor


@njit(nogil=True, cache=True)
def find_reach(offset: Any, reach: Any, sizes: Any, scale: float, first_row: int, last_row: int) -> None:
    """The lowest and the highest y of the points of every row of output pixels, or beyond, as pairs in `reach`."""
    _, _, P, Q, G, KH, KW, SH, _, PH, _, DH, _, step, _ = sizes
    channels = 2 * G * KH * KW
    low, high = np.empty(channels, offset.dtype), np.empty(channels, offset.dtype)
    extent, centre = (KH - 1) * DH, (KH - 1) * DH // 2
    for row in range(first_row, last_row):
        low[:], high[:] = np.inf, -np.inf
        for pixel in range(row * Q, (row + 1) * Q):
            read = offset[pixel * step : pixel * step + channels]
            for e in range(channels):
                low[e] = read[e] if read[e] < low[e] else low[e]  # not for NaN, whose points are dropped
                high[e] = read[e] if read[e] > high[e] else high[e]
        top = (row % P) * SH + centre - PH - centre * scale
        one, other = top + low[1::2].min() * scale, top + (extent + high[1::2].max()) * scale
        reach[2 * row], reach[2 * row + 1] = min(one, other), max(one, other)


@njit(nogil=True)
def _gather(source: Any, begin: int, step: int, target: Any, channels: int, pixels: int) -> None:
    """Lay the channels of `pixels` pixels, which are `step` apart in `source`, next to each other."""
    for t in range(pixels):
        read, write = source[begin + t * step : begin + t * step + channels], target[t * channels : (t + 1) * channels]
        for e in range(channels):
            write[e] = read[e]


@njit(nogil=True)
def _locate(arrays: Any, sizes: Any, scale: float, row: int, first: int, pixels: int) -> None:
    """From offsets in `location` to all arrays but weight.

    The order of the operations on a location is the definition's, and nothing is fused: what is a whole number there is one
    here.
    """
    H, W, _, _, G, KH, KW, SH, SW, PH, PW, DH, DW, _, _ = sizes
    point, start, location, cell, pixel, inside, _ = arrays
    real = location.dtype.type
    a_pixel = G * KH * KW
    points = pixels * a_pixel
    centre_x, centre_y = DW * (KW - 1) // 2, DH * (KH - 1) // 2
    stretch = real(scale)
    top = real(row * SH + centre_y - PH) - real(centre_y * scale)
    for t in range(pixels):
        left = real((first + t) * SW + centre_x - PW) - real(centre_x * scale)
        for e in range(t * a_pixel, (t + 1) * a_pixel):
            start[2 * e] = left
            start[2 * e + 1] = top
    for e in range(2 * points):
        location[e] = start[e] + (point[e] + location[e]) * stretch
    width, height, none, dropped = real(W), real(H), real(-1), real(-2)
    for e in range(points):
        x, y = location[2 * e], location[2 * e + 1]
        kept = (x > none) & (x < width) & (y > none) & (y < height)  # false for NaN, too
        location[2 * e] = x if kept else dropped  # no corner of a dropped point is inside
        location[2 * e + 1] = y if kept else dropped
    for e in range(2 * points):
        low = np.floor(location[e])
        location[e] -= low
        cell[e] = np.int32(low)
    for e in range(points):
        x, y = cell[2 * e], cell[2 * e + 1]
        pixel[e] = y * W + x
        columns = np.int32(x >= 0) | np.int32((x >= -1) & (x < W - 1)) << 1
        inside[e] = columns * (np.int32(y >= 0) | np.int32((y >= -1) & (y < H - 1)) << 2)


@njit(nogil=True, fastmath={"contract"})
def _softmax(weight: Any, points: int) -> None:
    """Turn logits into weights that sum to one over every `points` neighbours, in place."""
    real = weight.dtype.type
    for first in range(0, weight.size, points):
        largest = weight[first]
        for e in range(first + 1, first + points):
            largest = max(largest, weight[e])
        for e in range(first, first + points):
            weight[e] -= largest
    least = real(-87)  # e**-87 is the smallest normal number of float32, about
    for e in range(weight.size):
        x = weight[e]
        power = _exp(least if x < least else x, real)  # NaN stays NaN
        weight[e] = real(0) if x < least else power
    for first in range(0, weight.size, points):
        total = real(0)
        for e in range(first, first + points):
            total += weight[e]
        share = real(1) / total
        for e in range(first, first + points):
            weight[e] *= share


@njit(nogil=True)
def softmax_backward(weight: Any, gradient: Any, points: int) -> None:
    """From the gradient of the weights to that of the logits, in place."""
    for first in range(0, weight.size, points):
        along = weight[first] * gradient[first]
        for e in range(first + 1, first + points):
            along += weight[e] * gradient[e]
        for e in range(first, first + points):
            gradient[e] = weight[e] * (gradient[e] - along)


@njit(nogil=True, fastmath={"contract"})
def _exp(x: Any, real: Any) -> Any:
    """e**x for -87 <= x <= 0 as 2**n * e**r with |r| <= ln(2)/2, by Taylor's series: no branch and no call.

    ln(2) is taken away in two parts, the first of which has so few digits that its product with n is exact.
    """
    n = np.floor(x * real(1.4426950408889634) + real(0.5))
    r = (x - n * real(0.693145751953125)) - n * real(1.4286068203094172e-6)
    p = r * real(1 / 6227020800) + real(1 / 479001600)  # 1/13! and 1/12!
    p = (p * r + real(1 / 39916800)) * r + real(1 / 3628800)
    p = (p * r + real(1 / 362880)) * r + real(1 / 40320)
    p = (p * r + real(1 / 5040)) * r + real(1 / 720)
    p = (p * r + real(1 / 120)) * r + real(1 / 24)
    p = (p * r + real(1 / 6)) * r + real(1 / 2)
    p = (p * r + real(1)) * r + real(1)
    return p * power_of_two(n)
