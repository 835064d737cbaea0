"""The backward kernels of DCNv3 on a GPU, each a step further than the one before.

Everything follows from four numbers a point: how much each corner's channels agree with the gradient, their dot products. The
gradient of the weight is their bilinear mean, those of the location are their differences. The gradient of value goes the way
back to the corners, where pixels meet: it is added up by atomics, in an order, and so in last bits, that no run repeats.

naive    a thread owns a unit, all of it. No thread waits for another, and no memory access is shared with a neighbour.
shared   the table of points in shared memory, the gradient of the output beside it. Then a thread owns a point: its four dot
         products need no other thread. Then a thread owns a channel and adds to the corners; neighbours add side by side.
vector   the same with corners read 16 bytes at a time.

`grad_value` has the real type, zeros at first; the other gradients are written once, in the dtype of their tensors.
"""

from typing import Any

from numba import cuda, types

from vistalib_kernels.gpu_numbers import device
from vistalib_kernels.gpu_parts import THREADS, Build, make_parts


def naive(b: Build) -> tuple[Any, int]:
    """The kernel, and how many units a block takes."""
    get, put, _, _, locate, normaliser, weight, _ = make_parts(b)
    D, K, logits, cast, real = b.channels, b.points, b.logits, b.cast, b.real
    one = cast(1)

    @cuda.jit
    def dcnv3_backward_naive(  # type: ignore[no-untyped-def]
        grad_output, value, offset, mask, grad_value, grad_offset, grad_mask, sizes, stretch
    ):
        H, W, P, Q, G = sizes
        unit = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if unit < grad_output.size // D:
            pixel = unit // G
            line = W * G * D
            first = pixel // (P * Q) * H * line + (unit % G) * D
            largest, share = normaliser(mask, unit)
            along = cuda.local.array(K, real)
            mean = cast(0)
            for k in range(K):
                point = unit * K + k
                cell, inside, x, y = locate(offset, point, pixel // Q % P, pixel % Q, sizes, stretch)
                amount = weight(mask, point, largest, share)
                at = first + cell * (G * D)
                top_left, top_right, bottom_left, bottom_right = cast(0), cast(0), cast(0), cast(0)
                for d in range(D):
                    gradient = get(grad_output, unit * D + d)
                    back = amount * gradient
                    if inside & 1:
                        top_left += gradient * get(value, at + d)
                        cuda.atomic.add(grad_value, at + d, (one - y) * (one - x) * back)
                    if inside & 2:
                        top_right += gradient * get(value, at + G * D + d)
                        cuda.atomic.add(grad_value, at + G * D + d, (one - y) * x * back)
                    if inside & 4:
                        bottom_left += gradient * get(value, at + line + d)
                        cuda.atomic.add(grad_value, at + line + d, y * (one - x) * back)
                    if inside & 8:
                        bottom_right += gradient * get(value, at + line + G * D + d)
                        cuda.atomic.add(grad_value, at + line + G * D + d, y * x * back)
                to_right = (one - y) * (top_right - top_left) + y * (bottom_right - bottom_left)
                below = (one - x) * (bottom_left - top_left) + x * (bottom_right - top_right)
                put(grad_offset, 2 * point, stretch[0] * amount * to_right)
                put(grad_offset, 2 * point + 1, stretch[0] * amount * below)
                top, bottom = (one - x) * top_left + x * top_right, (one - x) * bottom_left + x * bottom_right
                along[k] = (one - y) * top + y * bottom
                mean += amount * along[k]
            for k in range(K):
                gradient = along[k]
                if logits:
                    gradient = weight(mask, unit * K + k, largest, share) * (gradient - mean)
                put(grad_mask, unit * K + k, gradient)

    return dcnv3_backward_naive, THREADS


def shared(b: Build) -> tuple[Any, int]:
    """The kernel, and how many units a block takes."""
    get = make_parts(b).get
    D, cast = b.channels, b.cast

    @device
    def dot(value, at, gradient, start):  # type: ignore[no-untyped-def]
        total = cast(0)
        for d in range(D):
            total += gradient[start + d] * get(value, at + d)
        return total

    return _by_table(b, dot)


def vector(b: Build) -> tuple[Any, int]:
    """The kernel, and how many units a block takes. D must be a multiple of `b.vector`."""
    parts = make_parts(b)
    get, load16 = parts.get, parts.load16
    D, V, cast, stored = b.channels, b.vector, b.cast, b.stored

    @device
    def dot(value, at, gradient, start):  # type: ignore[no-untyped-def]
        found = cuda.local.array(V, stored)
        total = cast(0)
        for d in range(0, D, V):
            load16(value, at + d, found)
            for j in range(V):
                total += gradient[start + d + j] * get(found, j)
        return total

    return _by_table(b, dot)


def _by_table(b: Build, dot: Any) -> tuple[Any, int]:
    """The kernel with a table; dot(value, at, gradient, start) is a corner's dot product with the unit's gradient."""
    parts = make_parts(b)
    get, put, tabulate = parts.get, parts.put, parts.tabulate
    D, K, logits, cast, real = b.channels, b.points, b.logits, b.cast, b.real
    UNITS = b.units(min(D, THREADS), extra=D)
    ROWS, CHANNELS = UNITS * K, UNITS * D
    one, int32 = cast(1), types.int32

    @cuda.jit
    def dcnv3_backward(  # type: ignore[no-untyped-def]
        grad_output, value, offset, mask, grad_value, grad_offset, grad_mask, sizes, stretch
    ):
        H, W, P, Q, G = sizes
        cell = cuda.shared.array(ROWS, int32)
        inside = cuda.shared.array(ROWS, int32)
        x = cuda.shared.array(ROWS, real)
        y = cuda.shared.array(ROWS, real)
        weight = cuda.shared.array(ROWS, real)
        along = cuda.shared.array(ROWS, real)
        gradient = cuda.shared.array(CHANNELS, real)
        first = cuda.blockIdx.x * UNITS
        units = min(UNITS, grad_output.size // D - first)
        for i in range(cuda.threadIdx.x, units * D, THREADS):
            gradient[i] = get(grad_output, first * D + i)
        tabulate(offset, mask, (cell, inside, x, y, weight), first, units, sizes, stretch)

        # A thread owns a point: its four dot products, and with them the gradients of its offset and of its weight.
        line = W * G * D
        for e in range(cuda.threadIdx.x, units * K, THREADS):
            unit = first + e // K
            at = unit // (G * P * Q) * H * line + (unit % G) * D + cell[e] * (G * D)
            top_left, top_right, bottom_left, bottom_right = cast(0), cast(0), cast(0), cast(0)
            start = e // K * D
            if inside[e] & 1:
                top_left = dot(value, at, gradient, start)
            if inside[e] & 2:
                top_right = dot(value, at + G * D, gradient, start)
            if inside[e] & 4:
                bottom_left = dot(value, at + line, gradient, start)
            if inside[e] & 8:
                bottom_right = dot(value, at + line + G * D, gradient, start)
            to_right = (one - y[e]) * (top_right - top_left) + y[e] * (bottom_right - bottom_left)
            below = (one - x[e]) * (bottom_left - top_left) + x[e] * (bottom_right - top_right)
            point = first * K + e
            put(grad_offset, 2 * point, stretch[0] * weight[e] * to_right)
            put(grad_offset, 2 * point + 1, stretch[0] * weight[e] * below)
            top, bottom = (one - x[e]) * top_left + x[e] * top_right, (one - x[e]) * bottom_left + x[e] * bottom_right
            along[e] = (one - y[e]) * top + y[e] * bottom
        cuda.syncthreads()

        # Through the softmax, which needs all points of a unit.
        for e in range(cuda.threadIdx.x, units * K, THREADS):
            number = along[e]
            if logits:
                mean = cast(0)
                for other in range(e // K * K, e // K * K + K):
                    mean += weight[other] * along[other]
                number = weight[e] * (number - mean)
            put(grad_mask, first * K + e, number)

        # A thread owns a channel of a unit and gives each corner its share.
        for i in range(cuda.threadIdx.x, units * D, THREADS):
            unit = first + i // D
            start = unit // (G * P * Q) * H * line + (unit % G) * D + i % D
            for e in range(i // D * K, i // D * K + K):
                at = start + cell[e] * (G * D)
                up, down = weight[e] * (one - y[e]) * gradient[i], weight[e] * y[e] * gradient[i]
                if inside[e] & 1:
                    cuda.atomic.add(grad_value, at, up * (one - x[e]))
                if inside[e] & 2:
                    cuda.atomic.add(grad_value, at + G * D, up * x[e])
                if inside[e] & 4:
                    cuda.atomic.add(grad_value, at + line, down * (one - x[e]))
                if inside[e] & 8:
                    cuda.atomic.add(grad_value, at + line + G * D, down * x[e])

    return dcnv3_backward, UNITS
