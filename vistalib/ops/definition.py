r"""DCNv3 written down: the operator of InternImage in a page of PyTorch.

At every output pixel each group of channels looks at K points of the input and adds up what it finds there:

    output[n, p, q, g] = sum over k of  mask[n, p, q, g, k] * value[n, location[n, p, q, g, k], g]

A location is a pair of real numbers, so `value` is read by bilinear interpolation, and it is zero outside the image. Offset and
mask depend on the input, which makes this a convolution whose window moves and whose weights are computed, not learnt.

Source: Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions", CVPR 2023,
section 3.1. Where the paper leaves a choice, this file follows the released CUDA operator:
  * points are counted down the columns of the window: k = column * kernel_height + row;
  * an offset is a pair (x, y) in input pixels, and `offset_scale` stretches window and offsets together about the centre;
  * the centre of a window of even extent is rounded towards its top left;
  * padding is (height, width); the released PyTorch twin of that operator takes unequal ones the other way round: a bug;
  * a point at x <= -1, x >= W, y <= -1 or y >= H is dropped: it adds nothing and gets no gradient;
  * the interpolation cell begins at floor(x), so at a whole x the slope is value[x + 1] - value[x].

Layout: channels last. Letters: N images, H x W input, P x Q output, C channels, G groups, D = C / G group channels, K points.
Every other backend is tested against this file. It holds one output-sized sample at a time, not K of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vistalib.ops.geometry import Pair, pair


def split(tensor: Tensor, *sizes: int) -> Tensor:
    """The last dimension as several: (..., A*B) -> (..., A, B)."""
    return tensor.reshape(*tensor.shape[:-1], *sizes)


def sampling_locations(
    offset: Tensor,
    *,
    groups: int,
    kernel_size: Pair = 3,
    stride: Pair = 1,
    padding: Pair = 1,
    dilation: Pair = 1,
    offset_scale: float = 1.0,
) -> Tensor:
    """Where each output pixel samples: (N, P, Q, G, K, 2) pairs (x, y) in pixels of the input without its padding.

    `offset` is (N, P, Q, G*K*2). Pixel centres lie at whole numbers. The result is float32, or float64 for a float64
    `offset`: sixteen bits cannot tell neighbouring pixels apart beyond x = 2048.
    """
    (kernel_h, kernel_w), (stride_h, stride_w) = pair(kernel_size), pair(stride)
    (padding_h, padding_w), (dilation_h, dilation_w) = pair(padding), pair(dilation)
    dtype = torch.promote_types(offset.dtype, torch.float32)
    offset = split(offset.to(dtype), groups, kernel_h * kernel_w, 2)  # (N, P, Q, G, K, 2)

    def count(size: int) -> Tensor:
        return torch.arange(size, dtype=dtype, device=offset.device)

    # The window's points from its top left one.
    columns, rows = torch.meshgrid(count(kernel_w) * dilation_w, count(kernel_h) * dilation_h, indexing="ij")
    point = torch.stack((columns, rows), -1).flatten(0, 1)  # (K, 2), columns outermost

    # The window's top left point at every output pixel: its centre, less half the stretched window. The order of the
    # operations is the released kernel's, so that a location which is whole there is whole here.
    centre_x, centre_y = dilation_w * (kernel_w - 1) // 2, dilation_h * (kernel_h - 1) // 2
    left = count(offset.shape[2]) * stride_w + (centre_x - padding_w) - centre_x * offset_scale
    top = count(offset.shape[1]) * stride_h + (centre_y - padding_h) - centre_y * offset_scale
    start = torch.stack(torch.meshgrid(left, top, indexing="xy"), -1)  # (P, Q, 2)

    return start[:, :, None, None] + (point + offset) * offset_scale


class Corner(NamedTuple):
    """One of the four pixels around every location, all of shape (N, P, Q, G) but `value`."""

    row: Tensor  # of the table of N*H*W*G group vectors; some row of it where the corner is outside the image
    inside: Tensor  # bool
    value: Tensor  # (N, P, Q, G, D), zero outside
    weight_x: Tensor  # how much of the location belongs to this corner's column: 1 on it, 0 a pixel away
    weight_y: Tensor
    slope_x: int  # derivative of weight_x by x: -1 for the left corners, +1 for the right ones
    slope_y: int


def corners(value: Tensor, location: Tensor) -> Iterator[Corner]:
    """The four pixels around each location, one after the other.

    `value` is (N, H, W, G, D), `location` is (N, P, Q, G, 2) for one kernel point.
    """
    images, height, width, groups, _ = value.shape
    x, y = location.unbind(-1)  # (N, P, Q, G)
    kept = (x > -1) & (x < width) & (y > -1) & (y < height)  # false for NaN, too
    x = torch.where(kept, x, -2.0)  # all four corners of a dropped point are outside
    y = torch.where(kept, y, -2.0)
    left, top = x.detach().floor(), y.detach().floor()

    table = value.reshape(-1, value.shape[-1])  # (N*H*W*G, D)
    image = torch.arange(images, device=value.device).view(-1, 1, 1, 1)
    group = torch.arange(groups, device=value.device)
    for pixel_y, weight_y, slope_y in ((top, top + 1 - y, -1), (top + 1, y - top, +1)):
        for pixel_x, weight_x, slope_x in ((left, left + 1 - x, -1), (left + 1, x - left, +1)):
            inside = (pixel_x >= 0) & (pixel_x < width) & (pixel_y >= 0) & (pixel_y < height)
            column, line = pixel_x.clamp(0, width - 1).long(), pixel_y.clamp(0, height - 1).long()
            row = ((image * height + line) * width + column) * groups + group
            found = table.index_select(0, row.flatten()).view(*row.shape, value.shape[-1]).to(weight_x.dtype)  # (N, P, Q, G, D)
            found = torch.where(inside[..., None], found, 0.0)
            yield Corner(row, inside, found, weight_x, weight_y, slope_x, slope_y)


def dcnv3_definition(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Pair = 3,
    stride: Pair = 1,
    padding: Pair = 1,
    dilation: Pair = 1,
    offset_scale: float = 1.0,
    mask_is_logits: bool = False,
) -> Tensor:
    """Sample, weigh and add: (N, P, Q, C) in the dtype of `value`; differentiable by autograd.

    `value` is (N, H, W, C), `offset` (N, P, Q, G*K*2), `mask` (N, P, Q, G*K); with `mask_is_logits` the mask is the softmax
    of what was given, over the K points of a group.
    """
    location = sampling_locations(
        offset,
        groups=groups,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        offset_scale=offset_scale,
    )  # (N, P, Q, G, K, 2)
    value_of_group = split(value, groups, value.shape[-1] // groups)  # (N, H, W, G, D)
    mask = split(mask.to(location.dtype), groups, location.shape[-2])  # (N, P, Q, G, K)
    if mask_is_logits:
        mask = mask.softmax(-1)

    output = location.new_zeros(*location.shape[:4], value_of_group.shape[-1])  # (N, P, Q, G, D)
    for k in range(location.shape[-2]):
        for corner in corners(value_of_group, location[..., k, :]):
            weight = mask[..., k] * corner.weight_x * corner.weight_y  # (N, P, Q, G)
            output = output + weight[..., None] * corner.value
    return output.flatten(-2).to(value.dtype)  # (N, P, Q, C)


def dcnv3_gradients(
    grad_output: Tensor,
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Pair = 3,
    stride: Pair = 1,
    padding: Pair = 1,
    dilation: Pair = 1,
    offset_scale: float = 1.0,
    mask_is_logits: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """What autograd gets from `dcnv3_definition`, by the chain rule on paper: the gradients of value, offset and mask.

    Keeps nothing between the points, so its memory does not grow with K; sums are taken in float32 at least.
    """
    location = sampling_locations(
        offset,
        groups=groups,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        offset_scale=offset_scale,
    )  # (N, P, Q, G, K, 2)
    value_of_group = split(value, groups, value.shape[-1] // groups)  # (N, H, W, G, D)
    weights = split(mask.to(location.dtype), groups, location.shape[-2])  # (N, P, Q, G, K)
    if mask_is_logits:
        weights = weights.softmax(-1)
    grad_sum = split(grad_output.to(location.dtype), groups, value_of_group.shape[-1])  # (N, P, Q, G, D)

    grad_table = location.new_zeros(value_of_group.shape).flatten(0, 3)  # (N*H*W*G, D)
    grad_location = torch.zeros_like(location)
    grad_weights = torch.zeros_like(weights)
    for k in range(location.shape[-2]):
        for corner in corners(value_of_group, location[..., k, :]):
            along = (grad_sum * corner.value).sum(-1)  # (N, P, Q, G)
            grad_weights[..., k] += corner.weight_x * corner.weight_y * along
            grad_location[..., k, 0] += corner.slope_x * corner.weight_y * weights[..., k] * along
            grad_location[..., k, 1] += corner.slope_y * corner.weight_x * weights[..., k] * along
            share = torch.where(corner.inside, weights[..., k] * corner.weight_x * corner.weight_y, 0.0)
            grad_table.index_add_(0, corner.row.flatten(), (share[..., None] * grad_sum).flatten(0, 3))
    if mask_is_logits:
        grad_weights = weights * (grad_weights - (weights * grad_weights).sum(-1, keepdim=True))
    return (
        grad_table.view(value.shape).to(value.dtype),
        (offset_scale * grad_location).flatten(-3).to(offset.dtype),
        grad_weights.flatten(-2).to(mask.dtype),
    )
