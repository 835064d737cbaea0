"""The operators as PyTorch knows them: `torch.ops.vistalib.dcnv3_torch`, `dcnv3_numba` and so on, each with its `_backward`.

One operator a backend, since two kernels registered for one device would silently replace each other. Every one of them has
the same four parts: a kernel for its devices, a fake that knows shapes only (for torch.compile and torch.export), autograd, and
autocast, which lets offset and mask follow the dtype of value. Arguments are checked in `dcnv3`, not here.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import Library

from vistalib.ops.backends import PACKAGES, kernels
from vistalib.ops.definition import dcnv3_definition, dcnv3_gradients

# groups, kernel_size, stride, padding, dilation, offset_scale, mask_is_logits
Settings = tuple[int, list[int], list[int], list[int], list[int], float, bool]

_SETTINGS = (
    "int groups, int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, float offset_scale, bool mask_is_logits"
)
_INPUTS = f"Tensor value, Tensor offset, Tensor mask, {_SETTINGS}"
_library: Any = Library("vistalib", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch leaves it unannotated


class Forward(Protocol):
    """A forward kernel."""

    def __call__(self, value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
        """The output, contiguous."""


class Backward(Protocol):
    """A backward kernel."""

    def __call__(
        self, grad_output: Tensor, value: Tensor, offset: Tensor, mask: Tensor, *settings: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, offset and mask, contiguous."""


def _register(name: str, key: str, forward: Forward, backward: Backward) -> Callable[..., Tensor]:
    """Define `vistalib::name` and `vistalib::name_backward` with kernels for dispatch key `key`; returns the operator."""
    _library.define(f"{name}({_INPUTS}) -> Tensor")
    _library.define(f"{name}_backward(Tensor grad_output, {_INPUTS}) -> (Tensor, Tensor, Tensor)")
    forward_op = getattr(torch.ops.vistalib, name).default
    backward_op = getattr(torch.ops.vistalib, f"{name}_backward").default
    _library.impl(name, forward, key)
    _library.impl(f"{name}_backward", backward, key)
    torch.library.register_fake(f"vistalib::{name}", _fake_forward, lib=_library)
    torch.library.register_fake(f"vistalib::{name}_backward", _fake_backward, lib=_library)
    _library.impl(name, _with_autograd(forward_op, backward_op), "Autograd")
    for device in ("CPU", "CUDA", "MPS"):
        _library.impl(name, _with_autocast(forward_op), f"Autocast{device}")
    return forward_op  # type: ignore[no-any-return]  # torch.ops has no types


def _fake_forward(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
    return value.new_empty((*offset.shape[:3], value.shape[3]))


def _fake_backward(
    grad_output: Tensor, value: Tensor, offset: Tensor, mask: Tensor, *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return value.new_empty(value.shape), offset.new_empty(offset.shape), mask.new_empty(mask.shape)


def _with_autograd(forward_op: Callable[..., Tensor], backward_op: Callable[..., tuple[Tensor, ...]]) -> Forward:
    """The kernel for the Autograd key: remembers the inputs and calls `backward_op` on the way back."""

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Tensor, offset: Tensor, mask: Tensor, settings: Settings) -> Tensor:
            ctx.save_for_backward(value, offset, mask)
            ctx.settings = settings
            with torch._C._AutoDispatchBelowAutograd():
                return forward_op(value, offset, mask, *settings)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
            return (*backward_op(grad_output, *ctx.saved_tensors, *ctx.settings), None)

    def autograd(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
        if torch.is_grad_enabled() and (value.requires_grad or offset.requires_grad or mask.requires_grad):
            output: Tensor = Differentiable.apply(value, offset, mask, settings)  # type: ignore[no-untyped-call]  # of torch
            return output
        with torch._C._AutoDispatchBelowAutograd():
            return forward_op(value, offset, mask, *settings)

    return autograd


def _with_autocast(forward_op: Callable[..., Tensor]) -> Forward:
    """The kernel for an Autocast key: offset and mask take the dtype of value, whatever the region's dtype is."""

    def autocast(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
        with torch.autocast(value.device.type, enabled=False):
            return forward_op(value, offset.to(value.dtype), mask.to(value.dtype), *settings)

    return autocast


def _named(settings: tuple[Any, ...]) -> dict[str, Any]:
    names = ("groups", "kernel_size", "stride", "padding", "dilation", "offset_scale", "mask_is_logits")
    return dict(zip(names, settings, strict=True))


def _torch_forward(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
    return dcnv3_definition(value, offset, mask, **_named(settings))


def _torch_backward(
    grad_output: Tensor, value: Tensor, offset: Tensor, mask: Tensor, *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return dcnv3_gradients(grad_output, value, offset, mask, **_named(settings))


def _of_package(backend: str) -> tuple[Forward, Backward]:
    """The two kernels of a backend of `vistalib_kernels`, opened at their first call; `choose_backend` has seen it there."""

    def forward(value: Tensor, offset: Tensor, mask: Tensor, *settings: Any) -> Tensor:
        output: Tensor = kernels(backend).forward(value, offset, mask, **_named(settings))
        return output

    def backward(
        grad_output: Tensor, value: Tensor, offset: Tensor, mask: Tensor, *settings: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradients: tuple[Tensor, Tensor, Tensor] = kernels(backend).backward(
            grad_output, value, offset, mask, **_named(settings)
        )
        return gradients

    return forward, backward


OPERATORS = {
    "torch": _register("dcnv3_torch", "CompositeExplicitAutograd", _torch_forward, _torch_backward),
    **{
        name: _register(f"dcnv3_{name.replace('-', '_')}", package.device.upper(), *_of_package(name))
        for name, package in PACKAGES.items()
    },
}
