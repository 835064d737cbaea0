"""DCNv3 on a CPU by Numba: forward and backward in float32 and float64, bfloat16 and float16 by way of float32.

Who owns what. Forward: a thread owns rows of output pixels and writes nothing else. Backward: a thread owns groups of images,
and with them their channels of `grad_value`, so that no two threads ever add to one number. Every sum is taken by one thread
in one order: the bits do not depend on how many threads there are.

Phases, for a tile of neighbouring output pixels that fits into the first-level cache:
  1. locate: sampling locations, as top left corner, distance from it, and one bit for each corner inside the image;
  2. softmax of the mask, or the mask as it is;
  3. weigh and add, or its backward, one pixel and group at a time, vectors over the channels.
The first two are in tile.py, the third in simd.py. The number of channels in a group is a constant of the compiled code.

Layout: channels last, all arrays flat. Letters: N images, H x W input, P x Q output, C channels, G groups, D = C / G, K points.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Lock, Timer
from typing import Any

import numpy as np
import torch
from numba import njit, types
from torch import Tensor

from vistalib_kernels.simd import weigh_and_add, weigh_and_add_backward
from vistalib_kernels.threads import share
from vistalib_kernels.tile import copy, locate, scratch, softmax, softmax_backward

ALONE = 1 << 19  # channel samples, below which a second thread costs more than it saves
PATIENCE = 1.0  # seconds of compiling before saying so

# Numba's cache on disk looks at the file of the compiled function alone; this makes the others part of its key.
_EDITION = sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in ("simd.py", "tile.py"))).hexdigest()
_lock = Lock()


def forward(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    offset_scale: float,
    mask_is_logits: bool,
) -> Tensor:
    """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C) in the dtype of `value`.

    The arguments must fit together: nothing is checked here. Pairs are (height, width).
    """
    sizes = _sizes(value, offset, groups, kernel_size, stride, padding, dilation)
    kind = torch.promote_types(value.dtype, torch.float32)
    output = torch.empty((*offset.shape[:3], value.shape[3]), dtype=kind)
    arrays = [_flat(tensor, kind) for tensor in (value, offset, mask, output)]
    run = _compiled("forward", value.shape[3] // groups, kind)

    def work(first_row: int, last_row: int) -> None:
        run(*arrays, sizes, offset_scale, mask_is_logits, first_row, last_row)

    share(work, value.shape[0] * offset.shape[1], _threads(output, sizes))
    return output.to(value.dtype)


def backward(
    grad_output: Tensor,
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    offset_scale: float,
    mask_is_logits: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, offset and mask, each in the dtype of its tensor, from that of the output."""
    sizes = _sizes(value, offset, groups, kernel_size, stride, padding, dilation)
    kind = torch.promote_types(value.dtype, torch.float32)
    grad_value = torch.zeros(value.shape, dtype=kind)
    grad_offset, grad_mask = torch.empty(offset.shape, dtype=kind), torch.empty(mask.shape, dtype=kind)
    arrays = [_flat(tensor, kind) for tensor in (grad_output, value, offset, mask, grad_value, grad_offset, grad_mask)]
    run = _compiled("backward", value.shape[3] // groups, kind)

    def work(first_unit: int, last_unit: int) -> None:
        run(*arrays, sizes, offset_scale, mask_is_logits, first_unit, last_unit)

    share(work, value.shape[0] * groups, _threads(grad_output, sizes))
    return grad_value.to(value.dtype), grad_offset.to(offset.dtype), grad_mask.to(mask.dtype)


def _sizes(value: Tensor, offset: Tensor, groups: int, *pairs: Sequence[int]) -> tuple[int, ...]:
    """H, W, P, Q, G, then height and width of kernel, stride, padding and dilation."""
    _, height, width, _ = value.shape
    if height * width >= 2**31:
        raise ValueError(f"an image must have fewer than 2**31 pixels, got {height} x {width}; cut it into tiles")
    return (height, width, offset.shape[1], offset.shape[2], groups, *(size for pair in pairs for size in pair))


def _flat(tensor: Tensor, kind: torch.dtype) -> Any:
    """The elements in order as a one-dimensional array, without a copy where they lie so already."""
    return tensor.detach().to(kind).contiguous().numpy().reshape(-1)


def _threads(output: Tensor, sizes: tuple[int, ...]) -> int:
    points = sizes[5] * sizes[6]
    return 1 if output.numel() * points < ALONE else torch.get_num_threads()


def _compiled(direction: str, channels: int, kind: torch.dtype) -> Callable[..., None]:
    """The machine code for groups of `channels` channels: from this process, from the cache on disk, or made now."""
    with _lock:
        return _compile(direction, channels, kind)


@cache
def _compile(direction: str, channels: int, kind: torch.dtype) -> Callable[..., None]:
    real = types.float64 if kind is torch.float64 else types.float32
    make, arrays = (_make_forward, 4) if direction == "forward" else (_make_backward, 7)
    signature = types.void(
        *[types.Array(real, 1, "C")] * arrays,
        types.UniTuple(types.int64, 13),  # type: ignore[no-untyped-call]
        *(types.float64, types.boolean, types.int64, types.int64),
    )
    line = f"vistalib: compiling the CPU code of DCNv3 ({direction}, {channels} channels a group), once for this machine"
    notice = Timer(PATIENCE, print, (line,), {"file": sys.stderr, "flush": True})
    notice.daemon = True
    notice.start()
    try:
        compiled: Callable[..., None] = njit(signature, nogil=True, cache=True)(make(channels, _EDITION))
        return compiled
    finally:
        notice.cancel()


def _make_forward(D: int, edition: str) -> Callable[..., None]:
    def dcnv3_forward(  # type: ignore[no-untyped-def]  # Numba infers them
        value, offset, mask, output, sizes, scale, logits, first_row, last_row
    ):
        H, W, P, Q, G, KH, KW, _, _, _, _, _, _ = sizes
        K, C = KH * KW, G * D
        assert edition
        tile, arrays = scratch(value, sizes, G)
        _, _, fraction, _, pixel, inside, weight = arrays
        for row in range(first_row, last_row):  # rows of all images, N * P of them
            image = (row // P) * H * W * C
            for first in range(0, Q, tile):
                pixels = min(tile, Q - first)
                points = pixels * G * K
                begin = (row * Q + first) * G * K
                locate(offset[2 * begin : 2 * (begin + points)], arrays, sizes, scale, row % P, first, pixels)
                weight[:points] = mask[begin : begin + points]
                if logits:
                    softmax(weight[:points], K)
                for unit in range(pixels * G):
                    channel = image + (unit % G) * D
                    to = (row * Q + first) * C + unit * D
                    weigh_and_add(value, channel, C, W * C, pixel, inside, fraction, weight, unit * K, K, output, to, D)

    return dcnv3_forward


def _make_backward(D: int, edition: str) -> Callable[..., None]:
    def dcnv3_backward(  # type: ignore[no-untyped-def]  # Numba infers them
        grad_output, value, offset, mask, grad_value, grad_offset, grad_mask, sizes, scale, logits, first_unit, last_unit
    ):
        H, W, P, Q, G, KH, KW, _, _, _, _, _, _ = sizes
        K, C = KH * KW, G * D
        assert edition
        one, stretch = value.dtype.type(1), value.dtype.type(scale)
        for n in range(first_unit // G, (last_unit + G - 1) // G):  # units are the groups of all images, N * G of them
            first_group = max(first_unit - n * G, 0)
            groups = min(last_unit - n * G, G) - first_group
            a_pixel = groups * K
            tile, arrays = scratch(value, sizes, groups)
            _, _, fraction, _, pixel, inside, weight = arrays
            offsets = np.empty(2 * weight.size, value.dtype)
            grad_fraction = np.empty(2 * weight.size, value.dtype)
            grad_weight = np.empty(weight.size, value.dtype)
            for row in range(n * P, (n + 1) * P):
                for first in range(0, Q, tile):
                    pixels = min(tile, Q - first)
                    points = pixels * a_pixel
                    for t in range(pixels):
                        here, there = t * a_pixel, ((row * Q + first + t) * G + first_group) * K
                        copy(mask, there, weight, here, a_pixel, one)
                        copy(offset, 2 * there, offsets, 2 * here, 2 * a_pixel, one)
                    locate(offsets[: 2 * points], arrays, sizes, scale, row - n * P, first, pixels)
                    if logits:
                        softmax(weight[:points], K)
                    for unit in range(pixels * groups):
                        channel = (first_group + unit % groups) * D
                        weigh_and_add_backward(
                            value, n * H * W * C + channel, C, W * C, pixel, inside, fraction, weight, unit * K, K,
                            grad_output, (row * Q + first + unit // groups) * C + channel,
                            grad_value, grad_weight, grad_fraction, D,
                        )  # fmt: skip
                    if logits:
                        softmax_backward(weight[:points], grad_weight[:points], K)
                    for t in range(pixels):
                        here, there = t * a_pixel, ((row * Q + first + t) * G + first_group) * K
                        copy(grad_weight, here, grad_mask, there, a_pixel, one)
                        copy(grad_fraction, 2 * here, grad_offset, 2 * there, 2 * a_pixel, stretch)

    return dcnv3_backward
