"""The DCNv3 layer: names and values at the start, sizes, the gate, and where it looks."""

from typing import Any

import pytest
import torch
from ops_helpers import worst

from vistalib.ops import DCNv3


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_parameters_carry_the_released_names() -> None:
    names = {name for name, _ in DCNv3(16, 4, center_feature_scale=True).named_parameters()}
    linears = {f"{part}.{kind}" for part in ("offset", "mask", "input_proj", "output_proj") for kind in ("weight", "bias")}
    looks = {f"dw_conv.{part}.{kind}" for part in ("0", "1.1") for kind in ("weight", "bias")}
    assert names == linears | looks | {"center_feature_scale_proj_weight", "center_feature_scale_proj_bias"}


def test_a_new_layer_averages_its_window() -> None:
    layer, x = DCNv3(8, 2), image(1, 6, 5, 8)
    for projection in (layer.input_proj, layer.output_proj):
        torch.nn.init.eye_(projection.weight)
    box = torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), 3, stride=1, padding=1).permute(0, 2, 3, 1)
    assert worst(layer(x), box) < 1e-6  # measured 1.2e-7


def test_a_new_layer_starts_as_the_released_one_does() -> None:
    torch.manual_seed(0)
    layer = DCNv3(64, 4)
    zeros = [
        layer.offset.weight,
        layer.offset.bias,
        layer.mask.weight,
        layer.mask.bias,
        layer.input_proj.bias,
        layer.output_proj.bias,
    ]
    assert all(not parameter.any() for parameter in zeros)
    bound = (6 / 128) ** 0.5  # Xavier, uniform
    for weight in (layer.input_proj.weight, layer.output_proj.weight):
        assert 0.98 * bound < weight.abs().max() <= bound
    assert layer.dw_conv[1][1].eps == 1e-6


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        pytest.param({}, (9, 7), id="3x3"),
        pytest.param({"stride": 2}, (5, 4), id="stride"),
        pytest.param({"stride": (1, 3)}, (9, 3), id="stride-pair"),
        pytest.param({"kernel_size": 5, "padding": 2, "dw_kernel_size": 3}, (9, 7), id="5x5"),
        pytest.param({"kernel_size": (1, 3), "padding": (0, 1)}, (9, 7), id="1x3"),
        pytest.param({"dilation": 2, "padding": 2}, (9, 7), id="dilation"),
        pytest.param({"kernel_size": 2, "padding": 0}, (8, 6), id="2x2"),
    ],
)
def test_output_and_locations_have_one_size(arguments: dict[str, Any], size: tuple[int, int]) -> None:
    layer, x = DCNv3(8, 2, **arguments), image(2, 9, 7, 8)
    points = layer.kernel_size[0] * layer.kernel_size[1]
    assert layer(x).shape == (2, *size, 8)
    assert layer.locations(x).shape == (2, *size, 2, points, 2)
    assert layer.modulation(x).shape == (2, *size, 2, points)


def test_locations_are_where_the_window_lies_plus_the_offset() -> None:
    layer, x = DCNv3(8, 2, offset_scale=2.0), image(1, 4, 5, 8)
    torch.nn.init.constant_(layer.offset.bias, 0.25)
    location = layer.locations(x)[0, 2, 3]
    assert location[0, 4].tolist() == [3.5, 2.5]
    assert location[1, 0].tolist() == [1.5, 0.5]


def test_modulation_sums_to_one() -> None:
    layer = DCNv3(8, 2)
    torch.nn.init.normal_(layer.mask.weight)
    total = layer.modulation(image(1, 4, 5, 8)).sum(-1)
    assert worst(total, torch.ones_like(total)) < 1e-6  # measured 1.2e-7


@pytest.mark.parametrize(("bias", "share"), [(-100.0, 0.0), (100.0, 1.0), (0.0, 0.5)], ids=["sampled", "unsampled", "half"])
def test_the_gate_blends_sampled_and_unsampled_pixels(bias: float, share: float) -> None:
    torch.manual_seed(0)
    gated, plain = DCNv3(8, 2, center_feature_scale=True), DCNv3(8, 2)
    plain.load_state_dict({key: tensor for key, tensor in gated.state_dict().items() if not key.startswith("center")})
    torch.nn.init.constant_(gated.center_feature_scale_proj_bias, bias)
    x = image(1, 4, 5, 8)
    unsampled = gated.output_proj(gated.input_proj(x))
    assert worst(gated(x), (1 - share) * plain(x) + share * unsampled) < 1e-6  # measured 1.2e-7
