"""Stand-in for the released `ops_dcnv3` package: its layer and its functions, by its argument names, on our operator.

Either change the import, `from vistalib.compat.ops_dcnv3 import DCNv3`, or leave the code as it is and call `install()` before
it is imported. Argument names and their order are those of the released code (OpenGVLab/InternImage, `ops_dcnv3`, as of its
version with `remove_center`); parameters have the released names and order, so that its checkpoints load.

What differs: nothing is compiled, any batch size will do, and unequal paddings are (height, width) in every function.
"""

import sys
from typing import Any

from torch import Tensor, nn

from vistalib import ops
from vistalib.ops.geometry import Pair
from vistalib.ops.module import ChannelsLast

__all__ = ["DCNv3", "DCNv3Function", "DCNv3_pytorch", "dcnv3_core_pytorch", "install"]

ACTIVATIONS = {"GELU": nn.GELU, "SiLU": nn.SiLU, "ReLU": nn.ReLU}
NORMS = ("LN", "BN")


class DCNv3(ops.DCNv3):
    """`vistalib.ops.DCNv3` by the released argument names: (N, H, W, C) -> (N, P, Q, C).

    `act_layer` is "GELU", "SiLU" or "ReLU" and `norm_layer` "LN" or "BN", of the depthwise convolution. Raises `ValueError` for
    other names, for sizes that do not fit together, and for `remove_center`.
    """

    def __init__(
        self,
        channels: int = 64,
        kernel_size: Pair = 3,
        dw_kernel_size: Pair | None = None,
        stride: Pair = 1,
        pad: Pair = 1,
        dilation: Pair = 1,
        group: int = 4,
        offset_scale: float = 1.0,
        act_layer: str = "GELU",
        norm_layer: str = "LN",
        center_feature_scale: bool = False,
        remove_center: bool = False,
    ) -> None:
        if act_layer not in ACTIVATIONS:
            raise ValueError(f"act_layer must be one of {', '.join(ACTIVATIONS)}, got {act_layer!r}")
        if norm_layer not in NORMS:
            raise ValueError(f"norm_layer must be one of {', '.join(NORMS)}, got {norm_layer!r}")
        _refuse(remove_center)
        super().__init__(
            channels,
            group,
            kernel_size=kernel_size,
            dw_kernel_size=dw_kernel_size,
            stride=stride,
            padding=pad,
            dilation=dilation,
            offset_scale=offset_scale,
            center_feature_scale=center_feature_scale,
        )
        self.group, self.group_channels, self.pad = self.groups, channels // group, self.padding
        if norm_layer == "BN":
            self.dw_conv[1] = nn.Sequential(nn.BatchNorm2d(channels), ChannelsLast())
        self.dw_conv[2] = ACTIVATIONS[act_layer]()

    def _reset_parameters(self) -> None:
        self.reset_parameters()


DCNv3_pytorch = DCNv3  # released as a second class, for CPUs; here one class runs everywhere


def dcnv3_core_pytorch(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    group_channels: int,
    offset_scale: float,
    remove_center: bool = False,
) -> Tensor:
    """`vistalib.ops.dcnv3` by the released argument names; `mask` has been through its softmax."""
    _refuse(remove_center)
    if input.shape[-1] != group * group_channels:
        raise ValueError(
            f"input must have group * group_channels channels, got {input.shape[-1]} for {group} * {group_channels}; "
            f"pass group_channels={input.shape[-1] // group}"
        )
    return ops.dcnv3(
        input,
        offset,
        mask,
        groups=group,
        kernel_size=(kernel_h, kernel_w),
        stride=(stride_h, stride_w),
        padding=(pad_h, pad_w),
        dilation=(dilation_h, dilation_w),
        offset_scale=offset_scale,
    )


class DCNv3Function:
    """What released code calls instead of its compiled extension; here it does as `dcnv3_core_pytorch` does."""

    @staticmethod
    def apply(input: Tensor, offset: Tensor, mask: Tensor, *arguments: Any) -> Tensor:
        """As `dcnv3_core_pytorch`, with `im2col_step`, which changes nothing here, after `offset_scale`."""
        *settings, _im2col_step = arguments[:12]
        return dcnv3_core_pytorch(input, offset, mask, *settings, *arguments[12:])


def install() -> None:
    """Make `import ops_dcnv3`, and what released code imports from inside that package, find this module."""
    for name in ("", ".modules", ".modules.dcnv3", ".functions", ".functions.dcnv3_func"):
        sys.modules[f"ops_dcnv3{name}"] = modules


def _refuse(remove_center: bool) -> None:
    if remove_center:
        raise ValueError(
            "remove_center has no counterpart in this operator, and no released model uses it; pass remove_center=False"
        )


modules = functions = sys.modules[__name__]  # the released package's two submodules
