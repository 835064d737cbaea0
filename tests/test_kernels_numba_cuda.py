"""The GPU kernels of Numba without a GPU: their numbers under the CUDA simulator, and that they compile for real cards."""

import json
import re
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from helpers import run_with_torch
from kernels_simulated import CASES

pytest.importorskip("numba")

VARIANTS = ("naive", "shared", "vector")


def run_simulated(code: str) -> str:
    """Run `code` in a process of its own, since a process has either the simulator or the GPU."""
    return run_with_torch(f"import os\nos.environ['NUMBA_ENABLE_CUDASIM'] = '1'\n{code}")


@cache
def simulated(variant: str) -> dict[str, dict[str, float]]:
    """What kernels_simulated.py found: the errors of each case."""
    errors: dict[str, dict[str, float]] = json.loads(run_simulated(f"import kernels_simulated as k; k.main({variant!r})"))
    return errors


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("variant", [*(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS[:-1]), VARIANTS[-1]])
def test_a_simulated_kernel_agrees_with_the_definition(variant: str, case: str) -> None:
    errors = simulated(variant)[case]
    assert len(errors) == 8
    assert max(errors.values()) < 4, errors  # units in the last place; measured 2.1


def test_every_step_of_the_ladder_can_be_called_by_its_name_and_no_other() -> None:
    code = """
import torch
from ops_helpers import random_inputs
from vistalib_kernels import numba_cuda
inputs = random_inputs(1, 1, 1, group_channels=3)
for variant in ("vector", "fast"):
    try:
        numba_cuda.forward(*inputs.tensors, **inputs.settings, mask_is_logits=False, variant=variant)
    except ValueError as error:
        print(error)
"""
    assert run_simulated(code).splitlines() == [
        "variant 'vector' needs a multiple of 2 channels a group in torch.float64, got 3; use variant='shared'",
        "variant must be one of naive, shared, vector, got 'fast'; leave it out for the fastest",
    ]


def test_a_backward_pass_by_atomics_is_refused_where_determinism_is_asked_for() -> None:
    code = """
import torch, warnings
from ops_helpers import random_inputs
from vistalib_kernels import numba_cuda
inputs = random_inputs(1, 1, 1, groups=1, group_channels=1)
call = lambda: numba_cuda.backward(inputs.grad_output, *inputs.tensors, **inputs.settings, mask_is_logits=False)
torch.use_deterministic_algorithms(True)
try:
    call()
except RuntimeError as error:
    print(str(error)[:63])
torch.use_deterministic_algorithms(True, warn_only=True)
with warnings.catch_warnings(record=True) as caught:
    call()
print(len(caught))
"""
    assert run_simulated(code).splitlines() == ["the backward pass of backend 'numba-cuda' is not deterministic:", "1"]


def compiled(direction: str, variant: str, dtype: torch.dtype, capability: tuple[int, int]) -> str:
    """PTX of the kernel that InternImage uses: 3x3 points, 16 channels a group, softmax inside."""
    pytest.importorskip("numba_cuda")
    from vistalib_kernels import numba_cuda
    from vistalib_kernels.gpu_parts import Build

    build = Build(dtype, 16, (3, 3), (1, 1), (1, 1), (1, 1), True)
    return numba_cuda.ptx(direction, variant, build, capability=capability)


def check(code: str, variant: str, dtype: torch.dtype, capability: tuple[int, int]) -> None:
    assert f".target sm_{capability[0]}{capability[1]}" in code
    sixteen_bytes = "ld.global.v2.f64" if dtype is torch.float64 else "ld.global.v4"
    assert (sixteen_bytes in code) == (variant == "vector")
    assert "call" not in re.sub(r"//.*", "", code), "a function that was not inlined"
    assert dtype is torch.float64 or ".f64" not in code, "arithmetic in float64 by mistake"


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("capability", [pytest.param((7, 5), marks=pytest.mark.slow), (9, 0)], ids=["sm_75", "sm_90"])
def test_the_last_step_compiles_without_a_gpu(direction: str, capability: tuple[int, int]) -> None:
    check(compiled(direction, "vector", torch.bfloat16, capability), "vector", torch.bfloat16, capability)


DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "variant", "dtype"), list(product(("forward", "backward"), VARIANTS, DTYPES)), ids=str)
@pytest.mark.parametrize("capability", [(7, 5), (9, 0)], ids=["sm_75", "sm_90"])
def test_every_kernel_compiles_without_a_gpu(direction: str, variant: str, dtype: Any, capability: tuple[int, int]) -> None:
    check(compiled(direction, variant, dtype, capability), variant, dtype, capability)


def test_importing_the_kernels_of_cpus_imports_no_cuda() -> None:
    code = "import sys; from vistalib_kernels import numba_cpu; print([name for name in sys.modules if 'numba.cuda' in name])"
    assert run_with_torch(code) == "[]"
