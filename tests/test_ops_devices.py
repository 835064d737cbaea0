"""Where there is a GPU: every backend there against the definition on a CPU, all shapes and dtypes, output and gradients.

The definition stands among the backends, so that what the tests say is tried without a GPU, too.
"""

from typing import Any

import pytest
import torch
from backend_pairs import FAST, GPU_PAIRS, in_tier, skip_unusable
from ops_helpers import RECORDED, Inputs, random_inputs, recorded, worst
from torch import Tensor

from vistalib.ops import dcnv3, dcnv3_definition
from vistalib.ops.definition import dcnv3_gradients

NAMES = ("output", "value", "offset", "mask")


class Backend:
    """One backend on one device; called like `definition`."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device

    def __call__(self, inputs: Inputs, **more: bool) -> list[Tensor]:
        """Output and gradients of value, offset and mask, brought to the CPU."""
        *three, grad_output = (tensor.to(self.device) for tensor in (*inputs.tensors, inputs.grad_output))
        tensors = [tensor.detach().requires_grad_() for tensor in three]
        output = dcnv3(*tensors, **inputs.settings, **more, backend=self.name)
        gradients = torch.autograd.grad(output, tensors, grad_output)
        return [tensor.detach().cpu() for tensor in (output, *gradients)]


MORE = [(f"cuda{FAST}", "cuda"), ("nvrtc", "cuda"), (f"nvrtc{FAST}", "cuda")] if GPU_PAIRS else []


@pytest.fixture(params=[("torch", "cpu"), *GPU_PAIRS, *MORE], ids="-".join)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    name, device = request.param
    name = in_tier(name, monkeypatch)
    if name == "nvrtc":  # as "cuda" is where nothing was built
        from vistalib_kernels import cuda, nvrtc

        monkeypatch.setattr(cuda, "_kernels", lambda device: nvrtc)
        name = "cuda"
    skip_unusable(name)
    return Backend(name, device)


def definition(inputs: Inputs, **more: bool) -> tuple[Tensor, ...]:
    gradients = dcnv3_gradients(inputs.grad_output, *inputs.tensors, **inputs.settings, **more)
    return (dcnv3_definition(*inputs.tensors, **inputs.settings, **more), *gradients)


@pytest.mark.parametrize("name", RECORDED)
def test_output_and_gradients_are_the_recorded_ones(kernels: Backend, name: str) -> None:
    inputs, truth = recorded(name)
    for key, tensor in zip(NAMES, kernels(inputs)):
        assert worst(tensor, truth[key]) < 1e-12, key  # measured 1.4e-14


SHAPES = [
    pytest.param({"group_channels": 1, "groups": 3}, id="D1"),
    pytest.param({"group_channels": 3, "groups": 3}, id="D3"),
    pytest.param({"group_channels": 30, "groups": 1}, id="D30"),
    pytest.param({"height": 1, "width": 1}, id="one-pixel"),
    pytest.param({"height": 1, "width": 600}, id="longer-than-a-tile"),
    pytest.param({"height": 9, "width": 8, "stride": (2, 3)}, id="stride"),
    pytest.param({"kernel_size": (4, 2), "padding": (3, 0), "dilation": (2, 1)}, id="even-kernel"),
    pytest.param({"kernel_size": (7, 7), "padding": (3, 3), "groups": 30}, id="more-points-than-a-tile"),
    pytest.param({"offset_scale": 0.7, "spread": 0.0}, id="whole-locations"),
    pytest.param({"spread": 30.0}, id="mostly-outside"),
    pytest.param({"images": 3, "height": 17, "width": 33, "groups": 5, "group_channels": 16}, id="odd-sizes"),
    pytest.param({"group_channels": 32, "groups": 1, "stride": (2, 2)}, id="D32"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_float64_agrees_with_the_definition(kernels: Backend, shape: dict[str, Any], logits: bool) -> None:
    inputs = random_inputs(**shape)
    for key, ours, theirs in zip(NAMES, kernels(inputs, mask_is_logits=logits), definition(inputs, mask_is_logits=logits)):
        assert worst(ours, theirs) < 1e-12, key  # measured 5e-14


@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_float32_agrees_with_the_float64_definition_at_the_same_locations(kernels: Backend, logits: bool) -> None:
    inputs = random_inputs(2, 16, 32, groups=4, group_channels=16, dtype=torch.float32, spread=1.0)
    exact_offset = (inputs.offset * 64).round() / 64  # few digits: locations are exact in float32 too
    inputs = inputs._replace(offset=exact_offset)
    expected = definition(inputs.to(torch.float64), mask_is_logits=logits)
    for key, ours, theirs in zip(NAMES, kernels(inputs, mask_is_logits=logits), expected):
        assert worst(ours, theirs.float()) < 2e-5, key  # measured 4e-6, at gradients of about 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_softmax_inside_is_the_softmax_outside(kernels: Backend, dtype: torch.dtype) -> None:
    inputs = random_inputs(dtype=dtype)
    inputs = inputs._replace(mask=inputs.mask * 20)
    mask = inputs.mask.unflatten(-1, (2, 9)).softmax(-1).flatten(-2)
    inside, outside = kernels(inputs, mask_is_logits=True)[0], kernels(inputs._replace(mask=mask))[0]
    assert worst(inside, outside) < 8 * torch.finfo(dtype).eps  # measured 2


def test_a_logit_of_minus_infinity_leaves_its_point_out(kernels: Backend) -> None:
    inputs = random_inputs()
    inputs.mask[..., ::9] = -torch.inf
    for ours, theirs in zip(kernels(inputs, mask_is_logits=True), definition(inputs, mask_is_logits=True)):
        assert worst(ours, theirs) < 1e-12  # measured 4e-15


def test_nan_and_infinity_stay_where_the_definition_has_them(kernels: Backend) -> None:
    inputs = random_inputs(1, 8, 8)
    inputs.value[0, 3, 3, 1] = torch.nan
    inputs.value[0, 6, 2, 5] = torch.inf
    inputs.offset[0, 0, 0, :4] = torch.tensor([torch.nan, 0.0, torch.inf, -torch.inf])
    inputs.mask[0, 7, 7, 0] = torch.nan
    inputs.offset[0, 7, 7, :2] = 0.0
    for logits in (False, True):
        ours, theirs = kernels(inputs, mask_is_logits=logits)[0], definition(inputs, mask_is_logits=logits)[0]
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_cost_no_more_than_the_rounding_of_the_result(kernels: Backend, dtype: torch.dtype) -> None:
    inputs = random_inputs(2, 9, 11, groups=3, group_channels=16, dtype=dtype)
    for key, ours, exact in zip(
        NAMES, kernels(inputs, mask_is_logits=True), definition(inputs.to(torch.float64), mask_is_logits=True)
    ):
        unit = torch.finfo(dtype).eps * exact.abs().max().item()
        assert worst(ours, exact) < unit, key  # measured 0.5


def test_non_contiguous_tensors_at_odd_addresses_are_read_right(kernels: Backend) -> None:
    inputs = random_inputs(1, 6, 5, groups=2, group_channels=8, dtype=torch.float32).to(kernels.device)
    shifted = [torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape) for tensor in inputs.tensors]
    strided = [tensor.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for tensor in inputs.tensors]
    plain = kernels(inputs)
    for tensors in (shifted, strided):
        for one, other in zip(plain, kernels(Inputs(*tensors, inputs.grad_output, inputs.settings))):
            assert worst(one, other) < 1e-5  # measured 0 on CPUs; GPUs add in any order
