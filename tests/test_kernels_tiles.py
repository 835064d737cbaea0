"""The backward in tiles against the float64 definition, thread by thread on this CPU."""

from typing import Any

import pytest
import torch
from kernels_helpers import Run, by_cuda_on_a_cpu, by_nvrtc_on_a_cpu, tiles
from ops_helpers import Inputs, random_inputs, worst
from torch import Tensor

from vistalib.ops.definition import dcnv3_gradients

pytest.importorskip("vistalib_kernels")
NAMES = ("value", "offset", "mask")


@pytest.fixture(params=["cuda", "nvrtc"])
def cuda(request: pytest.FixtureRequest) -> Run:
    return {"cuda": by_cuda_on_a_cpu, "nvrtc": by_nvrtc_on_a_cpu}[request.param]


def inputs_of(shape: dict[str, Any], dtype: torch.dtype = torch.float64) -> Inputs:
    """Two rows and two columns of tiles, only the first full; offsets of few digits: every dtype has the same locations."""
    usual = {"images": 1, "height": 18, "width": 30, "groups": 2, "group_channels": 16, "spread": 0.5}
    inputs = random_inputs(**{**usual, **shape})
    return inputs._replace(offset=(inputs.offset * 16).round().clamp(-1000, 1000) / 16).to(dtype)


def expected(inputs: Inputs, **more: bool) -> tuple[Tensor, ...]:
    gradients: tuple[Tensor, ...] = dcnv3_gradients(inputs.grad_output, *inputs.tensors, **inputs.settings, **more)
    return gradients


SHAPES = [
    pytest.param({}, id="all-in-the-window"),
    pytest.param({"offset_scale": 2.0, "spread": 2.0}, id="some-far"),
    pytest.param({"spread": 20.0}, id="mostly-far"),
    pytest.param({"images": 2, "height": 16, "width": 16, "groups": 1}, id="two-images"),
    pytest.param({"height": 33, "width": 15, "groups": 3}, id="three-groups"),
    pytest.param({"padding": (0, 3)}, id="padding"),
    pytest.param({"dilation": (2, 1), "padding": (2, 1)}, id="dilated"),
    pytest.param({"offset_scale": 0.5, "spread": 0.0}, id="many-points-in-a-cell"),
    pytest.param({"group_channels": 32}, id="D32"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_float32_agrees_with_the_float64_definition(cuda: Run, shape: dict[str, Any], logits: bool) -> None:
    inputs = inputs_of(shape)
    assert tiles(inputs) > 0
    ours = cuda(inputs.to(torch.float32), mask_is_logits=logits)[1:]
    for key, found, theirs in zip(NAMES, ours, expected(inputs, mask_is_logits=logits)):
        assert worst(found, theirs.float()) < 1e-6 * max(1.0, float(theirs.abs().max())), key  # measured 4e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [{"group_channels": 16}, {"group_channels": 32, "spread": 3.0}], ids=["D16", "D32-far"])
def test_sixteen_bit_gradients_are_rounded_once(cuda: Run, dtype: torch.dtype, shape: dict[str, Any]) -> None:
    inputs = inputs_of(shape, dtype)
    assert tiles(inputs) > 0
    for key, ours, theirs in zip(NAMES, cuda(inputs)[1:], expected(inputs.to(torch.float64))):
        step = 2.0 ** torch.frexp(theirs).exponent.clamp(min=-10) * torch.finfo(dtype).eps  # one unit in the last place
        slack = 1e-7 * max(1.0, float(theirs.abs().max()))  # of sums in float32 whose parts cancel out
        assert ((ours.double() - theirs).abs() <= 0.5 * step + slack).all(), key  # measured 6e-9 beyond the half


def test_without_tiles_the_gradients_are_the_same(cuda: Run) -> None:
    inputs = inputs_of({"spread": 2.0}, torch.float32)
    for key, ours, theirs in zip(NAMES, cuda(inputs)[1:], cuda(inputs, in_tiles=False)[1:]):
        assert worst(ours, theirs) < 1e-5, key  # measured 4e-6: other orders of adding


@pytest.mark.parametrize("outside", [torch.nan, torch.inf], ids=str)
def test_what_is_not_finite_reaches_the_same_gradients_as_without_tiles(cuda: Run, outside: float) -> None:
    inputs = inputs_of({}, torch.float32)
    inputs.value[0, 0, 29, 3] = outside  # a corner of the image, where points have corners beyond it
    inputs.grad_output[0, 17, 0, 20] = outside
    for key, ours, theirs in zip(NAMES, cuda(inputs)[1:], cuda(inputs, in_tiles=False)[1:]):
        assert torch.equal(ours.isfinite(), theirs.isfinite()), key
        assert worst(ours[ours.isfinite()], theirs[ours.isfinite()]) < 1e-5, key  # measured 2e-6


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({"stride": (2, 1), "height": 32}, id="stride"),
        pytest.param({"dilation": (4, 4), "padding": (4, 4)}, id="wide-kernel"),
        pytest.param({"height": 7, "width": 7}, id="tiles-mostly-empty"),
        pytest.param({"group_channels": 8}, id="D8"),
    ],
)
def test_calls_that_tiles_do_not_suit_take_the_other_kernels(cuda: Run, shape: dict[str, Any]) -> None:
    inputs = inputs_of(shape)
    assert shape.get("group_channels") == 8 or tiles(inputs) == 0
    for key, ours, theirs in zip(NAMES, cuda(inputs.to(torch.float32))[1:], expected(inputs)):
        assert worst(ours, theirs.float()) < 1e-6 * max(1.0, float(theirs.abs().max())), key  # measured 4e-7
