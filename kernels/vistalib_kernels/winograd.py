"""A 3 x 3 convolution on a CPU with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3), forward and backward.

Sixteen pixels of the output, a tile of 4 x 4, need 6 x 6 of the input. Written as polynomials, the convolution of a row of six
by three weights is a product, which its values at five points and at infinity determine: six multiplications give four sums of
three. In two dimensions 36 give 16 sums of 9, and with many channels each of the 36 is a product of matrices, (T, C) by (C, O).

    U = G weight G^T        V = B^T input B        M[i] = V[i] U[i], i = 1 .. 36        output = A^T M A

The gradient of the input is a convolution, too; that of the weight goes the same way back, dU[i] = V[i]^T (A grad A^T)[i].

Sources: Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016. The points are 0, +-3/4, +-3/2: with the usual 0, +-1, +-2 rounding errors are twice as large. That points
matter so much: Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution" (2020).

Who owns what: a thread owns tiles, as many at a time as the cache holds; of a tile it takes 16 channels at a time in vectors.
Layout: channels last, float32. Letters: N images, H x W pixels, C channels that go in, O that come out, T tiles.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from vistalib_kernels.threads import share

TILE, WINDOW = 4, 3
SIDE = TILE + WINDOW - 1
POINTS = (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2))
LANES = 16  # channels in a vector
CHUNK = 256  # tiles: their V and M lie in a third-level cache, more or less
ENOUGH_CHANNELS, ENOUGH_PIXELS = 64, 2048
FLOAT, INT64 = ir.FloatType(), ir.IntType(64)
Matrix = tuple[tuple[float, ...], ...]


def worthwhile(x: Tensor, weight: Tensor) -> bool:
    """Whether `forward` takes (N, C, H, W) and (O, C, k, k), and is faster than the plain sum: measured from 64 channels on."""
    out, channels, *window = weight.shape
    fits = window == [WINDOW, WINDOW] and out % LANES == channels % LANES == 0 and x.dtype == weight.dtype == torch.float32
    return fits and min(out, channels) >= ENOUGH_CHANNELS and x.shape[0] * x.shape[2] * x.shape[3] >= ENOUGH_PIXELS


def forward(x: Tensor, weight: Tensor) -> Tensor:
    """(N, C, H, W) and (O, C, 3, 3) to (N, O, H, W) in channels-last memory; nothing is checked here."""
    images, height, width, _ = x.permute(0, 2, 3, 1).shape
    output = torch.empty(images, height, width, weight.shape[0])
    shape = (height, width)
    U = _weights(weight)  # (36, C, O)
    source, target, tiles = _flat(x), output.numpy().reshape(-1), images * _tiles(height) * _tiles(width)
    for first, V, M in _chunks(tiles, *U.shape[1:]):
        _split(source, V, shape, SIDE, first)
        torch.bmm(V, U, out=M)
        _join(M, target, shape, first)
    return output.permute(0, 3, 1, 2)


def backward(grad_output: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `x` and `weight`, where `needed`, from that of the output."""
    grad_x = forward(grad_output, weight.flip(2, 3).transpose(0, 1)) if needed[0] else None
    return grad_x, _grad_weight(grad_output, x, weight) if needed[1] else None


def _grad_weight(grad_output: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    images, _, height, width = x.shape
    shape = (height, width)
    source, gradient = _flat(x), _flat(grad_output)
    total = torch.zeros(SIDE * SIDE, weight.shape[1], weight.shape[0])  # (36, C, O)
    for first, V, M in _chunks(images * _tiles(height) * _tiles(width), *total.shape[1:]):
        _split(source, V, shape, SIDE, first)
        _split(gradient, M, shape, TILE, first)
        total.baddbmm_(V.transpose(1, 2), M)
    _, channels, out = total.shape
    gradient = _both_ways().T @ total.flatten(1)  # (9, C*O)
    return gradient.view(WINDOW, WINDOW, channels, out).permute(3, 2, 0, 1).contiguous()  # (O, C, 3, 3)


def _weights(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) to (36, C, O)."""
    out, channels, _, _ = weight.shape
    flat = weight.detach().permute(2, 3, 1, 0).reshape(WINDOW * WINDOW, channels * out)
    return (_both_ways() @ flat).view(-1, channels, out)


def _both_ways() -> Tensor:
    """What G . G^T does to the nine weights of a window, (36, 9)."""
    G = torch.tensor(_G, dtype=torch.float64)
    return torch.kron(G, G).float()


def _tiles(side: int) -> int:
    return -(-side // TILE)


def _flat(x: Tensor) -> Any:
    """(N, C, H, W) as a flat array of channels-last elements."""
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy().reshape(-1)


def _chunks(tiles: int, channels: int, out: int) -> Any:
    """First tile, and where to put V (36, T, C) and M (36, T, O) for the next T tiles, over and over the same memory."""
    space = [torch.empty(SIDE * SIDE * min(CHUNK, tiles) * size) for size in (channels, out)]
    for first in range(0, tiles, CHUNK):
        count = min(CHUNK, tiles - first)
        V, M = (part[: SIDE * SIDE * count * size].view(-1, count, size) for part, size in zip(space, (channels, out)))
        yield first, V, M


def _split(source: Any, tiles: Tensor, shape: tuple[int, int], side: int, first: int) -> None:
    """Cut windows of side x side out of `source` and transform them to `tiles` (36, T, C)."""
    run: Callable[..., None] = _split_inputs if side == SIDE else _split_outputs
    _, count, channels = tiles.shape
    target = tiles.view(-1).numpy()
    share(lambda a, b: run(source, target, *shape, channels, count, first, a, b), count, torch.get_num_threads())


def _join(tiles: Tensor, target: Any, shape: tuple[int, int], first: int) -> None:
    """Transform `tiles` (36, T, O) back to windows of 4 x 4 pixels and lay them out."""
    _, count, channels = tiles.shape
    source = tiles.view(-1).numpy()
    share(lambda a, b: _join_outputs(source, target, *shape, channels, count, first, a, b), count, torch.get_num_threads())


def _matrices() -> tuple[Matrix, Matrix, Matrix]:
    """A^T (4, 6), B^T (6, 6) and G (6, 3) for the points and infinity, by Lagrange's interpolation, in exact fractions."""
    last = len(POINTS)
    A = [[point**i for point in POINTS] + [Fraction(i == TILE - 1)] for i in range(TILE)]
    others = [[q for q in POINTS if q != p] for p in POINTS]
    scale = [reduce(lambda product, q: product * (p - q), rest, Fraction(1)) for p, rest in zip(POINTS, others)]
    G = [[p**i / s for i in range(WINDOW)] for p, s in zip(POINTS, scale)]
    G.append([Fraction(i == WINDOW - 1) for i in range(WINDOW)])
    B = [[*_with_roots(rest), Fraction(0)] for rest in others] + [_with_roots(list(POINTS))]
    assert len(B) == len(G) == last + 1 == SIDE
    return tuple(tuple(tuple(float(x) for x in row) for row in matrix) for matrix in (A, B, G))  # type: ignore[return-value]


def _with_roots(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients, lowest first, of the polynomial with these roots."""
    coefficients = [Fraction(1)]
    for root in roots:
        low, high = [*coefficients, Fraction(0)], [Fraction(0), *coefficients]
        coefficients = [b - root * a for a, b in zip(low, high)]
    return coefficients


def _transform(matrix: Matrix) -> Any:
    """An intrinsic: reads a square of vectors D and writes M D M^T, for all `channels` channels.

    Arguments: an array and the element where the square begins, the steps to the next row and column, all that again for the
    array to write, and the channels.
    """

    def typed(
        typing_context: Any,
        source: Any, at: Any, row: Any, column: Any,
        target: Any, to: Any, target_row: Any, target_column: Any,
        channels: Any,
    ) -> Any:  # fmt: skip
        arguments = (source, at, row, column, target, to, target_row, target_column, channels)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            data = [context.make_array(signature.args[i])(context, builder, values[i]).data for i in (0, 4)]
            _, at, row, column, _, to, target_row, target_column, channels = values
            vector = ir.VectorType(FLOAT, LANES)
            size = len(matrix[0])

            def place(array: ir.Value, begin: ir.Value, steps: tuple[ir.Value, ir.Value], i: int, j: int) -> ir.Value:
                index = builder.add(begin, builder.add(builder.mul(steps[0], INT64(i)), builder.mul(steps[1], INT64(j))))
                return builder.bitcast(builder.gep(array, [index]), vector.as_pointer())

            def weigh(vectors: list[ir.Value]) -> list[ir.Value]:
                return [_sum(builder, row, vectors) for row in matrix]

            with cgutils.for_range_slice(builder, INT64(0), channels, INT64(LANES), INT64) as (channel, _):
                begin, end = builder.add(at, channel), builder.add(to, channel)
                square = [
                    [builder.load(place(data[0], begin, (row, column), i, j), align=4) for i in range(size)]
                    for j in range(size)
                ]  # columns
                half = [weigh(vectors) for vectors in square]  # M D, columns
                for i in range(len(matrix)):
                    for j, result in enumerate(weigh([vectors[i] for vectors in half])):
                        builder.store(result, place(data[1], end, (target_row, target_column), i, j), align=4)
            return context.get_dummy_value()

        return types.void(*arguments), generate

    return intrinsic(typed)


def _sum(builder: Any, factors: tuple[float, ...], vectors: list[ir.Value]) -> ir.Value:
    """The sum of vectors, each times its factor."""
    kind = vectors[0].type
    fused = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.v{LANES}f32"
    )
    total = None
    for factor, part in zip(factors, vectors):
        if factor:
            weight = ir.Constant(kind, [factor] * LANES)
            total = builder.fmul(weight, part) if total is None else builder.call(fused, [weight, part, total])
    return total


_A, _B, _G = _matrices()
_input_tile, _output_tile = _transform(_B), _transform(_A)
_gradient_tile = _transform(tuple(zip(*_A)))


@njit(nogil=True, cache=True)
def _split_inputs(source: Any, target: Any, H: int, W: int, C: int, count: int, first: int, begin: int, end: int) -> None:
    """Windows of 6 x 6 pixels, one around each tile, transformed; zeros outside the image."""
    patch = np.empty(36 * C, np.float32)
    across = (W + 3) // 4
    each = across * ((H + 3) // 4)
    for t in range(begin, end):
        image, tile = (first + t) // each, (first + t) % each
        y, x = tile // across * 4 - 1, tile % across * 4 - 1
        at = ((image * H + y) * W + x) * C
        if y >= 0 and x >= 0 and y + 6 <= H and x + 6 <= W:
            _input_tile(source, at, W * C, C, target, t * C, 6 * count * C, count * C, C)
        else:
            _cut(source, image * H * W * C, y, x, 6, H, W, C, patch)
            _input_tile(patch, 0, 6 * C, C, target, t * C, 6 * count * C, count * C, C)


@njit(nogil=True, cache=True)
def _split_outputs(source: Any, target: Any, H: int, W: int, C: int, count: int, first: int, begin: int, end: int) -> None:
    """The tiles of 4 x 4 pixels themselves, transformed; zeros outside the image."""
    patch = np.empty(16 * C, np.float32)
    across = (W + 3) // 4
    each = across * ((H + 3) // 4)
    for t in range(begin, end):
        image, tile = (first + t) // each, (first + t) % each
        y, x = tile // across * 4, tile % across * 4
        if y + 4 <= H and x + 4 <= W:
            at = ((image * H + y) * W + x) * C
            _gradient_tile(source, at, W * C, C, target, t * C, 6 * count * C, count * C, C)
        else:
            _cut(source, image * H * W * C, y, x, 4, H, W, C, patch)
            _gradient_tile(patch, 0, 4 * C, C, target, t * C, 6 * count * C, count * C, C)


@njit(nogil=True, cache=True)
def _join_outputs(source: Any, target: Any, H: int, W: int, C: int, count: int, first: int, begin: int, end: int) -> None:
    """The tiles of 4 x 4 pixels from what the products gave; what lies outside the image is left out."""
    patch = np.empty(16 * C, np.float32)
    across = (W + 3) // 4
    each = across * ((H + 3) // 4)
    for t in range(begin, end):
        image, tile = (first + t) // each, (first + t) % each
        y, x = tile // across * 4, tile % across * 4
        at = ((image * H + y) * W + x) * C
        if y + 4 <= H and x + 4 <= W:
            _output_tile(source, t * C, 6 * count * C, count * C, target, at, W * C, C, C)
        else:
            _output_tile(source, t * C, 6 * count * C, count * C, patch, 0, 4 * C, C, C)
            for i in range(min(4, H - y)):
                pixels = min(4, W - x) * C
                row = at + i * W * C
                target[row : row + pixels] = patch[4 * i * C : 4 * i * C + pixels]


@njit(nogil=True, cache=True)
def _cut(source: Any, image: int, y: int, x: int, side: int, H: int, W: int, C: int, patch: Any) -> None:
    """A window of side x side pixels, zero where it leaves the image."""
    patch[:] = 0
    left, right = max(0, -x), min(side, W - x)
    for i in range(max(0, -y), min(side, H - y)):
        row = image + ((y + i) * W + x) * C
        patch[(i * side + left) * C : (i * side + right) * C] = source[row + left * C : row + right * C]
