"""What the GPU kernels of DCNv3 share: sampling locations, the softmax, a table of both in shared memory.

Every function here is made for one `Build`, a record of what is constant in the compiled code: the compiler then knows how
often each loop runs, and divides by nothing but constants.

Letters: H x W input, P x Q output, G groups, D channels of a group, K points. A unit is one output pixel and one group, number
pixel * G + group. `sizes` is (H, W, P, Q, G); `stretch` is (offset_scale, and how far it pulls the window left and up).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import cuda, types

from vistalib_kernels.gpu_numbers import SIMULATED, access, device, times32, times64, wide

THREADS = 8 if SIMULATED else 128  # of a block
SHARED_BYTES = 32 << 10  # of a block, at most; every card has 48 kB
CAST = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float32, torch.bfloat16: np.float32}
REAL = {np.float32: types.float32, np.float64: types.float64}
# How the elements of a tensor lie in an array: those of 16 bits go by their bits, since Numba knows no array of bfloat16.
STORED = {torch.float32: types.float32, torch.float64: types.float64, torch.float16: types.int16, torch.bfloat16: types.int16}


@dataclass(frozen=True)
class Build:
    """The constants of one compiled kernel; pairs are (height, width)."""

    dtype: torch.dtype
    channels: int  # of a group, D
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    logits: bool

    @property
    def points(self) -> int:
        """K."""
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def cast(self) -> Any:
        """The NumPy type that sums and coordinates have: float32, or float64 for float64."""
        return CAST[self.dtype]

    @property
    def real(self) -> Any:
        """The same as Numba's type."""
        return REAL[self.cast]

    @property
    def stored(self) -> Any:
        """Numba's type of an array of this dtype."""
        return STORED[self.dtype]

    @property
    def vector(self) -> int:
        """How many channels 16 bytes hold."""
        return 16 // self.dtype.itemsize

    def units(self, lanes: int, *, extra: int = 0) -> int:
        """How many units a block takes, with `lanes` threads for each and a table of K points and `extra` numbers in memory."""
        size: int = self.cast(0).nbytes
        return max(1, min(THREADS // lanes, SHARED_BYTES // (self.points * (8 + 4 * size) + extra * size)))


class Parts(NamedTuple):
    """Device functions for one `Build`."""

    get: Any  # get(array, i): one number as the real type
    put: Any  # put(array, i, number): rounded to nearest, ties to even
    load16: Any  # load16(array, i, found): found[0:vector] = array[i:i + vector] by one instruction
    store16: Any  # store16(array, i, found): the other way
    locate: Any  # locate(offset, point, p, q, sizes, stretch): (cell, inside, x, y)
    normaliser: Any  # normaliser(mask, unit): what `weight` needs of all K logits
    weight: Any  # weight(mask, point, largest, share)
    tabulate: Any  # tabulate(offset, mask, table, first, units, sizes, stretch): shared memory for a block


def make_parts(b: Build) -> Parts:
    """The device functions of `b`."""
    get, put = access(b.dtype)
    load16, store16 = wide(b.vector)
    locate = _make_locate(b, get)
    normaliser, weight = _make_softmax(b, get)
    tabulate = _make_tabulate(b, get, locate)
    return Parts(get, put, load16, store16, locate, normaliser, weight, tabulate)


def _make_locate(b: Build, get: Any) -> Any:
    """Where a point lies. The order of the operations is the definition's, and no multiplication is fused with an addition.

    So what is a whole number there is one here. `cell` is the pixel y * W + x at the point's top left, `inside` has a bit for
    each corner in the image (1 top left, 2 top right, 4 bottom left, 8 bottom right), x and y are the distances from the cell.
    """
    K, cast = b.points, b.cast
    KH, KW = b.kernel_size
    (SH, SW), (DH, DW) = b.stride, b.dilation
    ahead_y, ahead_x = DH * (KH - 1) // 2 - b.padding[0], DW * (KW - 1) // 2 - b.padding[1]
    times = times32 if cast is np.float32 else times64
    none, zero = cast(-1), cast(0)

    @device
    def locate(offset, point, p, q, sizes, stretch):  # type: ignore[no-untyped-def]  # Numba infers them, here and below
        H, W = sizes[0], sizes[1]
        scale, back_x, back_y = stretch
        k = point % K
        x = (cast(q * SW + ahead_x) - back_x) + times(cast(k // KH * DW) + get(offset, 2 * point), scale)
        y = (cast(p * SH + ahead_y) - back_y) + times(cast(k % KH * DH) + get(offset, 2 * point + 1), scale)
        cell, inside = np.int32(0), np.int32(0)
        if x > none and x < cast(W) and y > none and y < cast(H):  # false for NaN, too
            column, row = np.int32(math.floor(x)), np.int32(math.floor(y))
            cell = np.int32(row * W + column)
            columns = (1 if column >= 0 else 0) + (2 if column < W - 1 else 0)
            inside = np.int32((columns if row >= 0 else 0) + (4 * columns if row < H - 1 else 0))
            x, y = x - cast(column), y - cast(row)
        else:  # a dropped point: no corner counts
            x, y = zero, zero
        return cell, inside, x, y

    return locate


def _make_softmax(b: Build, get: Any) -> tuple[Any, Any]:
    """The softmax of a unit's K logits in two functions, so that a thread may ask for one weight at a time."""
    K, logits, cast = b.points, b.logits, b.cast

    @device
    def normaliser(mask, unit):  # type: ignore[no-untyped-def]
        largest, total = cast(0), cast(1)
        if logits:
            largest, total = get(mask, unit * K), cast(0)
            for point in range(unit * K, unit * K + K):
                largest = max(largest, get(mask, point))
            for point in range(unit * K, unit * K + K):
                total += cast(math.exp(get(mask, point) - largest))
        return largest, cast(1) / total

    @device
    def weight(mask, point, largest, share):  # type: ignore[no-untyped-def]
        number = get(mask, point)
        if logits:
            number = cast(math.exp(number - largest)) * share
        return number

    return normaliser, weight


def _make_tabulate(b: Build, get: Any, locate: Any) -> Any:
    """A table in shared memory of all points of a block's units: cell, inside, x, y, weight.

    First a thread owns a point, then, for the softmax, a unit. All threads of the block must call.
    """
    K, logits, cast = b.points, b.logits, b.cast

    @device
    def tabulate(offset, mask, table, first, units, sizes, stretch):  # type: ignore[no-untyped-def]
        cell, inside, x, y, weight = table
        P, Q, G = sizes[2], sizes[3], sizes[4]
        for e in range(cuda.threadIdx.x, units * K, THREADS):
            point = first * K + e
            pixel = point // (K * G)
            cell[e], inside[e], x[e], y[e] = locate(offset, point, pixel // Q % P, pixel % Q, sizes, stretch)
            weight[e] = get(mask, point)
        cuda.syncthreads()
        if logits:
            for unit in range(cuda.threadIdx.x, units, THREADS):
                largest, total = weight[unit * K], cast(0)
                for e in range(unit * K, unit * K + K):
                    largest = max(largest, weight[e])
                for e in range(unit * K, unit * K + K):
                    weight[e] = math.exp(weight[e] - largest)
                    total += weight[e]
                for e in range(unit * K, unit * K + K):
                    weight[e] /= total
            cuda.syncthreads()

    return tabulate
