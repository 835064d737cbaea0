"""DCNv3 on NVIDIA GPUs by the kernels of csrc/: from the library that was built, else compiled by NVRTC at first use.

`torch.use_deterministic_algorithms(True)` makes the backward add up in fixed point: the same bits every time, and slower. The
arguments must fit together: nothing is checked here. Pairs are (height, width).
"""

from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vistalib_kernels import extension, nvrtc
from vistalib_kernels.build import COMMAND, Built, last_failure


def status() -> tuple[bool, str, str | None]:
    """Whether CUDA tensors can be treated here; by what, or why not, and the command that helps.

    `RuntimeError` where a library was built and does not load.
    """
    built = extension.load()
    if built is not None and _runs_on(torch.cuda.current_device(), built):
        return True, f"built by nvcc {built.cuda} for {', '.join(f'sm_{name}' for name in built.architectures)}", None
    failure, trouble = last_failure(), nvrtc.trouble()
    failed = "" if failure is None else f"; the last build failed: {failure}"
    if trouble is None:
        return True, f"compiled by NVRTC at first use{failed}", None
    return False, f"not built, and NVRTC cannot stand in: {trouble}{failed}", COMMAND


def forward(value: Tensor, offset: Tensor, mask: Tensor, **settings: Any) -> Tensor:
    """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C), all of one dtype; settings as `extension.forward`."""
    output: Tensor = _kernels(value.device.index).forward(value, offset, mask, **settings)
    return output


def backward(
    grad_output: Tensor, value: Tensor, offset: Tensor, mask: Tensor, **settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, offset and mask, from that of the output; settings as `extension.backward`."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    gradients: tuple[Tensor, Tensor, Tensor] = _kernels(value.device.index).backward(
        grad_output, value, offset, mask, **settings, deterministic=deterministic
    )
    return gradients


@cache  # for as long as the process lives: what is built later is taken by the next one
def _kernels(device: int) -> ModuleType:
    built = extension.load()
    return extension if built is not None and _runs_on(device, built) else nvrtc


def _runs_on(device: int, built: Built) -> bool:
    """Native code runs on GPUs of its own major version, from its own minor version on."""
    major, minor = torch.cuda.get_device_capability(device)
    return any(int(name[:-1]) == major and int(name[-1]) <= minor for name in built.architectures)
