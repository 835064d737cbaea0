"""The cross-entropy of logits resized to the size of the label, on a CPU: in tiles of the label, each made, used and forgotten.

Logits at label size are large, 300 MB for 150 classes on 512 x 1024 pixels, and autograd keeps three such tensors. Their only
use is a few numbers, so they come and go a tile at a time: two products with small matrices resize the logits around it, and
the same two transposed bring its gradient back to their size. A tile is (B, N, K, V): pixels of a row lie side by side, so that
maxima, powers and sums over classes are vector instructions, and rows lie farthest apart, so that each product is a single one.

Letters: N images, K classes, h x w logits, H x W labels; a tile has B x V of their pixels, made of b x v logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vistalib.models import convolution

IGNORE_INDEX = 255
TILE = 1 << 20  # logits: 4 MB, which a dozen passes find in the cache
WIDTH = 128  # pixels: the products cost as many multiply-adds a pixel as a tile is made of columns


class SummedEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of (N, K, h, w) for a label (N, H, W), and how many pixels' most likely class is right.

    The gradient is made on the way.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(_wide(logits))
        total, right = gradient.new_zeros(()), torch.zeros((), dtype=torch.int64)
        with torch.autocast("cpu", enabled=False):
            for tile in _tiles(logits, label):
                pixels = _Pixels(tile.resized(logits), tile.of(label))
                total += pixels.entropy().sum()
                right += pixels.right
                if ctx.needs_input_grad[0]:
                    tile.add_back(pixels.gradient(pixels.labelled), gradient)
        ctx.save_for_backward(gradient.to(logits.dtype))
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_total, None


class PixelEntropy(torch.autograd.Function):
    """The cross-entropy of each pixel (N, H, W), the probability of each class over labelled ones (K,), how many are right.

    Each tile is made a second time for its gradient, which depends on all pixels. Without `with_mass` the second is zero.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, with_mass: bool) -> tuple[Tensor, Tensor, Tensor]:
        entropy, mass = (_wide(logits).new_zeros(size) for size in (label.shape, logits.shape[1]))
        right = torch.zeros((), dtype=torch.int64)
        with torch.autocast("cpu", enabled=False):
            for tile in _tiles(logits, label):
                pixels = _Pixels(tile.resized(logits), tile.of(label))
                tile.of(entropy).copy_(pixels.entropy())
                right += pixels.right
                if with_mass:
                    mass += torch.einsum("bnkv,bnv->k", pixels.powers, pixels.labelled / pixels.sums)
        ctx.save_for_backward(logits, label)
        ctx.mark_non_differentiable(right)
        return entropy, mass, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_entropy: Tensor, grad_mass: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logits, label = ctx.saved_tensors
        gradient = torch.zeros_like(_wide(logits))
        with torch.autocast("cpu", enabled=False):
            for tile in _tiles(logits, label):
                pixels = _Pixels(tile.resized(logits), tile.of(label))
                along = torch.einsum("bnkv,k->bnv", pixels.powers, grad_mass) / pixels.sums
                of_mass = pixels.powers * (grad_mass[:, None] - along[:, :, None])
                of_mass *= (pixels.labelled / pixels.sums)[:, :, None]
                tile.add_back(pixels.gradient(tile.of(grad_entropy) * pixels.labelled).add_(of_mass), gradient)
        return gradient.to(logits.dtype), None, None


class _Pixels:
    """The pixels of a tile: their logits (B, N, K, V), which are used up, and their label (B, N, V)."""

    def __init__(self, logits: Tensor, label: Tensor) -> None:
        below = logits.sub_(logits.amax(2, keepdim=True))  # the largest of the pixel
        self.known = label != IGNORE_INDEX
        self.labelled = self.known.to(logits.dtype)  # (B, N, V)
        self.true = torch.where(self.known, label, 0)[:, :, None]  # (B, N, 1, V)
        self.margin = below.gather(2, self.true)[:, :, 0]  # (B, N, V), of the true class
        highest = self.margin == 0
        if below.numel() - int(torch.count_nonzero(below)) != label.numel():  # some have several that are largest
            highest = below.max(2).indices == self.true[:, :, 0]  # the first
        self.right = (highest & self.known).sum()
        self.powers = below.exp_()
        self.sums = self.powers.sum(2)  # (B, N, V)

    def entropy(self) -> Tensor:
        """(B, N, V), zero where there is no label."""
        return (self.sums.log() - self.margin) * self.labelled

    def gradient(self, weight: Tensor) -> Tensor:
        """That of the sum of `weight` (B, N, V) times the cross-entropies, (B, N, K, V), in place of the powers."""
        share = self.powers.mul_((weight / self.sums)[:, :, None])
        return share.scatter_add_(2, self.true, -weight[:, :, None])


@dataclass(frozen=True)
class _Tile:
    """Where a tile lies in the label, which logits it is made of, and what each of them counts in its rows and columns."""

    place: tuple[slice, slice]
    near: tuple[slice, slice]
    down: Tensor  # (B, b)
    across: Tensor  # (v, V)

    def of(self, x: Tensor) -> Tensor:
        """Its part of (N, H, W), as (B, N, V)."""
        return x[:, *self.place].transpose(0, 1)

    def resized(self, logits: Tensor) -> Tensor:
        """(N, K, h, w) to (B, N, K, V)."""
        near = _wide(logits[:, :, *self.near]).permute(2, 0, 1, 3)  # (b, N, K, v)
        wide = near.reshape(-1, near.shape[3]) @ self.across  # (b*N*K, V)
        return (self.down @ wide.view(len(near), -1)).view(-1, *near.shape[1:3], self.across.shape[1])

    def add_back(self, gradient: Tensor, total: Tensor) -> None:
        """Add what (B, N, K, V) is of logits to `total` (N, K, h, w)."""
        rows, images, classes, columns = gradient.shape
        narrow = gradient.view(-1, columns) @ self.across.T  # (B*N*K, v)
        near = self.down.T @ narrow.view(rows, -1)  # (b, N*K*v)
        total[:, :, *self.near] += near.view(len(near), images, classes, -1).permute(1, 2, 0, 3)


def _tiles(logits: Tensor, label: Tensor) -> Iterator[_Tile]:
    (images, classes, *low), (_, *high) = logits.shape, label.shape
    down, across = (
        convolution.interpolation(before, after, like=_wide(logits[:0])) for before, after in zip(low, high, strict=True)
    )
    columns = [_span(across, first, WIDTH) for first in range(0, high[1], WIDTH)]
    step = max(1, TILE // (images * classes * min(high[1], WIDTH)))
    for rows, near_rows, count_rows in (_span(down, first, step) for first in range(0, high[0], step)):
        for place, near, count in columns:
            yield _Tile((rows, place), (near_rows, near), count_rows, count.T.contiguous())


def _span(matrix: Tensor, first: int, length: int) -> tuple[slice, slice, Tensor]:
    """`length` pixels from `first` on, the logits that they are made of, and the part of `matrix` that makes them."""
    part = matrix[first : first + length]
    touched = part.any(0).nonzero()
    near = slice(int(touched[0]), int(touched[-1]) + 1)
    return slice(first, first + len(part)), near, part[:, near].contiguous()


def _wide(logits: Tensor) -> Tensor:
    """As float32, or float64 where that is what comes."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
