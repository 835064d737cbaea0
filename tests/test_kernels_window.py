"""The forward by tensor cores against the float64 definition and the other kernels, thread by thread on this CPU."""

from functools import partial
from typing import Any

import pytest
import torch
from kernels_helpers import FAST, SIXTEEN_BITS, Run, by_cuda_on_a_cpu, by_nvrtc_on_a_cpu, products, windows
from ops_helpers import Inputs, random_inputs
from torch import Tensor

from vistalib.ops import dcnv3_definition

pytest.importorskip("vistalib_kernels")


# These kernels are nobody's default: by the other launcher they are slow tests.
@pytest.fixture(params=["cuda", pytest.param("nvrtc", marks=pytest.mark.slow)])
def cuda(request: pytest.FixtureRequest) -> Run:
    return partial({"cuda": by_cuda_on_a_cpu, "nvrtc": by_nvrtc_on_a_cpu}[request.param], **FAST)


def inputs_of(shape: dict[str, Any], dtype: torch.dtype, reach: float) -> Inputs:
    """Two rows and two columns of tiles, only the first full; no point leaves its place by more than `reach` pixels."""
    usual = {"images": 1, "height": 18, "width": 30, "groups": 2, "group_channels": 16, "spread": 0.7 * reach}
    inputs = random_inputs(**{**usual, **shape})
    most = reach / inputs.settings["offset_scale"]
    offset = (inputs.offset / inputs.settings["offset_scale"] * 16).round().clamp(-most * 16, most * 16) / 16
    return inputs._replace(offset=offset).to(dtype)


def forward(cuda: Run, inputs: Inputs, *, tensor_cores: bool = True, logits: bool = True) -> Tensor:
    return cuda(inputs, mask_is_logits=logits, tensor_cores=tensor_cores)[0]


def excess(inputs: Inputs, ours: Tensor, *, logits: bool = True) -> float:
    """What the worst error has beyond half a unit in the last place, in parts of the largest number."""
    theirs = dcnv3_definition(*inputs.to(torch.float64).tensors, **inputs.settings, mask_is_logits=logits)
    info = torch.finfo(inputs.value.dtype)
    unit = 2.0 ** torch.frexp(theirs).exponent.sub(1).clamp(min=-13) * info.eps
    return float(((ours.double() - theirs).abs() - unit / 2).max() / theirs.abs().max())


SHAPES = [
    pytest.param({}, id="scale-1"),
    pytest.param({"offset_scale": 2.0}, id="scale-2"),
    pytest.param({"images": 2, "height": 16, "width": 16, "groups": 1, "offset_scale": 2.0}, id="two-images"),
    pytest.param({"height": 33, "width": 15, "groups": 3, "offset_scale": 2.0}, id="three-groups"),
    pytest.param({"height": 19, "width": 27, "groups": 5}, id="five-groups"),
    pytest.param({"padding": (0, 3), "offset_scale": 2.0}, id="padding"),
]


@SIXTEEN_BITS
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reach", [0.0, 1.0, 2.0], ids="reach-{:g}".format)
@pytest.mark.parametrize("logits", [pytest.param(False, marks=pytest.mark.slow), True], ids=["mask", "logits"])
def test_results_are_rounded_once(cuda: Run, dtype: torch.dtype, shape: dict[str, Any], reach: float, logits: bool) -> None:
    inputs = inputs_of(shape, dtype, reach)
    assert windows(inputs) > 0
    limit = {torch.bfloat16: 1e-5, torch.float16: 2e-7}[dtype]  # measured 6.3e-6, 1.5e-7: weights have 16 and 22 digits
    assert excess(inputs, forward(cuda, inputs, logits=logits), logits=logits) < limit


@SIXTEEN_BITS
@pytest.mark.parametrize("reach", [1.0, 2.0], ids="reach-{:g}".format)
def test_the_products_are_taken(cuda: Run, dtype: torch.dtype, reach: float) -> None:
    inputs = inputs_of({"offset_scale": 2.0}, dtype, reach)
    assert (forward(cuda, inputs) != forward(cuda, inputs, tensor_cores=False)).any()  # sums of other orders and digits


@SIXTEEN_BITS
def test_a_turn_with_one_point_too_far_is_gathered_and_no_other(cuda: Run, dtype: torch.dtype) -> None:
    inputs = inputs_of({"offset_scale": 2.0, "height": 16, "width": 16, "groups": 1}, dtype, 2.0)
    near, gathered = forward(cuda, inputs), forward(cuda, inputs, tensor_cores=False)
    inputs.offset[0, 5, 9, 0] = 1.25  # of unit (5, 9): rows 4 to 7, columns 8 to 15
    far, all_far = forward(cuda, inputs), forward(cuda, inputs, tensor_cores=False)
    assert torch.equal(far[:, 4:8, 8:], all_far[:, 4:8, 8:])
    assert (near[:, 4:8, 8:] != gathered[:, 4:8, 8:]).any()
    outside = torch.ones_like(far, dtype=torch.bool)
    outside[:, 4:8, 8:] = False
    assert torch.equal(far[outside], near[outside])


@SIXTEEN_BITS
def test_points_all_too_far_are_gathered(cuda: Run, dtype: torch.dtype) -> None:
    inputs = inputs_of({"height": 33, "width": 15, "groups": 3}, dtype, 16.0)
    assert torch.equal(forward(cuda, inputs), forward(cuda, inputs, tensor_cores=False))


@SIXTEEN_BITS
@pytest.mark.parametrize("row", [4, 12], ids=["first-turns", "later-turns"])
def test_one_near_turn_of_a_block_whose_others_gather_finds_its_window(cuda: Run, dtype: torch.dtype, row: int) -> None:
    shape = {"height": 16, "width": 16, "groups": 1}
    near, far = inputs_of(shape, dtype, 2.0), inputs_of(shape, dtype, 16.0)
    far.offset[:, row : row + 4, 8:] = near.offset[:, row : row + 4, 8:]
    mixed, gathered = forward(cuda, far), forward(cuda, far, tensor_cores=False)
    assert torch.equal(mixed[:, row : row + 4, 8:], forward(cuda, near)[:, row : row + 4, 8:])
    assert (mixed[:, row : row + 4, 8:] != gathered[:, row : row + 4, 8:]).any()
    mixed[:, row : row + 4, 8:] = gathered[:, row : row + 4, 8:]
    assert torch.equal(mixed, gathered)


@SIXTEEN_BITS
@pytest.mark.parametrize("scale", [1.0, 2.0], ids="scale-{:g}".format)
def test_points_at_the_edge_of_the_stencil_are_in_it(cuda: Run, dtype: torch.dtype, scale: float) -> None:
    inputs = inputs_of({"height": 16, "width": 16, "groups": 1, "offset_scale": scale}, dtype, 1.0)
    edge = torch.tensor(2.0 / scale, dtype=dtype)
    beyond = (edge.view(torch.int16) + 1).view(dtype)
    for place, sign in ((0, 1), (17, -1)):
        inputs.offset[:, ::4, ::8, place] = sign * edge  # a point of each turn
        assert (forward(cuda, inputs) != forward(cuda, inputs, tensor_cores=False)).any()
        inputs.offset[:, ::4, ::8, place] = sign * beyond
        assert torch.equal(forward(cuda, inputs), forward(cuda, inputs, tensor_cores=False))
        inputs.offset[:, ::4, ::8, place] = 0.0


@SIXTEEN_BITS
def test_points_that_are_nowhere_leave_their_turn_to_the_products(cuda: Run, dtype: torch.dtype) -> None:
    inputs = inputs_of({"height": 16, "width": 16, "groups": 1, "offset_scale": 2.0}, dtype, 1.0)
    before, gathered = forward(cuda, inputs), forward(cuda, inputs, tensor_cores=False)
    assert (before != gathered).any()
    inputs.offset[:, 1::4, 3::8] = torch.nan  # of a unit of each turn
    after = forward(cuda, inputs)
    assert (after[:, 1::4, 3::8] == 0).all()
    after[:, 1::4, 3::8] = before[:, 1::4, 3::8]
    assert torch.equal(after, before)


def test_a_narrow_stencil_after_a_wide_one_finds_its_band_clean(cuda: Run) -> None:
    inputs = inputs_of({"offset_scale": 2.0, "height": 16, "width": 16, "groups": 1}, torch.bfloat16, 1.0)
    near = forward(cuda, inputs)
    inputs.offset[0, 0, 0, 0] = 1.0  # of the first turn of the first warp, whose second one is rows 8 to 11
    assert torch.equal(forward(cuda, inputs)[:, 4:], near[:, 4:])


@SIXTEEN_BITS
@pytest.mark.parametrize("outside", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("logits", [pytest.param(False, marks=pytest.mark.slow), True], ids=["mask", "logits"])
def test_what_is_not_finite_stays_where_the_gather_has_it(cuda: Run, dtype: torch.dtype, outside: float, logits: bool) -> None:
    inputs = inputs_of({"offset_scale": 2.0, "height": 32, "width": 32}, dtype, 1.0)
    inputs.value[0, 9, 20, 3] = outside
    inputs.value[0, 0, 31, 21] = outside  # a corner of the image, where points have corners beyond it
    inputs.mask[0, 28, 3, 4] = outside
    inputs.offset[0, 25, 25, :3] = outside
    ours, theirs = forward(cuda, inputs, logits=logits), forward(cuda, inputs, tensor_cores=False, logits=logits)
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    assert not ours.isfinite().all()
    wrong = ours[~ours.isfinite()].nan_to_num(0.5, 1.0, -1.0)
    assert torch.equal(wrong, theirs[~theirs.isfinite()].nan_to_num(0.5, 1.0, -1.0))
    ours, theirs = ours[ours.isfinite()].double(), theirs[theirs.isfinite()].double()
    unit = torch.finfo(dtype).eps * theirs.abs().clamp(min=2**-6)
    assert ((ours - theirs).abs() <= unit).all()


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param({"stride": (2, 1), "height": 32}, id="stride"),
        pytest.param({"dilation": (2, 2), "padding": (2, 2)}, id="dilation"),
        pytest.param({"offset_scale": 1.5}, id="scale-1.5"),
        pytest.param({"height": 7, "width": 7}, id="tiles-mostly-empty"),
        pytest.param({"group_channels": 32}, id="D32"),
    ],
)
def test_calls_that_the_window_does_not_suit_take_the_other_kernels(cuda: Run, shape: dict[str, Any]) -> None:
    inputs = inputs_of(shape, torch.bfloat16, 1.0)
    assert windows(inputs) == 0
    assert torch.equal(forward(cuda, inputs), forward(cuda, inputs, tensor_cores=False))


@SIXTEEN_BITS
def test_matrices_lie_in_registers_as_the_instruction_set_says(dtype: torch.dtype) -> None:
    a, b = torch.arange(256.0).view(16, 16) / 16, torch.arange(128.0).flip(0).view(16, 8) / 8 - 5
    a, b = a.to(dtype), b.to(dtype)
    by_rows, by_columns = products(a, b)
    assert torch.equal(by_rows, a.float() @ b.float())
    assert torch.equal(by_columns, by_rows)
