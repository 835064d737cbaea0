"""Every wrong argument is one ValueError that names the rule."""

from typing import Any

import pytest
import torch
from ops_helpers import random_inputs

from vistalib.ops import DCNv3, dcnv3

INPUTS = random_inputs(2, 5, 7, groups=2, group_channels=4)
VALUE, OFFSET, MASK = INPUTS.tensors


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"value": VALUE[0]}, r"value must be \(N, H, W, C\), got \(5, 7, 8\)", id="value-3d"),
        pytest.param({"value": VALUE[..., :7]}, "channels=7 and groups=2; try groups=1", id="channels"),
        pytest.param({"value": VALUE[..., :0]}, "channels=0 and groups=2; give value some", id="no-channels"),
        pytest.param({"value": VALUE[:, :0]}, "at least one pixel", id="no-pixels"),
        pytest.param(
            {"offset": OFFSET[..., :-1]}, r"offset must be .* = \(2, 5, 7, 36\), got \(2, 5, 7, 35\)", id="offset-last"
        ),
        pytest.param({"offset": OFFSET[:, :4]}, r"offset must be .*, got \(2, 4, 7, 36\)", id="offset-rows"),
        pytest.param({"offset": OFFSET.transpose(1, 2)}, r"offset must be .*, got \(2, 7, 5, 36\)", id="offset-transposed"),
        pytest.param({"mask": MASK[:1]}, r"mask must be .* = \(2, 5, 7, 18\), got \(1, 5, 7, 18\)", id="mask-batch"),
        pytest.param({"mask": MASK[..., None]}, r"mask must be .*, got \(2, 5, 7, 18, 1\)", id="mask-5d"),
        pytest.param({"value": VALUE.long()}, "value must be float64, .* or float16, got torch.int64", id="integer"),
        pytest.param({"mask": MASK.to(torch.complex64)}, "mask must be float64, .* got torch.complex64", id="complex"),
        pytest.param({"offset": OFFSET.to(torch.float8_e5m2)}, "offset must be float64, .* got torch.float8_e5m2", id="float8"),
        pytest.param({"mask": MASK.half()}, "one dtype, got value torch.float64 and mask torch.float16", id="half-mask"),
        pytest.param({"offset": OFFSET[:0]}, r"offset must be .*, got \(0, 5, 7, 36\)", id="offset-batch"),
        pytest.param({"offset": OFFSET[..., 0]}, r"offset must be .*, got \(2, 5, 7\)", id="offset-3d"),
        pytest.param({"mask": OFFSET}, r"mask must be .* = \(2, 5, 7, 18\), got \(2, 5, 7, 36\)", id="offset-as-mask"),
        pytest.param({"stride": 2}, r"offset must be .* = \(2, 3, 4, 36\).* check .*stride=\(2, 2\)", id="other-stride"),
        pytest.param({"offset": OFFSET.float()}, "one dtype, got value torch.float64 and offset torch.float32", id="dtype-mix"),
        pytest.param({"mask": MASK.to("meta")}, "one device, got value on cpu and mask on meta", id="device-mix"),
        pytest.param({"value": VALUE.to("meta")}, "one device, got value on meta and offset on cpu", id="device-mix-value"),
        pytest.param({"groups": 0}, "groups must be at least 1, got 0", id="groups"),
        pytest.param({"kernel_size": 0}, r"kernel_size must be at least 1 in both directions, got \(0, 0\)", id="kernel"),
        pytest.param({"stride": (1, 0)}, r"stride must be at least 1 in both directions, got \(1, 0\)", id="stride"),
        pytest.param({"padding": -1}, "padding must be at least 0", id="padding"),
        pytest.param({"dilation": 0}, "dilation must be at least 1", id="dilation"),
        pytest.param({"kernel_size": (3, 3, 3)}, r"one int or a pair \(height, width\), got \(3, 3, 3\)", id="three"),
        pytest.param({"kernel_size": 3.0}, "one int or a pair .height, width., got 3.0", id="fraction"),
        pytest.param({"padding": (1, 0.5)}, r"one int or a pair \(height, width\), got \(1, 0.5\)", id="fraction-in-pair"),
        pytest.param({"offset_scale": float("nan")}, "offset_scale must be a finite number, got nan", id="scale"),
        pytest.param({"kernel_size": 9}, "window must fit into the padded input, got an output of -1 x 1", id="window"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_wrong_arguments_of_the_function(change: dict[str, Any], sentence: str, backend: str) -> None:
    arguments: dict[str, Any] = {"value": VALUE, "offset": OFFSET, "mask": MASK, **INPUTS.settings, **change}
    with pytest.raises(ValueError, match=sentence):
        dcnv3(**arguments, backend=backend)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param({"channels": 100, "groups": 8}, "channels=100 and groups=8; try groups=5", id="groups"),
        pytest.param({"channels": 8, "groups": 2, "kernel_size": 5}, "one prediction per output pixel", id="padding"),
        pytest.param({"channels": 8, "groups": 2, "stride": 2, "center_feature_scale": True}, "must have one size", id="gate"),
    ],
)
def test_wrong_arguments_of_the_layer(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DCNv3(**arguments)


def test_a_dtype_mix_is_no_mistake_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert dcnv3(VALUE, OFFSET.float(), MASK.bfloat16(), **INPUTS.settings).dtype == torch.float64
