"""The convolution of the heads: of maps laid side by side, each resized to the first, without making that large tensor.

A convolution is linear in the channels that it reads, so that of a concatenation is the sum of one for each part. And a part
that was resized need not be large for it: products with the channels, one for each point of the window, commute with resizing,
which leaves channels alone. So a coarse map is multiplied where it is small; what comes out is resized, shifted, added, which
costs little. For a pyramid of four maps that is a third of the multiply-adds, and the same sum, rounded otherwise.

Letters: N images, C channels that go in, O that come out, k x k window, H x W pixels of the first map, h x w of a coarser one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vistalib.ops.convolution import same_convolution


class Conv(nn.Conv2d):
    """A k x k convolution that keeps the size, without bias; of one map or of several, resized to the first one's size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """(N, C, H, W), or maps (N, C_i, H_i, W_i) whose channels add up to C, to (N, O, H_0, W_0)."""
        maps = (maps,) if isinstance(maps, Tensor) else maps
        finest, *coarser = maps
        if written_out(finest):
            whole = torch.cat([finest, *(resize(x, side(finest)) for x in coarser)], dim=1) if coarser else finest
            return super().forward(whole)  # (N, O, H, W)
        first, *others = torch.split(self.weight, [x.shape[1] for x in maps], dim=1)  # (O, C_i, k, k)
        total = same_convolution(finest, first).permute(0, 2, 3, 1)  # (N, H, W, O)
        for x, weight in zip(coarser, others, strict=True):
            total = _add_coarse(total, x, weight)
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
    """Whether to compute by the definition: off CPUs, and where the model is exported or only its shapes are asked for."""
    return x.device.type != "cpu" or torch.compiler.is_exporting()


def _add_coarse(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`total` (N, H, W, O) and the convolution of `x` (N, C, h, w), resized to H x W, with `weight` (O, C, k, k)."""
    (images, height, width, out), (_, _, low, narrow), window = total.shape, x.shape, weight.shape[-1]
    taps = weight.permute(2, 1, 3, 0).flatten(2)  # (k, C, k*O)
    part = x.permute(0, 2, 3, 1).flatten(1, 2)[:, None] @ taps  # (N, k, h*w, k*O)
    rows = _resized_windows(low, height, window, x).transpose(1, 2).flatten(1)  # (H, k*h)
    part = rows.expand(images, -1, -1) @ part.view(images, window * low, -1)  # (N, H, w*k*O)
    columns = _resized_windows(narrow, width, window, x).flatten(1)  # (W, w*k)
    columns = columns.expand(images * height, -1, -1)
    part = part.view(images * height, narrow * window, out)
    return torch.baddbmm(total.reshape(-1, width, out), columns, part).view_as(total)


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
