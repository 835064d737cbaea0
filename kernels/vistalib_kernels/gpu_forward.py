"""The forward kernels of DCNv3 on a GPU, each a step further than the one before.

naive    a thread owns one number of the output. It works out every location and every weight again that the other D - 1
         threads of its unit work out too; neighbouring threads read neighbouring channels.
shared   a block first writes all its points into a table in shared memory, each worked out once; then a thread owns one number.
vector   the same table; then a thread owns the 16 bytes of channels that one instruction reads: a corner costs one load for
         8 channels of 16 bits instead of 8 loads.

Arrays are flat. Letters and the two tuples of numbers: see gpu_parts.py.
"""

from typing import Any

from numba import cuda, types

from vistalib_kernels.gpu_numbers import device
from vistalib_kernels.gpu_parts import THREADS, Build, make_parts


def naive(b: Build) -> tuple[Any, int]:
    """The kernel, and how many units a block takes; 0 where a thread owns one number."""
    get, put, _, _, locate, normaliser, weight, _ = make_parts(b)
    D, K, cast = b.channels, b.points, b.cast
    one = cast(1)

    @cuda.jit
    def dcnv3_forward_naive(value, offset, mask, output, sizes, stretch):  # type: ignore[no-untyped-def]
        H, W, P, Q, G = sizes
        i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if i < output.size:
            unit = i // D
            pixel = unit // G
            line = W * G * D
            first = pixel // (P * Q) * H * line + (unit % G) * D + i % D
            largest, share = normaliser(mask, unit)
            total = cast(0)
            for point in range(unit * K, unit * K + K):
                cell, inside, x, y = locate(offset, point, pixel // Q % P, pixel % Q, sizes, stretch)
                at = first + cell * (G * D)
                found = cast(0)
                if inside & 1:
                    found += (one - y) * (one - x) * get(value, at)
                if inside & 2:
                    found += (one - y) * x * get(value, at + G * D)
                if inside & 4:
                    found += y * (one - x) * get(value, at + line)
                if inside & 8:
                    found += y * x * get(value, at + line + G * D)
                total += weight(mask, point, largest, share) * found
            put(output, i, total)

    return dcnv3_forward_naive, 0


def shared(b: Build) -> tuple[Any, int]:
    """The kernel, and how many units a block takes."""
    parts = make_parts(b)
    get, put, tabulate = parts.get, parts.put, parts.tabulate
    D, K, cast, real = b.channels, b.points, b.cast, b.real
    UNITS = b.units(D)
    ROWS = UNITS * K
    one, int32 = cast(1), types.int32

    @cuda.jit
    def dcnv3_forward_shared(value, offset, mask, output, sizes, stretch):  # type: ignore[no-untyped-def]
        H, W, P, Q, G = sizes
        cell = cuda.shared.array(ROWS, int32)
        inside = cuda.shared.array(ROWS, int32)
        x = cuda.shared.array(ROWS, real)
        y = cuda.shared.array(ROWS, real)
        weight = cuda.shared.array(ROWS, real)
        first = cuda.blockIdx.x * UNITS
        units = min(UNITS, output.size // D - first)
        tabulate(offset, mask, (cell, inside, x, y, weight), first, units, sizes, stretch)

        line = W * G * D
        for i in range(cuda.threadIdx.x, units * D, THREADS):
            unit = first + i // D
            start = unit // (G * P * Q) * H * line + (unit % G) * D + i % D
            total = cast(0)
            for e in range(i // D * K, i // D * K + K):
                at = start + cell[e] * (G * D)
                up, down = weight[e] * (one - y[e]), weight[e] * y[e]
                if inside[e] & 1:
                    total += up * (one - x[e]) * get(value, at)
                if inside[e] & 2:
                    total += up * x[e] * get(value, at + G * D)
                if inside[e] & 4:
                    total += down * (one - x[e]) * get(value, at + line)
                if inside[e] & 8:
                    total += down * x[e] * get(value, at + line + G * D)
            put(output, first * D + i, total)

    return dcnv3_forward_shared, UNITS


def vector(b: Build) -> tuple[Any, int]:
    """The kernel, and how many units a block takes. D must be a multiple of `b.vector`."""
    parts = make_parts(b)
    get, put, load16, store16, tabulate = parts.get, parts.put, parts.load16, parts.store16, parts.tabulate
    D, K, V, cast, real, stored = b.channels, b.points, b.vector, b.cast, b.real, b.stored
    LANES = D // V
    UNITS = b.units(LANES)
    ROWS = UNITS * K
    one, int32 = cast(1), types.int32

    @device
    def add(value, at, share, sums):  # type: ignore[no-untyped-def]
        found = cuda.local.array(V, stored)
        load16(value, at, found)
        for j in range(V):
            sums[j] += share * get(found, j)

    @cuda.jit
    def dcnv3_forward_vector(value, offset, mask, output, sizes, stretch):  # type: ignore[no-untyped-def]
        H, W, P, Q, G = sizes
        cell = cuda.shared.array(ROWS, int32)
        inside = cuda.shared.array(ROWS, int32)
        x = cuda.shared.array(ROWS, real)
        y = cuda.shared.array(ROWS, real)
        weight = cuda.shared.array(ROWS, real)
        first = cuda.blockIdx.x * UNITS
        units = min(UNITS, output.size // D - first)
        tabulate(offset, mask, (cell, inside, x, y, weight), first, units, sizes, stretch)

        line = W * G * D
        sums, rounded = cuda.local.array(V, real), cuda.local.array(V, stored)
        for i in range(cuda.threadIdx.x, units * LANES, THREADS):
            unit = first + i // LANES
            start = unit // (G * P * Q) * H * line + (unit % G) * D + i % LANES * V
            for j in range(V):
                sums[j] = cast(0)
            for e in range(i // LANES * K, i // LANES * K + K):
                at = start + cell[e] * (G * D)
                up, down = weight[e] * (one - y[e]), weight[e] * y[e]
                if inside[e] & 1:
                    add(value, at, up * (one - x[e]), sums)
                if inside[e] & 2:
                    add(value, at + G * D, up * x[e], sums)
                if inside[e] & 4:
                    add(value, at + line, down * (one - x[e]), sums)
                if inside[e] & 8:
                    add(value, at + line + G * D, down * x[e], sums)
            for j in range(V):
                put(rounded, j, sums[j])
            store16(output, (first * LANES + i) * V, rounded)

    return dcnv3_forward_vector, UNITS
