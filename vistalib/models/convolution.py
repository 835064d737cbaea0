"""The convolution of the heads: of maps laid side by side, each resized to the first, without making that large tensor.

A convolution is linear in the channels that it reads, so that of a concatenation is the sum of one for each part. And a part
that was resized need not be large for it: products with the channels, one for each point of the window, commute with resizing,
which leaves channels alone. So a coarse map is multiplied where it is small; what comes out is resized, shifted, added, which
costs little. For a pyramid of four maps that is a third of the multiply-adds, and the same sum, rounded otherwise. Where all
maps are small there is little to spare, and the plain way is taken.

Letters: N images, C channels that go in, O that come out, k x k window, H x W pixels of the first map, h x w of a coarser one.
"""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vistalib.ops.convolution import same_convolution

BAND = 16  # rows
# Measured on two cores, with 64 and 512 channels:
WORTHWHILE = 1 << 28  # multiply-adds that are spared, with fewer the plain way is quicker
DENSE = 1 << 20  # multiply-adds for a row, with fewer it is quicker to make them than to go past the zeros


class Conv(nn.Conv2d):
    """A k x k convolution that keeps the size, without bias; of one map or of several, resized to the first one's size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """(N, C, H, W), or maps (N, C_i, H_i, W_i) whose channels add up to C, to (N, O, H_0, W_0)."""
        return self.with_weight(self.weight, maps)

    def with_weight(self, weight: Tensor, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """`forward` with another `weight` (O, C, k, k)."""
        maps = (maps,) if isinstance(maps, Tensor) else maps
        finest, *coarser = maps
        spared = sum(x.shape[1] for x in coarser) * weight[:, 0].numel() * finest[:, 0].numel()
        plain = written_out(finest) or torch.is_autocast_enabled("cpu")
        if plain or spared < WORTHWHILE:
            whole = torch.cat([finest, *(resize(x, side(finest)) for x in coarser)], dim=1) if coarser else finest
            if not plain:
                return same_convolution(whole, weight)
            return nn.functional.conv2d(whole, weight, padding=weight.shape[-1] // 2)  # (N, O, H, W)
        first, *others = torch.split(weight, [x.shape[1] for x in maps], dim=1)  # (O, C_i, k, k)
        total = same_convolution(finest, first).permute(0, 2, 3, 1)  # (N, H, W, O)
        if coarser:
            parts = [_Coarse(x, weight, side(finest)) for x, weight in zip(coarser, others, strict=True)]
            bands = [_add(band, parts, i * BAND) for i, band in enumerate(torch.split(total, BAND, dim=1))]
            total = total if lean(finest) else torch.cat(bands, dim=1)
        return total.permute(0, 3, 1, 2)  # (N, O, H, W)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with `align_corners=False`: (N, C, H, W) to (N, C, *size), in channels-last memory."""
    x = nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    # A 1x1 map has no layout to keep: without this, its resized map and all that it is concatenated with would lose theirs.
    return x.contiguous(memory_format=torch.channels_last)


def side(x: Tensor) -> tuple[int, int]:
    """Height and width of a map."""
    return x.shape[2], x.shape[3]


def written_out(x: Tensor) -> bool:
    """Whether to compute by the definition: off CPUs, and where a compiler reads the model or only its shapes are asked for."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def lean(x: Tensor) -> bool:
    """Whether to go the same sums in ways that spare memory and leave nothing to autograd: where nobody asks for a gradient."""
    return not (written_out(x) or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))


class _Coarse:
    """The convolution of `x` (N, C, h, w), resized to `size` H x W, with `weight` (O, C, k, k), by bands of rows.

    In bands, since what a coarse map is multiplied to has k*k times its pixels. Most weights of `columns` are zero: row by row
    they are passed over, but where the map is narrow all rows are multiplied in one call, zeros and all.
    """

    def __init__(self, x: Tensor, weight: Tensor, size: tuple[int, int]) -> None:
        self.x, self.window, self.height = x, weight.shape[-1], size[0]
        self.taps = weight.permute(2, 3, 0, 1).flatten(1, 2).mT  # (k, C, k*O)
        self.rows = _resized_windows(x.shape[2], size[0], self.window, x)  # (H, h, k)
        self.columns = _resized_windows(x.shape[3], size[1], self.window, x).flatten(1)  # (W, w*k)
        self.narrow = self.columns.numel() * weight.shape[0] <= DENSE

    @cached_property
    def sparse(self) -> Tensor:
        """`columns` without its zeros."""
        return _sparse(self.columns)

    @cached_property
    def sparse_back(self) -> Tensor:
        """The transpose of `sparse`, (w*k, W), which only a backward pass needs."""
        return _sparse(self.columns.T)

    def part(self, first: int, height: int) -> Tensor:
        """What the rows first .. first + B - 1 of the convolution are made of before columns are resized: (N*B, w*k, O)."""
        near = self._read(first, first + height)
        x, rows = self.x[:, :, near], self.rows[first : first + height, near].transpose(1, 2).flatten(1)  # (B, k*h)
        part = x.permute(0, 2, 3, 1).flatten(1, 2)[:, None] @ self.taps  # (N, k, h*w, k*O)
        part = rows.expand(len(x), -1, -1) @ part.view(len(x), rows.shape[1], -1)  # (N, B, w*k*O)
        return part.view(len(x) * height, self.columns.shape[1], -1)

    def _read(self, first: int, last: int) -> slice:
        """The rows of `x` that rows first .. last - 1 are made of, with a window's reach around."""
        low, reach = self.x.shape[2], self.window // 2

        def above(y: int) -> int:
            """The upper of the two rows between which row y of the resized map lies: floor((y + 1/2) h / H - 1/2)."""
            return ((2 * y + 1) * low - self.height) // (2 * self.height)

        return slice(max(0, min(low - 1, above(first - reach))), min(low, above(last - 1 + reach) + 2))


def _add(band: Tensor, coarser: Sequence[_Coarse], first: int) -> Tensor:
    """`band` (N, B, W, O), the rows from `first` on, with these rows of every convolution; in place if there is no gradient."""
    for coarse in coarser:
        part = coarse.part(first, band.shape[1])  # (N*B, w*k, O)
        if coarse.narrow:
            products = torch.bmm(coarse.columns.expand(len(part), -1, -1), part).view_as(band)
            band = band.add_(products) if lean(band) else band + products
        elif lean(band):
            _add_products(band, coarse.sparse, part, out=band)
        else:
            band = _Added.apply(band, coarse, part)  # type: ignore[no-untyped-call]  # of torch
    return band


class _Added(torch.autograd.Function):
    """Columns resized and added, for autograd, which knows neither sparse matrices nor a band that others have a share in."""

    @staticmethod
    def forward(ctx: Any, band: Tensor, coarse: _Coarse, part: Tensor) -> Tensor:
        ctx.coarse = coarse
        added = torch.empty_like(band)
        _add_products(band, coarse.sparse, part, out=added)
        return added

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        rows, back = gradient.flatten(0, 1), ctx.coarse.sparse_back  # (N*B, W, O), (w*k, W)
        part = gradient.new_zeros(len(rows), len(back), rows.shape[2])
        _add_products(part[None], back, rows, out=part[None])
        return gradient, None, part


def _add_products(band: Tensor, matrix: Tensor, parts: Tensor, *, out: Tensor) -> None:
    """Put rows (W, O) of `band` (N, B, W, O), plus products of `matrix` with each row's part of (N*B, V, O), into `out`."""
    before, after = ([row for image in x for row in image] for x in (band, out))
    for row, part, sum_ in zip(before, parts, after, strict=True):
        torch.addmm(row, matrix, part, out=sum_)


def _sparse(matrix: Tensor) -> Tensor:
    """A matrix with few numbers in a row, in compressed rows."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch says that this format may change
        return matrix.to_sparse_csr()


def interpolation(before: int, after: int, *, like: Tensor) -> Tensor:
    """What each of `before` pixels in a row counts in each of `after` when the row is resized, (after, before)."""
    each = torch.eye(before, dtype=like.dtype, device=like.device)[None]  # (1, before, before)
    return nn.functional.interpolate(each, size=after, mode="linear", align_corners=False)[0].T


def _resized_windows(before: int, after: int, window: int, like: Tensor) -> Tensor:
    """What each of `before` pixels counts in each of `window` points around each of `after` pixels, (after, before, window).

    Outside there is nothing: the row of a point beyond the edge is zero.
    """
    weights = nn.functional.pad(interpolation(before, after, like=like), (0, 0, window // 2, window // 2))
    return weights.unfold(0, window, 1)  # (after, before, window)
