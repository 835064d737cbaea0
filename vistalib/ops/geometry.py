"""Sizes that the operator's arguments imply.

Letters: N images, H x W input, P x Q output, C channels, G groups, D = C / G group channels, K kernel points.
"""

from collections.abc import Sequence
from numbers import Integral

Pair = int | tuple[int, int]  # one number for both directions, or (height, width)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """`size` as (height, width); one number stands for both. Raises `ValueError` for anything else."""
    sizes = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sizes) != 2 or not all(isinstance(one, Integral) for one in sizes):
        raise ValueError(f"a size must be one int or a pair (height, width), got {size}; pass one or two whole numbers")
    return int(sizes[0]), int(sizes[1])


def output_size(
    height: int, width: int, *, kernel_size: Pair = 3, stride: Pair = 1, padding: Pair = 1, dilation: Pair = 1
) -> tuple[int, int]:
    """Output height and width (P, Q) for an input of `height` x `width` pixels, as for an ordinary convolution."""
    kernel_size, stride, padding, dilation = pair(kernel_size), pair(stride), pair(padding), pair(dilation)
    rows, columns = (
        (size + 2 * padding[axis] - dilation[axis] * (kernel_size[axis] - 1) - 1) // stride[axis] + 1
        for axis, size in enumerate((height, width))
    )
    return rows, columns
