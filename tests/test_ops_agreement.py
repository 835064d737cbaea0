"""All backends, through `dcnv3` and its autograd, against plain loops on drawn cases, and how far each dtype is from float64.

The drawn cases have even kernels, unequal strides, paddings and dilations, several groups, stretched and mirrored windows, and
points far outside, exactly on whole pixels, or exactly on the borders at -1, 0, W - 1 and W.
"""

import pytest
import torch
from backend_pairs import CPU_BACKENDS, skip_unusable
from ops_helpers import NAMES, Inputs, called, disagreements, random_inputs, worst
from ops_scalar import scalar_truth

from vistalib.ops import dcnv3

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=CPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    skip_unusable(request.param)
    return request.param


@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
@pytest.mark.parametrize("seed", range(48))
def test_a_drawn_case_is_what_plain_loops_make_of_it(backend: str, seed: int, logits: bool) -> None:
    inputs, truth = scalar_truth(seed, logits)
    assert not disagreements(called(dcnv3, inputs, backend=backend, mask_is_logits=logits), truth)  # measured 1.1e-15


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits_read_and_write_every_pixel_of_a_wide_image(backend: str, dtype: torch.dtype) -> None:
    width = 5000  # neighbouring pixels have one number from 2048 on in float16, from 256 on in bfloat16
    value = (torch.arange(width) % 250).to(dtype).view(1, 1, width, 1)
    grad_output = value.flip(2)
    offset, mask = torch.zeros(1, 1, width, 2, dtype=dtype), torch.ones(1, 1, width, 1, dtype=dtype)
    inputs = Inputs(value, offset, mask, grad_output, {"groups": 1, "kernel_size": 1, "padding": 0})
    output, grad_value, _, grad_mask = called(dcnv3, inputs, backend=backend)
    assert torch.equal(output, value)
    assert torch.equal(grad_value, grad_output)
    assert torch.equal(grad_mask, (value.float() * grad_output.float()).to(dtype))


def worst_errors(backend: str, dtype: torch.dtype) -> dict[str, float]:
    """The largest error of output and gradients, as a share of the largest number there, against float64 on the same inputs.

    Offsets are rounded to 1/64 pixel, so that every dtype looks at the same places: in between, a gradient by x or y has jumps.
    """
    inputs = random_inputs(2, 16, 32, groups=4, group_channels=16, spread=1.0)
    inputs = inputs._replace(offset=(inputs.offset * 64).round().clamp(-255, 255) / 64).to(dtype)
    exact = called(dcnv3, inputs.to(torch.float64), backend="torch", mask_is_logits=True)
    results = called(dcnv3, inputs, backend=backend, mask_is_logits=True)
    return {name: worst(ours, truth) / float(truth.abs().max()) for name, ours, truth in zip(NAMES, results, exact)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_error_is_that_of_rounding_the_result(backend: str, dtype: torch.dtype) -> None:
    errors = worst_errors(backend, dtype)  # `pytest -s` shows the table
    print(f"\n{backend:6} {str(dtype).removeprefix('torch.'):9}", *(f"{name} {error:.1e}" for name, error in errors.items()))
    # Measured 2.6 in float32 and 2.1 in float64, where sums are rounded too; 0.39 in 16 bits, where a result is rounded once.
    assert max(errors.values()) <= (0.5 if dtype.itemsize == 2 else 4) * torch.finfo(dtype).eps
