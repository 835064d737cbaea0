"""DCNv3 on NVIDIA GPUs by the kernels of csrc/: from the library that was built, else compiled by NVRTC at first use.

The kernels come in two tiers, in both directions. The default one has a thread or a warp for each unit, an output pixel of a
group (made.cuh, any.cuh). The fast one has tiles, sheets and tensor cores where they suit (tiles.cuh, sheets.cuh, products.cuh,
window.cuh); no GPU has run it yet, so it is taken only where the environment says VISTALIB_KERNELS_TIER=fast, or where a call
says `tensor_cores` or `in_tiles`.

`torch.use_deterministic_algorithms(True)` makes the backward add up in fixed point: the same bits every time, and slower. The
arguments must fit together: nothing is checked here. Pairs are (height, width).
"""

import os
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vistalib_kernels import extension, nvrtc
from vistalib_kernels.build import COMMAND, Built, last_failure

TIER = "VISTALIB_KERNELS_TIER"
TIERS = {
    "default": f"default tier: a thread or a warp a unit; {TIER}=fast takes tiles and tensor cores",
    "fast": "fast tier: tiles and tensor cores",
}
PROOF = "checked thread by thread on a CPU only; no time was measured on a GPU"


def tier() -> str:
    """The tier whose kernels a call gets: "default", or "fast" where the environment asks for it.

    `ValueError` where it asks for another.
    """
    asked = os.environ.get(TIER, "default")
    if asked not in TIERS:
        raise ValueError(f"{TIER} must be one of {', '.join(TIERS)}, got {asked!r}; unset it for the default")
    return asked


def status() -> tuple[bool, str, str | None]:
    """Whether CUDA tensors can be treated here; by what and in which tier, or why not, and the command that helps.

    `RuntimeError` where a library was built and does not load, `ValueError` for a tier that does not exist.
    """
    kernels = f"{TIERS[tier()]}, {PROOF}"
    built = extension.load()
    if built is not None and _runs_on(torch.cuda.current_device(), built):
        architectures = ", ".join(f"sm_{name}" for name in built.architectures)
        return True, f"built by nvcc {built.cuda} for {architectures}; {kernels}", None
    failure, trouble = last_failure(), nvrtc.trouble()
    failed = "" if failure is None else f"; the last build failed: {failure}"
    if trouble is None:
        return True, f"compiled by NVRTC at first use; {kernels}{failed}", None
    return False, f"not built, and NVRTC cannot stand in: {trouble}{failed}", COMMAND


def forward(value: Tensor, offset: Tensor, mask: Tensor, **settings: Any) -> Tensor:
    """(N, H, W, C), (N, P, Q, G*K*2) and (N, P, Q, G*K) to (N, P, Q, C), all of one dtype; settings as `extension.forward`.

    `tensor_cores` is what the tier says, unless it is given.
    """
    settings = {"tensor_cores": tier() == "fast"} | settings
    output: Tensor = _kernels(value.device.index).forward(value, offset, mask, **settings)
    return output


def backward(
    grad_output: Tensor, value: Tensor, offset: Tensor, mask: Tensor, **settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, offset and mask, from that of the output; settings as `extension.backward`.

    `in_tiles` and `tensor_cores` are what the tier says, unless they are given.
    """
    settings = dict.fromkeys(("in_tiles", "tensor_cores"), tier() == "fast") | settings
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
