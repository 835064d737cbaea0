"""DCNv3 on a CPU by Numba: forward and backward in float32 and float64, bfloat16 and float16 by way of float32.

Who owns what. Forward: a thread owns rows of output pixels and writes nothing else. Backward: it owns them too, with their
offsets and masks, and it owns the band of rows of `grad_value` that lies as high in the image: it alone adds to them, also what
comes from output rows of its neighbours, which it looks through as far as their points may reach into its band. Every sum is
taken by one thread, in the order of the output pixels: the bits do not depend on how many threads there are.

Phases, for a tile of neighbouring output pixels that fits into the first-level cache:
  1. locate: sampling locations, as top left corner, distance from it, and one bit for each corner inside the image;
  2. softmax of the mask, or the mask as it is;
  3. weigh and add, or its backward, one pixel and group at a time, vectors over the channels.
The first two are in tile.py, the third in simd.py. The number of channels in a group is a constant of the compiled code.

Layout: channels last, all arrays flat; offset and mask may be slices of one tensor's channels.
Letters: N images, H x W input, P x Q output, C channels, G groups, D = C / G, K points.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Lock, Timer
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numba import njit, types
from numba.core import event
from torch import Tensor

from vistalib_kernels.simd import weigh_and_add, weigh_and_add_backward
from vistalib_kernels.threads import share
from vistalib_kernels.tile import copy, find_reach, prepare, scratch, share_out, softmax_backward

ALONE = 1 << 19  # channel samples, below which a second thread costs more than it saves
PATIENCE = 1.0  # seconds of compiling before saying so

# Numba's cache on disk looks at the file of the compiled function alone; this makes the others part of its key.
_EDITION = sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in ("simd.py", "tile.py"))).hexdigest()
_lock = Lock()


def status() -> tuple[bool, str, str | None]:
    """Whether it can be used; why not, and the command that helps."""
    return True, "runs on CPUs", None


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
    kind = torch.promote_types(value.dtype, torch.float32)
    output = torch.empty((*offset.shape[:3], value.shape[3]), dtype=kind)
    (offsets, offset_step), (masks, mask_step) = _pixels(offset, kind), _pixels(mask, kind)
    arrays = (_flat(value, kind), offsets, masks, _flat(output, kind))
    sizes = _sizes(value, offset, groups, kernel_size, stride, padding, dilation, (offset_step, mask_step))
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
    kind = torch.promote_types(value.dtype, torch.float32)
    (offsets, offset_step), (masks, mask_step) = _pixels(offset, kind), _pixels(mask, kind)
    # By NumPy, since threads that PyTorch has just used keep turning for a while, on processors that are needed here.
    grad_value = torch.from_numpy(np.zeros(tuple(value.shape), offsets.dtype))
    grad_offset, grad_mask = torch.empty(offset.shape, dtype=kind), torch.empty(mask.shape, dtype=kind)
    sizes = _sizes(value, offset, groups, kernel_size, stride, padding, dilation, (offset_step, mask_step))
    threads = _threads(grad_output, sizes)
    rows = value.shape[0] * offset.shape[1]
    reach = np.empty(2 * rows, offsets.dtype)
    if threads > 1:
        share(lambda first_row, last_row: find_reach(offsets, reach, sizes, offset_scale, first_row, last_row), rows, threads)
    gradients = (_flat(tensor, kind) for tensor in (grad_value, grad_offset, grad_mask))
    arrays = (_flat(grad_output, kind), _flat(value, kind), offsets, masks, *gradients, reach)
    run = _compiled("backward", value.shape[3] // groups, kind)

    def work(first_row: int, last_row: int) -> None:
        run(*arrays, sizes, offset_scale, mask_is_logits, first_row, last_row)

    share(work, rows, threads)
    return grad_value.to(value.dtype), grad_offset.to(offset.dtype), grad_mask.to(mask.dtype)


def _sizes(value: Tensor, offset: Tensor, groups: int, *pairs: Sequence[int]) -> tuple[int, ...]:
    """H, W, P, Q, G, height and width of kernel, stride, padding and dilation, steps from pixel to pixel of offset and mask."""
    _, height, width, _ = value.shape
    if height * width >= 2**31:
        raise ValueError(f"an image must have fewer than 2**31 pixels, got {height} x {width}; cut it into tiles")
    return (height, width, offset.shape[1], offset.shape[2], groups, *(size for pair in pairs for size in pair))


def _flat(tensor: Tensor, kind: torch.dtype) -> Any:
    """The elements in order as a one-dimensional array, without a copy where they lie so already."""
    return tensor.detach().to(kind).contiguous().numpy().reshape(-1)


def _pixels(tensor: Tensor, kind: torch.dtype) -> tuple[Any, int]:
    """The elements from the first one on, and how many they are from a pixel to the next: more than the channels in a slice.

    Without a copy where pixels follow each other in order at one distance.
    """
    tensor = tensor.detach().to(kind)
    _, rows, columns, channels = tensor.shape
    step = tensor.stride(2)
    if step < channels or tensor.stride() != (rows * columns * step, columns * step, step, 1):
        return _flat(tensor, kind), channels
    length = (tensor.numel() // channels - 1) * step + channels if tensor.numel() else 0
    return tensor.as_strided((length,), (1,)).numpy(), step


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
    make, arrays = (_make_forward, 4) if direction == "forward" else (_make_backward, 8)
    signature = types.void(
        *[types.Array(real, 1, "C")] * arrays,
        types.UniTuple(types.int64, 15),  # type: ignore[no-untyped-call]
        *(types.float64, types.boolean, types.int64, types.int64),
    )
    function = make(channels, _EDITION)
    notice = _Notice(function, f"the CPU code of DCNv3 ({direction}, {channels} channels a group)")
    with _turn(function.__name__, channels, kind), event.install_listener("numba:compile", notice):
        compiled: Callable[..., None] = njit(signature, nogil=True, cache=True)(function)
    return compiled


def _turn(*code: object) -> FileLock:
    """Processes that start together, ranks or trainings side by side, compile once: the others find the code in the cache."""
    user = os.getuid() if hasattr(os, "getuid") else ""
    return FileLock(Path(tempfile.gettempdir(), "-".join(map(str, ("vistalib", user, *code))) + ".lock"))


class _Notice(event.Listener):
    """Says that `function` is being compiled once that takes longer than `PATIENCE`.

    Numba speaks of compiling only where its cache on disk did not have the code. To read it from there can take as long on a
    busy machine, and nothing is to be said of that.
    """

    def __init__(self, function: Callable[..., None], what: str) -> None:
        line = f"vistalib: compiling {what}, once for this machine"
        self.function, self.timer = function, Timer(PATIENCE, print, (line,), {"file": sys.stderr, "flush": True})
        self.timer.daemon = True

    def on_start(self, event: event.Event) -> None:
        """Begin to wait: what `function` calls is compiled inside it, and other threads compile, too."""
        if event.data["dispatcher"].py_func is self.function:
            self.timer.start()

    def on_end(self, event: event.Event) -> None:
        """Compiled, or failed."""
        if event.data["dispatcher"].py_func is self.function:
            self.timer.cancel()


def _make_forward(D: int, edition: str) -> Callable[..., None]:
    def dcnv3_forward(  # type: ignore[no-untyped-def]  # Numba infers them
        value, offset, mask, output, sizes, scale, logits, first_row, last_row
    ):
        H, W, P, Q, G, KH, KW, _, _, _, _, _, _, _, _ = sizes
        K, C = KH * KW, G * D
        assert edition
        tile, arrays = scratch(value, sizes)
        _, _, fraction, _, pixel, inside, weight = arrays
        for row in range(first_row, last_row):  # rows of all images, N * P of them
            image = (row // P) * H * W * C
            for first in range(0, Q, tile):
                pixels = min(tile, Q - first)
                prepare(offset, mask, arrays, sizes, scale, logits, row, first, pixels)
                for unit in range(pixels * G):
                    channel = image + (unit % G) * D
                    to = (row * Q + first) * C + unit * D
                    weigh_and_add(value, channel, C, W * C, pixel, inside, fraction, weight, unit * K, K, output, to, D)

    return dcnv3_forward


def _make_backward(D: int, edition: str) -> Callable[..., None]:
    def dcnv3_backward(  # type: ignore[no-untyped-def]  # Numba infers them
        grad_output, value, offset, mask, grad_value, grad_offset, grad_mask, reach, sizes, scale, logits, first_row, last_row
    ):
        H, W, P, Q, G, KH, KW, _, _, _, _, _, _, _, _ = sizes
        K, C = KH * KW, G * D
        assert edition
        tile, arrays = scratch(value, sizes)
        _, _, fraction, _, pixel, inside, weight = arrays
        grad_fraction, grad_weight = np.empty_like(fraction), np.empty_like(weight)
        one, stretch = value.dtype.type(1), value.dtype.type(scale)
        for n in range(first_row // P, (last_row + P - 1) // P):
            image = n * H * W * C
            low, high = max(first_row - n * P, 0) * H // P, min(last_row - n * P, P) * H // P  # the band of this thread
            for row in range(n * P, (n + 1) * P):
                own = first_row <= row < last_row
                if not own and (reach[2 * row] > high + 1 or reach[2 * row + 1] < low - 2):  # false for NaN
                    continue
                for first in range(0, Q, tile):
                    pixels = min(tile, Q - first)
                    points = pixels * G * K
                    prepare(offset, mask, arrays, sizes, scale, logits, row, first, pixels)
                    share_out(arrays, points, own, low, high)
                    for unit in range(pixels * G):
                        channel = image + (unit % G) * D
                        at = (row * Q + first) * C + unit * D
                        weigh_and_add_backward(
                            value, channel, C, W * C, pixel, inside, fraction, weight, unit * K, K,
                            grad_output, at, grad_value, grad_weight, grad_fraction, D,
                        )  # fmt: skip
                    if own:
                        if logits:
                            softmax_backward(weight[:points], grad_weight[:points], K)
                        begin = (row * Q + first) * G * K
                        copy(grad_weight[:points], grad_mask[begin : begin + points], one)
                        copy(grad_fraction[: 2 * points], grad_offset[2 * begin : 2 * (begin + points)], stretch)

    return dcnv3_backward
