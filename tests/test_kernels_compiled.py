"""The compiled kernels against the definition: the C++ twin, and the CUDA kernels thread by thread on this CPU."""

from typing import Any

import pytest
import torch
from kernels_helpers import Run, by_cuda_on_a_cpu, by_nvrtc_on_a_cpu, by_twin
from ops_helpers import RECORDED, Inputs, random_inputs, recorded, worst
from torch import Tensor

from vistalib.ops import dcnv3_definition
from vistalib.ops.definition import dcnv3_gradients

pytest.importorskip("vistalib_kernels")
NAMES = ("output", "value", "offset", "mask")
CUDA = {"cuda": by_cuda_on_a_cpu, "nvrtc": by_nvrtc_on_a_cpu}


@pytest.fixture(params=["twin", *CUDA])
def run(request: pytest.FixtureRequest) -> Run:
    return {"twin": by_twin, **CUDA}[request.param]


@pytest.fixture(params=CUDA)
def cuda(request: pytest.FixtureRequest) -> Run:
    return CUDA[request.param]


def definition(inputs: Inputs, **more: bool) -> tuple[Tensor, ...]:
    gradients = dcnv3_gradients(inputs.grad_output, *inputs.tensors, **inputs.settings, **more)
    return (dcnv3_definition(*inputs.tensors, **inputs.settings, **more), *gradients)


def in_sixteenths(inputs: Inputs) -> Inputs:
    """Offsets of few digits: every dtype has the same locations."""
    return inputs._replace(offset=(inputs.offset * 16).round().clamp(-127, 127) / 16)


@pytest.mark.parametrize("name", RECORDED)
def test_output_and_gradients_are_the_recorded_ones(run: Run, name: str) -> None:
    inputs, truth = recorded(name)
    for key, tensor in zip(NAMES, run(inputs)):
        assert worst(tensor, truth[key]) < 1e-12, key  # measured 2e-14


SHAPES = [
    pytest.param({"group_channels": 1, "groups": 3}, id="D1"),
    pytest.param({"group_channels": 3, "groups": 3}, id="D3"),
    pytest.param({"group_channels": 40, "groups": 1}, id="wider-than-a-warp"),
    pytest.param({"height": 1, "width": 1}, id="one-pixel"),
    pytest.param({"height": 9, "width": 8, "stride": (2, 3)}, id="stride"),
    pytest.param({"kernel_size": (4, 2), "padding": (3, 0), "dilation": (2, 1)}, id="even-kernel"),
    pytest.param({"kernel_size": (7, 7), "padding": (3, 3), "groups": 3}, id="7x7"),
    pytest.param({"offset_scale": 0.7, "spread": 0.0}, id="whole-locations"),
    pytest.param({"spread": 30.0}, id="mostly-outside"),
    pytest.param({"images": 0}, id="empty"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_float64_agrees_with_the_definition(run: Run, shape: dict[str, Any], logits: bool) -> None:
    inputs = random_inputs(**shape)
    for key, ours, theirs in zip(NAMES, run(inputs, mask_is_logits=logits), definition(inputs, mask_is_logits=logits)):
        assert worst(ours, theirs) < 1e-12, key  # measured 3e-14


# Sizes that have kernels of their own: windows of 3x3, 8, 16 or 32 channels a group. Some warps lie inside, some at the border,
# and the last one is not full.
MADE = [
    pytest.param({"offset_scale": 1.0}, id="stride-1"),
    pytest.param({"stride": (2, 2), "offset_scale": 2.0}, id="stride-2"),
    pytest.param({"dilation": (2, 1), "padding": (2, 1), "spread": 0.3}, id="dilated"),
    pytest.param({"spread": 20.0}, id="mostly-outside"),
    pytest.param({"height": 1, "width": 1, "images": 1}, id="one-pixel"),
    pytest.param({"height": 18, "width": 30, "images": 1}, id="as-would-be-in-tiles"),
]


@pytest.mark.parametrize("shape", MADE)
@pytest.mark.parametrize("channels", [8, 16, 32], ids="D{}".format)
@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_float32_agrees_with_the_float64_definition(cuda: Run, shape: dict[str, Any], channels: int, logits: bool) -> None:
    inputs = in_sixteenths(
        random_inputs(**{"height": 9, "width": 21, "groups": 3, "spread": 0.5, **shape}, group_channels=channels)
    )
    expected = definition(inputs, mask_is_logits=logits)
    for key, ours, theirs in zip(NAMES, cuda(inputs.to(torch.float32), mask_is_logits=logits), expected):
        scale = max(1.0, float(theirs.abs().max()))
        assert worst(ours, theirs.float()) < 1e-6 * scale, key  # measured 2.6e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("channels", [3, 8, 16, 32], ids="D{}".format)
def test_sixteen_bit_results_are_rounded_once(run: Run, dtype: torch.dtype, channels: int) -> None:
    inputs = in_sixteenths(random_inputs(2, 4, 9, groups=3, group_channels=channels)).to(dtype)
    expected = definition(inputs.to(torch.float64), mask_is_logits=True)
    for key, ours, theirs in zip(NAMES, run(inputs, mask_is_logits=True), expected):
        assert ours.dtype == dtype
        step = 2.0 ** torch.frexp(theirs).exponent.clamp(min=-10) * torch.finfo(dtype).eps  # one unit in the last place
        assert ((ours.double() - theirs).abs() <= 0.51 * step).all(), key  # measured 0.503: exact sums end near a half


def test_a_logit_of_minus_infinity_leaves_its_point_out(run: Run) -> None:
    inputs = random_inputs(group_channels=8)
    inputs.mask[..., ::9] = -torch.inf
    for ours, theirs in zip(run(inputs, mask_is_logits=True), definition(inputs, mask_is_logits=True)):
        assert worst(ours, theirs) < 1e-12  # measured 4e-15


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_nan_and_infinity_stay_where_the_definition_has_them(run: Run, dtype: torch.dtype, logits: bool) -> None:
    inputs = in_sixteenths(random_inputs(1, 8, 8, group_channels=8)).to(dtype)
    inputs.value[0, 3, 3, 1] = torch.nan
    inputs.value[0, 6, 2, 5] = torch.inf
    inputs.offset[0, 0, 0, :4] = torch.tensor([torch.nan, 0.0, torch.inf, -torch.inf])
    inputs.mask[0, 7, 7, 0] = torch.nan
    inputs.offset[0, 7, 7, :2] = 0.0
    ours, theirs = run(inputs, mask_is_logits=logits)[0], definition(inputs, mask_is_logits=logits)[0]
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 if dtype is torch.float64 else 1e-5, equal_nan=True)


def test_tensors_that_begin_at_odd_addresses_are_read_all_the_same(cuda: Run) -> None:
    inputs = in_sixteenths(random_inputs(group_channels=16)).to(torch.float32)
    memory = torch.zeros(inputs.value.numel() + 1)
    memory[1:] = inputs.value.flatten()
    shifted = inputs._replace(value=memory[1:].view(inputs.value.shape))
    for ours, theirs in zip(by_nvrtc_on_a_cpu(shifted), definition(inputs)):
        assert worst(ours, theirs) < 1e-5  # measured 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30], ids="{:g}".format)
def test_fixed_point_sums_are_as_good_as_floating_ones(cuda: Run, dtype: torch.dtype, size: float) -> None:
    inputs = in_sixteenths(random_inputs(group_channels=8))
    inputs = inputs._replace(grad_output=inputs.grad_output * size).to(dtype)
    expected = definition(inputs.to(torch.float64))
    limit = {torch.float64: 2e-13, torch.float32: 2e-7, torch.bfloat16: 2**-8}[dtype]  # measured 5e-15, 9e-8, 2**-9
    for key, ours, theirs in zip(NAMES[1:], cuda(inputs, deterministic=True)[1:], expected[1:]):
        assert worst(ours.double(), theirs) < limit * float(theirs.abs().max()), key


def test_fixed_point_sums_say_so_when_a_number_is_not_finite(cuda: Run) -> None:
    inputs = random_inputs(group_channels=8).to(torch.float32)
    inputs.grad_output[0, 0, 0, 0] = torch.inf
    assert cuda(inputs, deterministic=True)[1].isnan().all()


def test_zero_gradients_stay_zero_in_fixed_point(cuda: Run) -> None:
    inputs = random_inputs(group_channels=8).to(torch.float32)
    inputs = inputs._replace(grad_output=torch.zeros_like(inputs.grad_output))
    assert all(not gradient.any() for gradient in cuda(inputs, deterministic=True)[1:])
