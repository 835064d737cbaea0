"""`vistalib kernels`: the compiled kernels."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from vistalib.cli.parts import Chosen
from vistalib.files import check_writable, write_json


def kernels_build(*, architectures: Chosen[tuple[str, ...]] = (), again: bool = False, json: Path | None = None) -> None:
    """Compile DCNv3 for NVIDIA GPUs (where PyTorch has CUDA and nvcc is there), and its C++ twin for CPUs.

    The library stays in a cache folder (VISTALIB_KERNELS_CACHE chooses another) and is taken by the next Python that starts.

    Args:
        architectures: Compute capabilities to compile for, as 80 90 (default: those of the GPUs here).
        again: Compile even where it was done before.
        json: File for what was built: path, compiler, CUDA, architectures, seconds.
    """
    from vistalib.ops.backends import build_kernels

    if json is not None:
        check_writable(json)
    built = build_kernels(architectures=architectures or None, again=again, say=lambda line: print(line, flush=True))
    for_gpus = f"sm_{', sm_'.join(built.architectures)} by nvcc {built.cuda}" if built.cuda else f"no GPUs: {built.note}"
    print(f"for CPUs by {built.compiler}, and for {for_gpus}")
    if json is not None:
        write_json(json, dataclasses.asdict(built))


KernelsCommand = Annotated[None, tyro.conf.subcommand("build", constructor=kernels_build)] | Annotated[None, tyro.conf.Suppress]


def kernels(command: Annotated[KernelsCommand, tyro.conf.arg(name="")]) -> None:
    """Compile the kernels that are faster than Numba's."""
