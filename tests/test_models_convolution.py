"""The heads' convolution of several maps equals that of their concatenation, in value, gradients and memory layout."""

import pytest
import torch
from torch import Tensor, nn

from vistalib.models import convolution as module
from vistalib.models.convolution import Conv, resize, side

SIZES = {
    "halves": [(16, 24), (8, 12), (4, 6), (2, 3)],
    "odd": [(19, 26), (10, 13), (5, 7), (3, 4)],
    "pyramid": [(5, 7), (1, 1), (2, 2), (3, 3), (6, 6)],
    "coarsest first": [(4, 6), (8, 12)],
    "one": [(4, 6)],
}


def written_out(conv: Conv, maps: list[Tensor]) -> Tensor:
    return nn.Conv2d.forward(conv, torch.cat([resize(x, side(maps[0])) for x in maps], dim=1))


def worst(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    return max(float((a - b).detach().norm() / b.detach().norm()) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 5e-6)], ids=["float64", "float32"])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("band", [1, 5, 32])
@pytest.mark.parametrize("dense", [0, 1 << 20], ids=["sparse", "dense"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_it_equals_the_convolution_of_the_concatenation(
    sizes: list[tuple[int, int]],
    dense: int,
    kernel_size: int,
    band: int,
    dtype: torch.dtype,
    bound: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("BAND", band), ("DENSE", dense), ("WORTHWHILE", 0)):
        monkeypatch.setattr(module, name, value)
    torch.manual_seed(0)
    conv = Conv(3 * len(sizes), 4, kernel_size).to(dtype)
    maps = [torch.randn(2, 3, *size, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_() for size in sizes]
    got, expected = conv(maps), written_out(conv, maps)
    assert got.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn_like(expected)
    leaves = (*maps, conv.weight)
    # worst measured 4.4e-16 and 3.1e-7
    assert worst((got,), (expected,)) < bound
    with torch.no_grad():
        assert torch.equal(conv(maps), got)  # added up in place
    assert worst(torch.autograd.grad(got, leaves, gradient), torch.autograd.grad(expected, leaves, gradient)) < bound


def test_small_maps_are_laid_side_by_side() -> None:
    conv = Conv(6, 4, 3)
    maps = [torch.randn(2, 3, 8, 12), torch.randn(2, 3, 4, 6)]
    assert torch.equal(conv(maps), written_out(conv, maps))  # the same operations, so the same bits


def test_an_exported_program_holds_the_plain_convolution() -> None:
    conv = Conv(6, 4, 3).eval()
    maps = [torch.randn(1, 3, 8, 12), torch.randn(1, 3, 4, 6)]
    program = torch.export.export(conv, (maps,))
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"aten.cat.default", "aten.conv2d.default"} <= operators
    assert not any("baddbmm" in name for name in operators)
    assert worst((program.module()(maps),), (conv(maps),)) < 1e-6  # measured 1.6e-7
