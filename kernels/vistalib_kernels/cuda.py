"""DCNv3 on NVIDIA GPUs by the kernels of csrc/: from the library that was built, else compiled by NVRTC at first use.

`torch.use_deterministic_algorithms(True)` makes the backward add up in fixed point: the same bits every time, and slower. The
arguments must fit together: nothing is checked here. Pairs are (height, width).
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vistalib_kernels import extension, nvrtc
from vistalib_kernels.build import COMMAND, last_failure


def status() -> tuple[bool, str, str | None]:
    """Whether CUDA tensors can be treated here; by what, or why not, and the command that helps. Never raises."""
    if not torch.cuda.is_available():
        return False, "PyTorch finds no NVIDIA GPU here", None
    try:
        if (built := extension.load()) is not None and built.cuda is not None and _runs_here(built.architectures):
            return True, f"built by nvcc {built.cuda} for {', '.join(built.architectures)}", None
    except RuntimeError as error:
        return False, str(error), f"{COMMAND} --again"
    trouble = nvrtc.trouble()
    if trouble is None:
        failure = last_failure()
        return True, "compiled by NVRTC at first use" + (f"; the last build failed: {failure}" if failure else ""), None
    return False, f"not built, and NVRTC cannot stand in: {trouble}", COMMAND


def forward(value: Tensor, offset: Tensor, mask: Tensor, **settings: Any) -> Tensor:
    """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C), all of one dtype; settings as `extension.forward`."""
    output: Tensor = _kernels().forward(value, offset, mask, **settings)
    return output


def backward(
    grad_output: Tensor, value: Tensor, offset: Tensor, mask: Tensor, **settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, offset and mask, from that of the output."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    gradients: tuple[Tensor, Tensor, Tensor] = _kernels().backward(
        grad_output, value, offset, mask, **settings, deterministic=deterministic
    )
    return gradients


def _kernels() -> ModuleType:
    built = extension.load()
    return extension if built is not None and built.cuda is not None and _runs_here(built.architectures) else nvrtc


def _runs_here(architectures: tuple[str, ...]) -> bool:
    """Native code runs on GPUs of its own major version, from its own minor version on."""
    major, minor = torch.cuda.get_device_capability()
    return any(int(name[:-1]) == major and int(name[-1]) <= minor for name in architectures)
