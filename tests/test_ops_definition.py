"""The definition in PyTorch against recorded numbers of the released CUDA formula, and against itself."""

import pytest
import torch
from ops_helpers import RECORDED, Inputs, called, disagreements, random_inputs, recorded, worst

from vistalib.ops import dcnv3_definition, output_size, sampling_locations
from vistalib.ops.definition import dcnv3_gradients


def by_formula(inputs: Inputs, **more: bool) -> tuple[torch.Tensor, ...]:
    gradients = dcnv3_gradients(inputs.grad_output, *inputs.tensors, **inputs.settings, **more)
    return (dcnv3_definition(*inputs.tensors, **inputs.settings, **more), *gradients)


@pytest.mark.parametrize("name", RECORDED)
def test_output_and_gradients_by_autograd_are_the_recorded_ones(name: str) -> None:
    inputs, truth = recorded(name)
    assert not disagreements(called(dcnv3_definition, inputs), truth)  # measured 3.6e-15


@pytest.mark.parametrize("name", RECORDED)
def test_output_and_gradients_by_formula_are_the_recorded_ones(name: str) -> None:
    inputs, truth = recorded(name)
    assert not disagreements(by_formula(inputs), truth)  # measured 3.6e-15


def test_gradients_by_formula_are_those_of_autograd_through_the_softmax() -> None:
    inputs = random_inputs(kernel_size=(3, 5), padding=(1, 2), offset_scale=0.7)
    for ours, autograd in zip(by_formula(inputs, mask_is_logits=True), called(dcnv3_definition, inputs, mask_is_logits=True)):
        assert worst(ours, autograd) < 1e-12  # measured 2e-15


def test_zero_offsets_and_equal_masks_make_an_ordinary_box_filter() -> None:
    value = torch.randn(1, 6, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    offset, mask = torch.zeros(1, 6, 8, 18, dtype=torch.float64), torch.full((1, 6, 8, 9), 1 / 9, dtype=torch.float64)
    box = torch.nn.functional.avg_pool2d(value.permute(0, 3, 1, 2), 3, stride=1, padding=1).permute(0, 2, 3, 1)
    assert worst(dcnv3_definition(value, offset, mask, groups=1), box) < 1e-14  # measured 1.2e-16


def test_points_go_down_the_columns_of_the_window() -> None:
    location = sampling_locations(torch.zeros(1, 3, 3, 12), groups=1, kernel_size=(2, 3), padding=(0, 1))
    assert location[0, 1, 1, 0].tolist() == [[0, 1], [0, 2], [1, 1], [1, 2], [2, 1], [2, 2]]


def test_offset_scale_stretches_the_window_about_its_centre() -> None:
    location = sampling_locations(torch.zeros(1, 3, 3, 18), groups=1, offset_scale=2.0)
    assert location[0, 1, 1, 0, 0].tolist() == [-1, -1]
    assert location[0, 1, 1, 0, 4].tolist() == [1, 1]
    assert location[0, 1, 1, 0, 8].tolist() == [3, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bit_offsets_find_every_pixel_of_a_wide_image(dtype: torch.dtype) -> None:
    width = 5000
    location = sampling_locations(torch.zeros(1, 1, width, 2, dtype=dtype), groups=1, kernel_size=1, padding=0)
    assert location.dtype == torch.float32
    assert torch.equal(location[0, 0, :, 0, 0, 0], torch.arange(width, dtype=torch.float32))


@pytest.mark.parametrize("x", [-1.0, 4.0, 1e30, float("inf"), float("nan")], ids=str)
def test_a_point_outside_adds_nothing_and_gets_no_gradient(x: float) -> None:
    value = torch.ones(1, 1, 4, 1, dtype=torch.float64)
    offset = torch.tensor([x, 0.0], dtype=torch.float64).expand(1, 1, 1, 2)
    inputs = Inputs(value, offset, torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64), {})
    inputs.settings.update(groups=1, kernel_size=1, padding=0, stride=4)
    assert [tensor.abs().sum().item() for tensor in called(dcnv3_definition, inputs)] == [0, 0, 0, 0]


def test_at_a_whole_location_the_slope_is_that_to_the_next_pixel() -> None:
    value = torch.tensor([3.0, 5.0, 11.0], dtype=torch.float64).view(1, 1, 3, 1)
    offset, mask = torch.zeros(1, 1, 3, 2, dtype=torch.float64), torch.ones(1, 1, 3, 1, dtype=torch.float64)
    settings = {"groups": 1, "kernel_size": 1, "padding": 0}
    _, _, grad_offset, _ = called(dcnv3_definition, Inputs(value, offset, mask, torch.ones_like(value), settings))
    assert grad_offset[0, 0, :, 0].tolist() == [2.0, 6.0, -11.0]


def test_an_infinite_pixel_outside_the_window_is_never_multiplied_by_zero() -> None:
    value = torch.zeros(1, 1, 2, 1, dtype=torch.float64)
    value[0, 0, 1] = float("inf")
    offset, mask = torch.tensor([-0.5, 0.0] * 2, dtype=torch.float64).view(1, 1, 2, 2), torch.ones(1, 1, 2, 1).double()
    output = dcnv3_definition(value, offset, mask, groups=1, kernel_size=1, padding=0)
    assert output.flatten().tolist() == [0.0, float("inf")]


@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_gradcheck(logits: bool) -> None:
    inputs = random_inputs(1, 2, 3, group_channels=2, kernel_size=(2, 1), dilation=(1, 2), padding=(1, 0))
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]
    assert torch.autograd.gradcheck(lambda *three: dcnv3_definition(*three, **inputs.settings, mask_is_logits=logits), tensors)


def test_output_size_is_that_of_a_convolution() -> None:
    sizes = {"kernel_size": (2, 5), "stride": (3, 2), "padding": (1, 3), "dilation": (2, 1)}
    convolved = torch.nn.Conv2d(1, 1, **sizes)(torch.zeros(1, 1, 17, 20))
    assert output_size(17, 20, **sizes) == tuple(convolved.shape[2:])
