"""The backward in tiles against the float64 definition, thread by thread on this CPU."""

from functools import partial
from typing import Any

import pytest
import torch
from kernels_helpers import FAST, HALF, SIXTEEN_BITS, Run, by_cuda_on_a_cpu, by_nvrtc_on_a_cpu, tiles
from ops_helpers import Inputs, random_inputs, worst
from torch import Tensor

from vistalib.ops.definition import dcnv3_gradients

pytest.importorskip("vistalib_kernels")
NAMES = ("value", "offset", "mask")


# These kernels are nobody's default: by the other launcher they are slow tests.
@pytest.fixture(params=["cuda", pytest.param("nvrtc", marks=pytest.mark.slow)])
def cuda(request: pytest.FixtureRequest) -> Run:
    return partial({"cuda": by_cuda_on_a_cpu, "nvrtc": by_nvrtc_on_a_cpu}[request.param], **FAST)


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
    pytest.param({"height": 24, "width": 24, "groups": 9}, id="more-sheets-than-a-ring-has-places"),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_float32_agrees_with_the_float64_definition(cuda: Run, shape: dict[str, Any], logits: bool) -> None:
    inputs = inputs_of(shape)
    assert tiles(inputs) > 0
    ours = cuda(inputs.to(torch.float32), mask_is_logits=logits)[1:]
    for key, found, theirs in zip(NAMES, ours, expected(inputs, mask_is_logits=logits)):
        assert worst(found, theirs.float()) < 1e-6 * max(1.0, float(theirs.abs().max())), key  # measured 4e-7


def assert_rounded_once(ours: tuple[Tensor, ...], inputs: Inputs, slack: float, **more: bool) -> None:
    """Beside half a unit in the last place there is only what sums of numbers in float32 leave whose parts cancel out."""
    for key, found, theirs in zip(NAMES, ours[1:], expected(inputs.to(torch.float64), **more)):
        step = 2.0 ** torch.frexp(theirs).exponent.clamp(min=-10) * torch.finfo(found.dtype).eps  # one unit in the last place
        beyond = (found.double() - theirs).abs() - 0.5 * step
        assert beyond.max() <= slack * max(1.0, float(theirs.abs().max())), key


@SIXTEEN_BITS
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("logits", [pytest.param(False, marks=pytest.mark.slow), True], ids=["mask", "logits"])
def test_sixteen_bit_gradients_are_rounded_once(cuda: Run, dtype: torch.dtype, shape: dict[str, Any], logits: bool) -> None:
    inputs = inputs_of(shape, dtype)
    assert tiles(inputs) > 0
    # A softmax has all digits, of which a share in tensor cores keeps 16 or 22: measured 1.6e-6 and 6e-9; else 1.2e-8.
    slack = 3e-6 if logits and dtype == torch.bfloat16 else 1e-7
    assert_rounded_once(cuda(inputs, mask_is_logits=logits), inputs, slack, mask_is_logits=logits)


@SIXTEEN_BITS
@pytest.mark.parametrize("shape", [{"group_channels": 16}, {"group_channels": 32, "spread": 3.0}], ids=["D16", "D32-far"])
def test_without_tensor_cores_sixteen_bit_gradients_are_rounded_once(
    cuda: Run, dtype: torch.dtype, shape: dict[str, Any]
) -> None:
    inputs = inputs_of(shape, dtype)
    assert_rounded_once(cuda(inputs, tensor_cores=False), inputs, 1e-7)  # measured 6e-9


@pytest.mark.slow
@pytest.mark.parametrize("tensor_cores", [True, False], ids=["products", "lists"])
def test_blocks_that_run_at_the_same_time_wait_for_each_other(tensor_cores: bool) -> None:
    inputs = inputs_of({"height": 24, "width": 24, "groups": 9}, torch.float16)  # of which a ring has 4
    for _ in range(3):
        assert_rounded_once(by_cuda_on_a_cpu(inputs, in_tiles=True, tensor_cores=tensor_cores, processes=12), inputs, 1e-7)


def test_without_tiles_the_gradients_are_the_same(cuda: Run) -> None:
    inputs = inputs_of({"spread": 2.0}, torch.float32)
    for key, ours, theirs in zip(NAMES, cuda(inputs)[1:], cuda(inputs, in_tiles=False)[1:]):
        assert worst(ours, theirs) < 1e-5, key  # measured 4e-6: other orders of adding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, HALF], ids=str)
@pytest.mark.parametrize("outside", [torch.nan, torch.inf], ids=str)
@pytest.mark.parametrize("where", ["value", "grad_output", "mask"])
def test_what_is_not_finite_reaches_the_same_gradients_as_without_tiles(
    cuda: Run, dtype: torch.dtype, outside: float, where: str
) -> None:
    inputs = inputs_of({}, dtype)
    if where == "value":
        inputs.value[0, 0, 29, 3] = outside  # a corner of the image, where points have corners beyond it
        inputs.value[0, 8, 8, 20] = outside  # and the middle of a tile
    elif where == "grad_output":
        inputs.grad_output[0, 17, 0, 20] = outside
    else:
        inputs.mask[0, 5, 7, 4] = outside
    for key, ours, theirs in zip(NAMES, cuda(inputs)[1:], cuda(inputs, in_tiles=False)[1:]):
        assert torch.equal(ours.isfinite(), theirs.isfinite()), key
        finite, most = ours.isfinite(), {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
        assert ((ours - theirs)[finite].abs() <= most * theirs[finite].abs().clamp(min=1.0)).all(), key  # a rounding apart


@SIXTEEN_BITS
def test_no_point_is_lost_where_all_are_in_one_cell_or_none(cuda: Run, dtype: torch.dtype) -> None:
    inputs = inputs_of({"height": 16, "width": 16, "groups": 1}, dtype)
    column, row = torch.arange(16), torch.arange(16)[:, None]
    at = (8.25 - column.expand(16, 16), 4.75 - row.expand(16, 16))  # every point of the tile to one place
    window = torch.arange(9)
    moves = torch.stack((at[0][..., None] - (window // 3 - 1), at[1][..., None] - (window % 3 - 1)), -1)
    for offset in (moves, torch.full_like(moves, 100.0), torch.full_like(moves, torch.nan)):
        given = inputs._replace(offset=offset.reshape(inputs.offset.shape).to(dtype))
        assert_rounded_once(cuda(given), given, 1e-6)


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
