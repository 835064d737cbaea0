"""The GPU kernels of Numba under its CUDA simulator (NUMBA_ENABLE_CUDASIM=1), one case after the other."""

import json
from typing import Any

import torch
from ops_helpers import Inputs, random_inputs, worst
from torch import Tensor

from vistalib.ops import dcnv3_definition
from vistalib.ops.definition import dcnv3_gradients

NAMES = ("output", "value", "offset", "mask")
CASES: dict[str, dict[str, Any]] = {
    "float64": {"height": 2, "width": 3, "group_channels": 2},
    "float32": {"height": 2, "width": 2, "group_channels": 4, "dtype": torch.float32},
    "bfloat16": {"height": 2, "width": 2, "groups": 1, "group_channels": 8, "dtype": torch.bfloat16},
    "float16": {"height": 2, "width": 2, "groups": 1, "group_channels": 8, "dtype": torch.float16},
    "stride": {"height": 5, "width": 4, "stride": (2, 3), "group_channels": 2},
    "even-kernel": {"height": 3, "width": 3, "groups": 1, "kernel_size": (2, 4), "padding": (1, 2), "dilation": (1, 2)},
    "whole-locations": {"height": 3, "width": 3, "groups": 1, "group_channels": 2, "spread": 0.0, "offset_scale": 0.7},
    "mostly-outside": {"height": 2, "width": 3, "group_channels": 2, "spread": 3.0},
    "more-channels-than-threads": {"height": 1, "width": 2, "groups": 1, "group_channels": 18},
    "two-images": {"images": 2, "height": 1, "width": 2, "group_channels": 2},
}


def kernels(inputs: Inputs, variant: str | None, *, logits: bool) -> tuple[Tensor, ...]:
    """Output and gradients of value, offset and mask."""
    from vistalib_kernels import numba_cuda

    settings = {**inputs.settings, "mask_is_logits": logits, "variant": variant}
    gradients = numba_cuda.backward(inputs.grad_output, *inputs.tensors, **settings)
    return (numba_cuda.forward(*inputs.tensors, **settings), *gradients)


def errors(inputs: Inputs, variant: str | None) -> dict[str, float]:
    """The largest error of each result, in units in the last place of its largest number; the mask given, and as logits."""
    found = {}
    exact = inputs.to(torch.float64)
    for logits in (False, True):
        forward = dcnv3_definition(*exact.tensors, **exact.settings, mask_is_logits=logits)
        backward = dcnv3_gradients(exact.grad_output, *exact.tensors, **exact.settings, mask_is_logits=logits)
        for name, ours, theirs in zip(NAMES, kernels(inputs, variant, logits=logits), (forward, *backward)):
            assert ours.dtype == inputs.value.dtype
            unit = torch.finfo(ours.dtype).eps * max(theirs.abs().max().item(), 1e-3)
            found[f"{name}{'-logits' * logits}"] = worst(ours, theirs) / unit
    return found


def main(variant: str) -> None:
    """Print the errors of every case as JSON."""
    print(json.dumps({name: errors(random_inputs(**{"images": 1, **shape}), variant) for name, shape in CASES.items()}))
