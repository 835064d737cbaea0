"""Which of the two tiers of CUDA kernels a call gets: the fast one, which no GPU has run, only where it is asked for."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernels_helpers import FAST
from ops_helpers import Inputs, random_inputs

from vistalib.cli import main
from vistalib.ops import backend_status, backends

pytest.importorskip("vistalib_kernels")
from vistalib_kernels import cuda, extension, nvrtc
from vistalib_kernels.build import Built

CHOICES = "VISTALIB_KERNELS_TIER must be one of default, fast, got 'quick'; unset it for the default"
NAMES = {torch.float32: "float", torch.float16: "dcnv3::Half", torch.bfloat16: "dcnv3::BFloat16"}
DTYPES = pytest.mark.parametrize("dtype", NAMES, ids=str)
ASKED = {"default": False, "fast": True}
TIERS = pytest.mark.parametrize("tier", ASKED)


def inputs_of(dtype: torch.dtype) -> Inputs:
    """For which either tier has a kernel, in both directions."""
    return random_inputs(1, 18, 30, groups=2, group_channels=16, offset_scale=2.0, dtype=dtype)


def call(inputs: Inputs, **how: bool) -> None:
    """Forward and backward by `cuda`."""
    settings = {**inputs.settings, "mask_is_logits": True}
    forward = {name: choice for name, choice in how.items() if name == "tensor_cores"}
    cuda.forward(*inputs.tensors, **settings, **forward)
    cuda.backward(inputs.grad_output, *inputs.tensors, **settings, **how)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that a GPU would be given, where nothing was built."""
    names: list[str] = []
    monkeypatch.setattr(cuda, "_kernels", lambda device: nvrtc)
    monkeypatch.setattr(nvrtc, "_launch", lambda name, *arguments: names.append(name))
    return names


@DTYPES
@pytest.mark.parametrize("asked", [None, "default"], ids=["unset", "default"])
def test_by_default_a_thread_or_a_warp_has_a_unit(
    launched: list[str], dtype: torch.dtype, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cuda.TIER, raising=False)
    if asked is not None:
        monkeypatch.setenv(cuda.TIER, asked)
    call(inputs_of(dtype))
    name = NAMES[dtype]
    rounding = [] if dtype is torch.float32 else [f"dcnv3::finish<{name}, float>"]
    assert launched == [f"dcnv3::forward<{name}, 16>", f"dcnv3::backward<{name}, 16>", *rounding]


@DTYPES
def test_the_fast_tier_is_taken_where_the_environment_asks_for_it(
    launched: list[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cuda.TIER, "fast")
    call(inputs_of(dtype))
    name = NAMES[dtype]
    assert launched == (
        [f"dcnv3::forward<{name}, 16>", f"dcnv3::backward_in_tiles<{name}, 16>"]
        if dtype is torch.float32
        else [f"dcnv3::forward_in_window<{name}, 2>", f"dcnv3::backward_by_products<{name}, 16>"]
    )


class Recorder:
    """Stands in for a module of kernels, and keeps what it was asked for beside the settings of the operator."""

    def __init__(self) -> None:
        self.asked: list[dict[str, bool]] = []

    def forward(self, *tensors: torch.Tensor, **settings: Any) -> None:
        self.asked.append({name: settings[name] for name in FAST if name in settings})

    backward = forward


@TIERS
def test_what_a_call_says_comes_before_what_the_environment_says(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, other = Recorder(), not ASKED[tier]
    monkeypatch.setattr(cuda, "_kernels", lambda device: recorder)
    monkeypatch.setenv(cuda.TIER, tier)
    inputs = inputs_of(torch.float32)
    call(inputs)
    call(inputs, tensor_cores=other)
    call(inputs, in_tiles=other)
    same = not other
    assert recorder.asked == [
        {"tensor_cores": same},
        {"in_tiles": same, "tensor_cores": same},
        {"tensor_cores": other},
        {"in_tiles": same, "tensor_cores": other},
        {"tensor_cores": same},
        {"in_tiles": other, "tensor_cores": same},
    ]


def test_the_library_alone_takes_the_default_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    operators = SimpleNamespace(
        dcnv3=lambda *arguments: asked.append(arguments[-1:]), dcnv3_backward=lambda *arguments: asked.append(arguments[-2:])
    )
    monkeypatch.setattr(extension, "_operators", lambda: operators)
    inputs = inputs_of(torch.float32)
    settings = {**inputs.settings, "mask_is_logits": True}
    extension.forward(*inputs.tensors, **settings)
    extension.backward(inputs.grad_output, *inputs.tensors, **settings)
    assert asked == [(False,), (False, False)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a GPU on which NVRTC serves, and nothing had been built."""
    monkeypatch.setattr(backends, "_has_device", lambda backend: True)
    monkeypatch.setattr(backends, "_usable", set())
    monkeypatch.setattr(extension, "load", lambda: None)
    monkeypatch.setattr(cuda, "last_failure", lambda: None)
    monkeypatch.setattr(nvrtc, "trouble", lambda: None)


SAID = {
    "default": "default tier: a thread or a warp a unit; VISTALIB_KERNELS_TIER=fast takes tiles and tensor cores, checked",
    "fast": "fast tier: tiles and tensor cores, checked",
}


@pytest.mark.usefixtures("gpu")
@TIERS
@pytest.mark.parametrize("built", [False, True], ids=["nvrtc", "built"])
def test_the_status_says_which_tier_runs_and_what_was_checked(tier: str, built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.TIER, tier)
    if built:
        monkeypatch.setattr(extension, "load", lambda: Built("x.so", 1.0, "c++", "13.0", ("80", "90"), ""))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    row = next(row for row in backend_status() if row.name == "cuda")
    how = "built by nvcc 13.0 for sm_80, sm_90" if built else "compiled by NVRTC at first use"
    proof = "thread by thread on a CPU only; no time was measured on a GPU"
    assert (row.usable, row.reason, row.repair) == (True, f"{how}; {SAID[tier]} {proof}", None)


@pytest.mark.usefixtures("gpu")
@TIERS
def test_doctor_says_which_tier_runs(tier: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(cuda.TIER, tier)
    assert main(["doctor"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  cuda "))
    assert f"{tier} tier: " in line
    assert "no time was measured on a GPU" in line


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("backend", ["auto", "cuda"])
def test_a_tier_that_does_not_exist_is_refused_with_the_choices(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.TIER, "quick")
    with pytest.raises(ValueError, match=CHOICES):
        backends.choose_backend(backend, "cuda")
    with pytest.raises(ValueError, match=CHOICES):  # where it was changed after the first call
        call(inputs_of(torch.float32))


@pytest.mark.parametrize("there", [True, False], ids=["gpu", "no-gpu"])
def test_doctor_shows_the_choices_of_a_tier_that_does_not_exist(
    there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "_has_device", lambda backend: there or backend in ("cpp", "numba"))
    monkeypatch.setenv(cuda.TIER, "quick")
    assert main(["doctor"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  cuda "))
    assert line.split("not usable")[1].strip() == CHOICES
