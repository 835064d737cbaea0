"""Arguments of the operator that cannot be right, each answered by one sentence: the rule, what was got, the repair."""

import torch
from torch import Tensor

from vistalib.ops.geometry import output_size

Size = tuple[int, int]
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_arguments(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    offset_scale: float,
) -> None:
    """Raise `ValueError` at the first rule broken by a call of `dcnv3`."""
    _check_numbers(groups=groups, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    if not abs(offset_scale) < float("inf"):
        raise ValueError(f"offset_scale must be a finite number, got {offset_scale}; 1.0 leaves the window as it is")
    _check_kinds(value, offset, mask)

    if value.dim() != 4:
        raise ValueError(f"value must be (N, H, W, C), got {_shape(value)}; channels come last: use permute(0, 2, 3, 1)")
    images, height, width, channels = value.shape
    if channels == 0 or channels % groups:
        raise ValueError(
            f"channels must be divisible by groups, got channels={channels} and groups={groups}{_try(channels, groups)}"
        )
    if height == 0 or width == 0:
        raise ValueError(f"value must have at least one pixel, got {_shape(value)}; leave empty images out")
    rows, columns = output_size(height, width, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    if rows < 1 or columns < 1:
        raise ValueError(
            f"the window must fit into the padded input, got an output of {rows} x {columns} for {height} x {width} pixels, "
            f"kernel_size={kernel_size}, padding={padding}, dilation={dilation}; use more padding or a smaller kernel"
        )
    points = kernel_size[0] * kernel_size[1]
    for name, tensor, last, rule in (
        ("offset", offset, groups * points * 2, "groups * kernel_h * kernel_w * 2"),
        ("mask", mask, groups * points, "groups * kernel_h * kernel_w"),
    ):
        expected = (images, rows, columns, last)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"{name} must be (N, P, Q, {rule}) = {expected}, got {_shape(tensor)}; "
                f"check kernel_size={kernel_size}, stride={stride}, padding={padding}, dilation={dilation} and groups={groups}"
            )


def _check_numbers(*, groups: int, kernel_size: Size, stride: Size, padding: Size, dilation: Size) -> None:
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}; 1 lets all channels move together")
    for name, size, least in (
        ("kernel_size", kernel_size, 1),
        ("stride", stride, 1),
        ("dilation", dilation, 1),
        ("padding", padding, 0),
    ):
        if min(size) < least:
            raise ValueError(f"{name} must be at least {least} in both directions, got {size}; it is (height, width)")


def _check_kinds(value: Tensor, offset: Tensor, mask: Tensor) -> None:
    """Devices and dtypes. Under autocast offset and mask follow the dtype of value, so there a mix is no mistake."""
    for name, tensor in (("value", value), ("offset", offset), ("mask", mask)):
        if tensor.dtype not in DTYPES:
            raise ValueError(
                f"{name} must be float64, float32, bfloat16 or float16, got {tensor.dtype}; convert it with .float()"
            )
        if tensor.device != value.device:
            raise ValueError(
                f"value, offset and mask must be on one device, got value on {value.device} and {name} on {tensor.device}; "
                f"move {name} with .to({str(value.device)!r})"
            )
        if tensor.dtype != value.dtype and not torch.is_autocast_enabled(value.device.type):
            raise ValueError(
                f"value, offset and mask must have one dtype, got value {value.dtype} and {name} {tensor.dtype}; "
                f"convert {name} with .to({value.dtype}) or run under torch.autocast"
            )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _try(channels: int, groups: int) -> str:
    """The largest smaller count of groups that would do, as the end of a sentence."""
    fitting = [count for count in range(1, min(groups, channels) + 1) if channels % count == 0]
    return f"; try groups={fitting[-1]}" if fitting else "; give value some channels"
