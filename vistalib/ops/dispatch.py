"""`dcnv3`, the one function everybody calls: checks the arguments and runs the operator."""

from torch import Tensor

from vistalib.ops.checks import check_arguments
from vistalib.ops.definition import dcnv3_definition
from vistalib.ops.geometry import Pair, pair


def dcnv3(
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
    backend: str = "auto",
) -> Tensor:
    sizes = {"kernel_size": pair(kernel_size), "stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation)}
    check_arguments(value, offset, mask, groups=groups, offset_scale=offset_scale, **sizes)
    return dcnv3_definition(
        value, offset, mask, groups=groups, offset_scale=offset_scale, mask_is_logits=mask_is_logits, **sizes
    )
