"""DCNv3 in PyTorch's own operators, in the form that Inductor makes the best code of, and packages of compiled models.

The definition reads one corner of one point at a time: 36 sums for a window of 3 x 3, and as many pieces of a graph. Here rows
and shares of all 4 K corners are laid out first, and one sum over them follows, which Inductor writes out without a loop.

Letters: N images, H x W input, P x Q output, C channels, G groups, D = C / G group channels, K points.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram, default_decompositions

from vistalib.ops.definition import corners, sampling_locations, split
from vistalib.ops.registration import OPERATORS

SETTINGS = {
    "unroll_reductions_threshold": 64,  # terms; 4 K = 36 for the usual window
    "cpp.dynamic_threads": True,  # as many as the machine has that runs the package, not the one that made it
}


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table that `ExportedProgram.run_decompositions` takes, with DCNv3 in it."""
    return default_decompositions() | dict.fromkeys(OPERATORS.values(), _dcnv3)


def check_compiler() -> None:
    """`ValueError` where there is no C++ compiler that works."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ValueError(
            "a .pt2 package must be compiled by a C++ compiler, got none that works here; install one (Debian and Ubuntu: "
            "apt-get install g++; macOS: xcode-select --install), or export to .onnx"
        ) from None


def write_package(program: ExportedProgram, path: Path, texts: Mapping[str, str]) -> None:
    """Compile `program` by AOTInductor and write it to `path`, a .pt2 file, with `texts` as its metadata."""
    settings = SETTINGS | {"aot_inductor.metadata": dict(texts)}
    program = program.run_decompositions(decompositions())
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)


def _dcnv3(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    groups: int,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    offset_scale: float,
    mask_is_logits: bool,
) -> Tensor:
    location = sampling_locations(
        offset,
        groups=groups,
        kernel_size=(kernel_size[0], kernel_size[1]),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        dilation=(dilation[0], dilation[1]),
        offset_scale=offset_scale,
    )  # (N, P, Q, G, K, 2)
    points = location.shape[4]
    weight = split(mask.to(location.dtype), groups, points)  # (N, P, Q, G, K)
    if mask_is_logits:
        weight = weight.softmax(-1)
    location = location.transpose(3, 4).flatten(2, 3)  # (N, P, Q*K, G, 2): each point as a column of its own
    weight = weight.transpose(3, 4).flatten(2, 3)  # (N, P, Q*K, G)

    found = [*corners(split(value, groups, -1), location)]
    row = torch.stack([corner.row for corner in found], -1)  # (N, P, Q*K, G, 4)
    share = torch.stack([torch.where(corner.inside, corner.weight_x * corner.weight_y * weight, 0.0) for corner in found], -1)
    each = (*offset.shape[:3], points, groups, 4)
    row, share = (x.view(each).transpose(3, 4).flatten(4) for x in (row, share))  # (N, P, Q, G, 4K)
    table = value.reshape(-1, value.shape[-1] // groups)  # (N*H*W*G, D)
    output: Tensor = (table[row] * share[..., None]).sum(-2)  # (N, P, Q, G, D)
    return output.flatten(-2).to(value.dtype)  # (N, P, Q, C)
