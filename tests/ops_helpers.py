"""Cases for the operator: recorded ones and random ones."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vistalib.ops import output_size

NAMES = ("output", "value", "offset", "mask")  # of a result and the gradients that belong to it
FOLDER = Path(__file__).parent / "data" / "dcnv3_op"
RECORDED = sorted(path.stem for path in FOLDER.glob("*.npz"))


class Inputs(NamedTuple):
    """Tensors of one call, the gradient that comes back, and the settings."""

    value: Tensor
    offset: Tensor
    mask: Tensor
    grad_output: Tensor
    settings: dict[str, Any]

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.offset, self.mask

    def to(self, dtype: torch.dtype) -> "Inputs":
        return Inputs(*(tensor.to(dtype) for tensor in (*self.tensors, self.grad_output)), self.settings)


def recorded(name: str) -> tuple[Inputs, dict[str, Tensor]]:
    """A recorded case and its truth: a float64 rendering of the released CUDA formula, gradients under the inputs' names."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "params"}
        p = json.loads(str(file["params"]))
    settings = {
        "groups": p["group"],
        "kernel_size": (p["kernel_h"], p["kernel_w"]),
        "stride": (p["stride_h"], p["stride_w"]),
        "padding": (p["pad_h"], p["pad_w"]),
        "dilation": (p["dilation_h"], p["dilation_w"]),
        "offset_scale": p["offset_scale"],
    }
    truth = {
        "output": arrays["cuda_output"],
        "value": arrays["cuda_grad_input"],
        "offset": arrays["cuda_grad_offset"],
        "mask": arrays["cuda_grad_mask"],
    }
    grad_output = arrays["grad_output"].reshape(arrays["cuda_output"].shape)
    return Inputs(arrays["input"], arrays["offset"], arrays["mask"], grad_output, settings), truth


def random_inputs(
    images: int = 2,
    height: int = 5,
    width: int = 7,
    *,
    groups: int = 2,
    group_channels: int = 4,
    kernel_size: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    offset_scale: float = 1.0,
    spread: float = 1.5,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Inputs:
    """Normal value, mask and gradient; offsets of `spread` pixels, many of which leave so small an image."""
    sizes = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    rows, columns = output_size(height, width, **sizes)
    points = kernel_size[0] * kernel_size[1]
    cpu = torch.device("cpu")  # draws the same numbers for every device
    generator = torch.Generator(cpu).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64, device=cpu)
        return numbers.to(torch.get_default_device(), dtype)

    return Inputs(
        normal(images, height, width, groups * group_channels),
        normal(images, rows, columns, groups * points * 2) * spread,
        normal(images, rows, columns, groups * points),
        normal(images, rows, columns, groups * group_channels),
        {"groups": groups, "offset_scale": offset_scale, **sizes},
    )


def worst(actual: Tensor, expected: Tensor) -> float:
    """The largest absolute difference; NaN only where both have it."""
    assert actual.shape == expected.shape
    assert torch.equal(actual.isnan(), expected.isnan())
    difference = (actual.detach().double() - expected.detach().double()).nan_to_num(nan=0.0)
    return float(difference.abs().max()) if difference.numel() else 0.0


def disagreements(results: Sequence[Tensor], truth: dict[str, Tensor], tolerance: float = 1e-12) -> list[str]:
    """Which of output and gradients, given in the order of NAMES, are further from the truth than `tolerance`."""
    return [name for name, result in zip(NAMES, results, strict=True) if not worst(result, truth[name]) <= tolerance]


def called(call: Callable[..., Tensor], inputs: Inputs, **more: Any) -> tuple[Tensor, ...]:
    """Output of `call` and its gradients of value, offset and mask by autograd."""
    tensors = [tensor.detach().clone().requires_grad_() for tensor in inputs.tensors]
    output = call(*tensors, **inputs.settings, **more)
    return (output.detach(), *torch.autograd.grad(output, tensors, inputs.grad_output))


class Sampled(Dataset[Tensor]):
    """Samples that a DataLoader's worker computes by the Numba kernels, on two threads of theirs."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        from vistalib_kernels import numba_cpu

        inputs = random_inputs(2, 40, 50, groups=3, group_channels=16, dtype=torch.float32, seed=index)
        settings = {**inputs.settings, "mask_is_logits": True}
        before = torch.get_num_threads()
        torch.set_num_threads(2)  # for the kernels alone: PyTorch's own threads hang in a forked worker
        output = numba_cpu.forward(*inputs.tensors, **settings)
        gradients = numba_cpu.backward(inputs.grad_output, *inputs.tensors, **settings)
        torch.set_num_threads(before)
        return torch.cat([tensor.flatten() for tensor in (output, *gradients)])
