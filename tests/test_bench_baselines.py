"""How others are called: grid_sample against the definition; the packages by the layouts that their own pages describe."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from ops_helpers import worst
from torch import Tensor

from vistalib.bench import Workload
from vistalib.bench import baselines as module
from vistalib.bench.baselines import Implementation, baselines
from vistalib.bench.workload import Offsets, draw
from vistalib.ops import dcnv3_definition

CPU = torch.device("cpu")
WORKS = [
    pytest.param(Workload("", None, 2, 5, 7, 12, 3), id="odd sizes"),
    pytest.param(Workload("", None, 1, 6, 4, 32, 2, offset_scale=2.0), id="stretched"),
]


def results(found: Implementation, work: Workload, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of an implementation, and those of the definition."""
    *tensors, gradient = draw(work, Offsets("uniform:3"), dtype, device=CPU, seed=0)
    both = []
    for implementation in (found, Implementation("", lambda work, _: lambda *t: definition(work, *t))):
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        output = implementation.bind(work, CPU)(*implementation.adapt(work, *leaves))
        both.append([output, *torch.autograd.grad(output, leaves, gradient)])
    return both[0], both[1]


def definition(work: Workload, value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    return dcnv3_definition(value, offset, mask, groups=work.groups, offset_scale=work.offset_scale)


@pytest.mark.parametrize("work", WORKS)
def test_grid_sample_computes_the_definition(work: Workload) -> None:
    for ours, theirs in zip(*results(baselines()[0][0], work, torch.float64)):
        assert worst(ours, theirs) < 1e-12  # measured 4e-15


def test_grid_sample_takes_sixteen_bits_by_way_of_float32() -> None:
    work = Workload("", None, 1, 5, 7, 12, 3)
    for ours, theirs in zip(*results(baselines()[0][0], work, torch.bfloat16)):
        assert ours.dtype == torch.bfloat16
        assert worst(ours, theirs) < 0.02  # measured 0.008, at values up to 6


def test_what_is_not_installed_is_said_so_and_grid_sample_always_is() -> None:
    absent = [name for name in ("torchvision", "deformops", "DCNv3", "DCNv4") if find_spec(name) is None]
    found, left_out = baselines()
    assert found[0].name == "grid_sample"
    assert dict.fromkeys(absent, "not installed").items() <= left_out.items()


def test_what_is_installed_and_broken_is_not_taken_for_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deformops.py").write_text("raise RuntimeError('built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deformops", raising=False)
    assert baselines()[1]["deformops"] == "does not load: RuntimeError: built for another torch"


def deform_conv2d(value: Tensor, offset: Tensor, weight: Tensor, *, padding: int, mask: Tensor) -> Tensor:
    """What torchvision documents: DCNv2, offsets (y, x) a point, points row by row; here by loops over points and pixels."""
    images, _, height, width = value.shape
    groups = offset.shape[1] // 18
    offset, mask = offset.view(images, groups, 9, 2, height, width), mask.view(images, groups, 9, height, width)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    lines, columns = torch.arange(height)[:, None], torch.arange(width)
    output = torch.zeros_like(value)
    for k in range(9):
        at_y = y - padding + k // 3 + offset[:, :, k, 0]
        at_x = x - padding + k % 3 + offset[:, :, k, 1]
        tent = (1 - (at_y[..., None, None] - lines).abs()).clamp(min=0) * (1 - (at_x[..., None, None] - columns).abs()).clamp(
            min=0
        )
        planes = value.view(images, groups, -1, height, width)
        found = torch.einsum("ngpqhw,ngdhw->ngdpq", tent, planes) * mask[:, :, k, None]
        output = output + found.flatten(1, 2) * weight[:, 0, k // 3, k % 3, None, None]
    return output


def attn(value: Tensor, packed: Tensor, *, groups: int, group_dims: int, spread: float, method: str) -> Tensor:
    """What deformops documents: (dx, dy, weight) a point, points as in DCNv3."""
    assert (method, value.shape[-1]) == ("linear", groups * group_dims)
    each = packed.unflatten(-1, (groups * 9, 3))
    return dcnv3_definition(value, each[..., :2].flatten(-2), each[..., 2], groups=groups, offset_scale=spread)


class Released:
    """The two functions of the released extension: kernel, stride, padding, dilation as height and width, then the groups."""

    @staticmethod
    def dcnv3_forward(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
        assert settings[:8] == (3, 3, 1, 1, 1, 1, 1, 1)
        groups, group_channels, scale, step = settings[8:]
        assert value.shape[-1] == groups * group_channels
        assert value.shape[0] % step == 0
        return dcnv3_definition(value, offset, mask, groups=groups, offset_scale=scale)

    @staticmethod
    def dcnv3_backward(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> tuple[Tensor, ...]:
        *settings, gradient, step = settings
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (value, offset, mask)]
            return torch.autograd.grad(Released.dcnv3_forward(*leaves, *settings, step), leaves, gradient)


class DCNv4Function:
    """A group's 18 offsets and then its 9 weights, padded to a multiple of 8 numbers a pixel."""

    @staticmethod
    def apply(value: Tensor, packed: Tensor, *settings: Any) -> Tensor:
        *settings, remove_centre = settings
        groups = settings[8]
        assert (remove_centre, packed.shape[-1] % 8) == (0, 0)
        each = packed[..., : groups * 27].unflatten(-1, (groups, 27))
        return Released.dcnv3_forward(value, each[..., :18].flatten(-2), each[..., 18:].flatten(-2), *settings)


STAND_INS = {
    "torchvision": ("torchvision.ops", {"deform_conv2d": deform_conv2d}),
    "deformops": ("deformops.registry", {"attn": attn}),
    "DCNv3": ("DCNv3", {"dcnv3_forward": Released.dcnv3_forward, "dcnv3_backward": Released.dcnv3_backward}),
    "DCNv4": ("DCNv4.functions", {"DCNv4Function": DCNv4Function}),
}


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("name", STAND_INS)
def test_a_package_is_called_by_its_own_layout(name: str, work: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages need a GPU or another Python: what stands in for each is written from its own page."""
    path, contents = STAND_INS[name]
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, path, SimpleNamespace(**contents))
    monkeypatch.setattr(module.metadata, "version", lambda package: "1.0")
    (found,) = [implementation for implementation in baselines()[0] if implementation.name == name]
    for ours, theirs in zip(*results(found, work, torch.float64)):
        assert worst(ours, theirs) < 1e-12  # measured 4e-15


def test_torchvision_agrees_where_it_is_installed() -> None:
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    (found,) = [implementation for implementation in baselines()[0] if implementation.name == "torchvision"]
    for ours, theirs in zip(*results(found, Workload("", None, 2, 5, 7, 12, 3), torch.float64)):
        assert worst(ours, theirs) < 1e-12
