"""Winograd's convolution against PyTorch's in float64: output, gradients, edges, several chunks, threads."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("numba", reason="vistalib-kernels is not installed")

from vistalib_kernels import winograd

from vistalib.ops.convolution import same_convolution

SHAPES = {  # N, C, O, H, W
    "one tile": (1, 16, 32, 4, 4),
    "one pixel": (1, 32, 16, 1, 1),
    "a column": (2, 16, 16, 9, 1),
    "parts of tiles": (2, 32, 16, 7, 13),
    "whole tiles": (2, 48, 64, 8, 12),
    "several chunks": (3, 16, 16, 62, 61),
}


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got.detach().double() - expected.detach()).norm() / expected.detach().norm())


def draw(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    images, channels, out, height, width = shape
    x, gradient = torch.randn(images, height, width, channels), torch.randn(images, height, width, out)
    return x.permute(0, 3, 1, 2), torch.randn(out, channels, 3, 3), gradient.permute(0, 3, 1, 2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_output_is_the_convolution(shape: tuple[int, ...]) -> None:
    x, weight, _ = draw(shape)
    got = winograd.forward(x, weight)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert relative(got, nn.functional.conv2d(x.double(), weight.double(), padding=1)) < 3e-6  # worst measured 6.3e-7


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_gradients_are_those_of_the_convolution(shape: tuple[int, ...]) -> None:
    x, weight, gradient = draw(shape)
    grad_x, grad_weight = winograd.backward(gradient, x, weight, (True, True))
    x, weight, gradient = x.double(), weight.double(), gradient.double()
    # worst measured 7.8e-7 and 1.2e-6
    assert relative(grad_x, nn.grad.conv2d_input(x.shape, weight, gradient, padding=1)) < 3e-6
    assert relative(grad_weight, nn.grad.conv2d_weight(x, weight.shape, gradient, padding=1)) < 5e-6


def test_memory_in_another_layout_makes_no_difference() -> None:
    x, weight, _ = draw(SHAPES["parts of tiles"])
    assert torch.equal(winograd.forward(x.contiguous(), weight), winograd.forward(x, weight))


def test_the_number_of_threads_shares_out_every_tile() -> None:
    x, weight, gradient = draw(SHAPES["several chunks"])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append((winograd.forward(x, weight), *winograd.backward(gradient, x, weight, (True, True))))
    finally:
        torch.set_num_threads(before)
    assert all(relative(a, b.double()) < 1e-6 for a, b in zip(*found))  # measured 0


def test_an_error_in_one_tile_reaches_no_other() -> None:
    x, weight, _ = draw(SHAPES["whole tiles"])
    x[0, 0, 0, 0] = float("nan")
    touched = winograd.forward(x, weight).isnan().any(1)
    assert touched[0, :4, :4].all()
    assert touched.sum() == 16


def test_the_matrices_convolve_exactly_in_rational_numbers() -> None:
    A, B, G = (torch.tensor(matrix, dtype=torch.float64) for matrix in winograd._matrices())
    x, weight = torch.arange(1.0, 7, dtype=torch.float64), torch.tensor((2.0, -3.0, 5.0), dtype=torch.float64)
    expected = torch.tensor([float(x[i : i + 3] @ weight) for i in range(4)])
    assert torch.allclose(A @ ((B @ x) * (G @ weight)), expected.double(), rtol=1e-14)  # measured 2e-16


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    forward = winograd.forward
    monkeypatch.setattr(winograd, "forward", lambda *arguments: calls.append(arguments) or forward(*arguments))
    return calls


CASES = {
    "large": (torch.float32, 64, 3, True),
    "float64": (torch.float64, 64, 3, False),
    "a few channels": (torch.float32, 48, 3, False),
    "channels in no whole vector": (torch.float32, 72, 3, False),
    "1 x 1": (torch.float32, 64, 1, False),
}


@pytest.mark.parametrize(("dtype", "channels", "window", "expected"), CASES.values(), ids=CASES.keys())
def test_large_float32_convolutions_take_this_way(
    dtype: torch.dtype, channels: int, window: int, expected: bool, taken: list[Any]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, channels, 32, 64, dtype=dtype, requires_grad=True)
    weight = torch.randn(64, channels, window, window, dtype=dtype, requires_grad=True)
    output = same_convolution(x, weight)
    assert bool(taken) is expected
    plain = nn.functional.conv2d(x.double(), weight.double(), padding=window // 2)
    assert relative(output, plain) < 3e-6  # worst measured 6e-7
    gradients = torch.autograd.grad(output, (x, weight), torch.ones_like(output))
    for got, expected_one in zip(gradients, torch.autograd.grad(plain, (x, weight), torch.ones_like(plain))):
        assert relative(got, expected_one.double()) < 1e-5  # worst measured 9e-7


def test_under_autocast_the_region_s_dtype_holds(taken: list[Any]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert same_convolution(torch.randn(1, 64, 32, 64), torch.randn(64, 64, 3, 3)).dtype == torch.bfloat16
    assert not taken


def test_a_compiled_convolution_is_the_plain_one(taken: list[Any]) -> None:
    compiled = torch.compile(same_convolution, backend="aot_eager", fullgraph=True)
    assert compiled(torch.randn(1, 64, 32, 64), torch.randn(64, 64, 3, 3)).shape == (1, 64, 32, 64)
    assert not taken
