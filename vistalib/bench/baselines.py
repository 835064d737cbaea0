"""Who is measured beside our backends, in the same run and on the same tensors.

Every implementation computes DCNv3 with the softmax of the mask already taken. `grid_sample` is what one writes in PyTorch
alone, and the measure of the others. torchvision (DCNv2 with a weight of one for every channel and a group for each),
deformops, and the released CUDA extensions DCNv3 and DCNv4 are measured where they can be imported; nothing here requires
them, so no extra installs them. Each gets its tensors in its own layout, made before the clock starts.

Letters: N images, H x W pixels, C channels, G groups, D = C / G, K = 9 points; the output is as large as the input.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vistalib.bench.workload import POINTS, Workload
from vistalib.ops import dcnv3, sampling_locations
from vistalib.ops.definition import split

Operator = Callable[..., Tensor]  # of the adapted tensors; gives (N, H, W, C)
WINDOW = 3  # height and width; stride, padding and dilation are 1


def _as_they_are(work: Workload, value: Tensor, offset: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    return value, offset, mask


@dataclass(frozen=True)
class Implementation:
    """A way to compute the operator: `bind` gives it for a workload, `adapt`, differentiable, the tensors in its layout."""

    name: str
    bind: Callable[[Workload, torch.device], Operator]
    adapt: Callable[[Workload, Tensor, Tensor, Tensor], tuple[Tensor, ...]] = _as_they_are


def ours(backend: str) -> Implementation:
    """One of our backends."""
    return Implementation(
        backend, lambda work, _: partial(dcnv3, groups=work.groups, offset_scale=work.offset_scale, backend=backend)
    )


def baselines() -> tuple[list[Implementation], dict[str, str]]:
    """The implementations of others that can be imported, and why each of the rest cannot; grid_sample always can."""
    found, left_out = [Implementation("grid_sample", _grid_sample)], {}
    for name, load in (("torchvision", _torchvision), ("deformops", _deformops), ("DCNv3", _dcnv3), ("DCNv4", _dcnv4)):
        try:
            found.append(load())
        except ModuleNotFoundError as error:
            left_out[name] = "not installed" if error.name == name else f"does not load: {error}"
        except Exception as error:  # whatever another's package raises when it is imported
            left_out[name] = f"does not load: {type(error).__name__}: {error}"
    return found, left_out


def _grid_sample(work: Workload, device: torch.device) -> Operator:
    size = torch.tensor((work.width, work.height), device=device)

    def run(value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        location = sampling_locations(offset, groups=work.groups, offset_scale=work.offset_scale)  # (N, H, W, G, K, 2)
        grid = ((2 * location + 1) / size - 1).permute(0, 3, 1, 2, 4, 5).flatten(0, 1).flatten(1, 2)  # (N*G, H*W, K, 2)
        planes = split(value.to(grid.dtype), work.groups, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)  # (N*G, D, H, W)
        found = F.grid_sample(planes, grid, align_corners=False)  # (N*G, D, H*W, K)
        weight = split(mask, work.groups, POINTS).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1, 2)  # (N*G, H*W, K)
        output = (found * weight[:, None]).sum(-1)  # (N*G, D, H*W)
        output = output.view(work.images, work.channels, work.height, work.width).permute(0, 2, 3, 1)
        return output.to(value.dtype).contiguous()  # (N, H, W, C)

    return run


def _torchvision() -> Implementation:
    deform_conv2d = import_module("torchvision.ops").deform_conv2d

    def bind(work: Workload, device: torch.device) -> Operator:
        def run(value: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
            weight = value.new_ones(work.channels, 1, WINDOW, WINDOW)
            return deform_conv2d(value, offset, weight, padding=1, mask=mask).permute(0, 2, 3, 1)  # type: ignore[no-any-return]

        return run

    def adapt(work: Workload, value: Tensor, offset: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        there = sampling_locations(offset, groups=work.groups, offset_scale=work.offset_scale)
        fixed = sampling_locations(torch.zeros_like(offset[:1]), groups=work.groups)  # (1, H, W, G, K, 2)
        moved = (
            (there - fixed).view(*there.shape[:4], WINDOW, WINDOW, 2).transpose(4, 5).flip(-1)
        )  # rows outermost, pairs (y, x)
        mask = split(mask, -1, WINDOW, WINDOW).transpose(4, 5)
        return tuple(
            tensor.to(value.dtype).flatten(3).permute(0, 3, 1, 2).contiguous() for tensor in (value, moved, mask)
        )  # (N, C, H, W), (N, G*K*2, H, W), (N, G*K, H, W)

    return Implementation("torchvision", bind, adapt)


def _deformops() -> Implementation:
    attn = import_module("deformops.registry").attn

    def adapt(work: Workload, value: Tensor, offset: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        each = torch.cat((split(offset, -1, 2), mask[..., None]), -1)  # (N, H, W, G*K, 3)
        return value, each.flatten(-2)

    return Implementation(
        "deformops",
        lambda work, _: partial(
            attn, groups=work.groups, group_dims=work.channels // work.groups, spread=work.offset_scale, method="linear"
        ),
        adapt,
    )


def _dcnv3() -> Implementation:
    module = import_module("DCNv3")
    later = (0,) if float(metadata.version("DCNv3")) > 1.0 else ()  # releases after 1.0 ask whether to leave the centre out

    class Released(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor, offset: Tensor, mask: Tensor, settings: tuple[float, ...]) -> Tensor:
            ctx.save_for_backward(value, offset, mask)
            ctx.settings = settings
            output: Tensor = module.dcnv3_forward(value, offset, mask, *settings, len(value), *later)
            return output

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            tensors = ctx.saved_tensors
            return (*module.dcnv3_backward(*tensors, *ctx.settings, gradient.contiguous(), len(gradient), *later), None)

    def bind(work: Workload, device: torch.device) -> Operator:
        settings = _settings(work)
        return lambda value, offset, mask: Released.apply(value, offset, mask, settings)  # type: ignore[no-untyped-call]

    return Implementation("DCNv3", bind)


def _dcnv4() -> Implementation:
    function = import_module("DCNv4.functions").DCNv4Function

    def adapt(work: Workload, value: Tensor, offset: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        each = (split(tensor, work.groups, -1) for tensor in (offset, mask))
        packed = torch.cat((*each,), -1).flatten(-2)  # (N, H, W, G*K*3): the offsets of a group, then its mask
        return value, F.pad(packed, (0, -packed.shape[-1] % 8))

    return Implementation(
        "DCNv4",
        lambda work, _: lambda value, packed: function.apply(value, packed, *_settings(work), len(value), 0),
        adapt,
    )


def _settings(work: Workload) -> tuple[float, ...]:
    """Kernel, stride, padding and dilation as (height, width) each, groups, group channels, offset scale."""
    return (WINDOW, WINDOW, 1, 1, 1, 1, 1, 1, work.groups, work.channels // work.groups, work.offset_scale)
