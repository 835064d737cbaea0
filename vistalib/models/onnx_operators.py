"""DCNv3 in ONNX's own operators: what the exporter writes where a model calls ours.

GridSample reads the four pixels around a point as DCNv3 does, with zeros outside, once its points are counted from -1 to 1. One
call takes all K points of all groups; the K maps it gives are then weighed and added. Two dozen operators a layer run on any
runtime of opset 16 or later, and every size is read from the tensors, so that one file serves all.

Letters: N images, H x W input, P x Q output, C channels, G groups, D = C / G group channels, K points.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from vistalib.ops.registration import OPERATORS

OPSET = 18


def translations() -> dict[Any, Callable[..., Any]]:
    """The table that `torch.onnx.export` takes as `custom_translation_table`."""
    return dict.fromkeys(OPERATORS.values(), _dcnv3)


def _dcnv3(
    value: Any,
    offset: Any,
    mask: Any,
    groups: int,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    offset_scale: float,
    mask_is_logits: bool,
) -> Any:
    from onnxscript import FLOAT
    from onnxscript import opset18 as op

    def ints(*numbers: int) -> Any:
        return op.Constant(value_ints=list(numbers))

    def floats(array: Any) -> Any:
        return op.Constant(value_floats=np.asarray(array, np.float32).ravel().tolist())

    def shape(tensor: Any, axis: int) -> Any:
        return op.Shape(tensor, start=axis, end=axis + 1)

    def count(size: Any, step: int, start: float) -> Any:
        """start, start + step, ...: as many as `size` says."""
        numbers = op.Range(op.Constant(value_int=0), op.Squeeze(size), op.Constant(value_int=1))
        return op.Add(op.Mul(op.Cast(numbers, to=FLOAT.dtype), floats([step])), floats([start]))

    points = kernel_size[0] * kernel_size[1]
    rows, columns = shape(offset, 1), shape(offset, 2)
    pixels = op.Mul(rows, columns)  # P*Q

    # Where the window of an output pixel starts, and its points from there, columns outermost: see `sampling_locations`.
    centre_y, centre_x = (dilation[i] * (kernel_size[i] - 1) // 2 for i in (0, 1))
    left = count(columns, stride[1], centre_x - padding[1] - centre_x * offset_scale)  # (Q,)
    top = count(rows, stride[0], centre_y - padding[0] - centre_y * offset_scale)  # (P,)
    sides = op.Concat(rows, columns, ints(1, 1), axis=0)
    left = op.Expand(op.Unsqueeze(left, ints(1, 2)), sides)  # (P, Q, 1, 1)
    top = op.Expand(op.Unsqueeze(top, ints(1, 2, 3)), sides)  # (P, Q, 1, 1)
    start = op.Reshape(op.Concat(left, top, axis=3), op.Concat(pixels, ints(1, 2), axis=0))  # (P*Q, 1, 2)
    window = [(i * dilation[1], j * dilation[0]) for i in range(kernel_size[1]) for j in range(kernel_size[0])]
    window = op.Reshape(floats(np.multiply(window, offset_scale)), ints(1, points, 2))
    start = op.Add(start, window)  # (P*Q, K, 2)

    moved = op.Reshape(offset, op.Concat(ints(0), pixels, ints(groups, points * 2), axis=0))  # (N, P*Q, G, K*2)
    moved = op.Transpose(moved, perm=[0, 2, 1, 3])  # (N, G, P*Q, K*2)
    moved = op.Reshape(moved, op.Concat(ints(-1), pixels, ints(points, 2), axis=0))  # (N*G, P*Q, K, 2)
    location = op.Add(op.Mul(moved, floats([offset_scale])), start)  # in pixels
    size = op.Cast(op.Concat(shape(value, 2), shape(value, 1), axis=0), to=FLOAT.dtype)  # W, H
    grid = op.Div(op.Add(op.Mul(location, floats([2])), floats([1])), size)
    # From -1 to 1 across the image. 4 is a pixel or more outside of any, and further out a runtime could not count in pixels.
    grid = op.Clip(op.Sub(grid, floats([1])), op.Constant(value_float=-4.0), op.Constant(value_float=4.0))

    planes = op.Reshape(value, ints(0, 0, 0, groups, -1))  # (N, H, W, G, D)
    planes = op.Transpose(planes, perm=[0, 3, 4, 1, 2])  # (N, G, D, H, W)
    each = op.Concat(ints(-1), shape(planes, 2), shape(value, 1), shape(value, 2), axis=0)
    found = op.GridSample(op.Reshape(planes, each), grid, mode="bilinear", padding_mode="zeros")  # (N*G, D, P*Q, K)

    weight = op.Reshape(mask, op.Concat(ints(0), pixels, ints(groups, points), axis=0))  # (N, P*Q, G, K)
    if mask_is_logits:
        weight = op.Softmax(weight, axis=-1)
    weight = op.Transpose(weight, perm=[0, 2, 1, 3])  # (N, G, P*Q, K)
    weight = op.Reshape(weight, op.Concat(ints(-1, 1), pixels, ints(points), axis=0))  # (N*G, 1, P*Q, K)
    output = op.ReduceSum(op.Mul(found, weight), ints(3), keepdims=0)  # (N*G, D, P*Q)
    output = op.Reshape(output, op.Concat(shape(value, 0), shape(value, 3), pixels, axis=0))  # (N, C, P*Q)
    return op.Reshape(op.Transpose(output, perm=[0, 2, 1]), op.Concat(ints(0), rows, columns, ints(-1), axis=0))  # (N, P, Q, C)
