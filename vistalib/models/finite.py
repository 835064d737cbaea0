"""Numbers that are none: which tensors hold NaN or infinity, and in words how that came and what to do.

With one such weight a network still answers: a comparison with NaN is false, so that every pixel gets the same class.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vistalib.models.identify import some

COUNT = "num_batches_tracked"  # of batches; infinite in every long training that was saved as float16, which harms nothing
STATISTICS = ("running_mean", "running_var")


def not_finite(tensors: Mapping[str, Tensor], types: Mapping[str, torch.dtype] | None = None) -> str:
    """Which of `tensors` hold NaN or infinity, how that came and the repair, as the end of a sentence; empty for none.

    `types` are those that they are turned into, by name, where they are: a float64 may be more than float32 holds.
    """
    types = types or {}
    bad = [name for name, tensor in tensors.items() if not _finite(name, tensor, types.get(name, tensor.dtype))]
    if not bad:
        return ""
    nan = [bool(tensors[name].float().isnan().any()) for name in bad]
    half = all(torch.float16 in (tensors[name].dtype, types.get(name)) for name in bad)
    if any(nan):
        why = "a training diverged, or the file is damaged: take an earlier checkpoint, or the file anew"
    elif half:
        why = "float16 holds nothing above 65504: save them in float32 or bfloat16, from the weights they were made of"
    else:
        why = (
            "a training diverged, or they went through float16, which holds nothing above 65504: take an earlier checkpoint, "
            "or save them in float32 or bfloat16, from the weights they were made of"
        )
    statistics = ", statistics of batch norm among them" if any(name.endswith(STATISTICS) for name in bad) else ""
    what = "NaN" if all(nan) else "NaN or infinity" if any(nan) else "infinity"
    return f"{what} in {len(bad)} of {len(tensors)} tensors{statistics} ({some(bad)}); {why}"


def _finite(name: str, tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether `tensor`, turned into `dtype`, has finite numbers alone; of a tensor without memory nothing is known."""
    if name.endswith(COUNT) or tensor.is_meta or not tensor.numel() or not tensor.is_floating_point():
        return True
    if tensor.itemsize == 1:  # torch has no extremes of 8-bit floats
        tensor = tensor.float()
    elif dtype.is_floating_point and torch.finfo(dtype).max < torch.finfo(tensor.dtype).max:
        tensor = tensor.to(dtype)
    # Both are NaN where one value is; a sixth of the time of tensor.isfinite().all().
    return all(math.isfinite(extreme) for extreme in torch.stack(tensor.aminmax()).tolist())
