"""Which backends there are, which of them run here, and which one a call gets.

This module alone opens `vistalib_kernels`. A package that is not installed is "missing" and named with the command that
installs it; a package that is installed and fails to import is "broken": that error is shown, and nothing else is quietly
used instead.
"""

from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

NOT_BUILT = ("cuda",)  # named in the interface, not part of this version
NAMES = ("auto", "torch", "numba", "numba-cuda", *NOT_BUILT)
INSTALL_NUMBA = "python -m pip install vistalib-kernels"
REPAIR_NUMBA = "python -m pip install --force-reinstall vistalib-kernels"
INSTALL_NUMBA_CUDA = f'python -m pip install "vistalib-kernels[cu{(torch.version.cuda or "13").split(".")[0]}]"'
REPAIR_NUMBA_CUDA = f"{INSTALL_NUMBA_CUDA} --force-reinstall"


@dataclass(frozen=True)
class BackendStatus:
    """One row of `backend_status()`: whether the backend runs here; if not, why, and the command that repairs it."""

    name: str
    usable: bool
    reason: str
    repair: str | None = None


def backend_status() -> tuple[BackendStatus, ...]:
    """One record a backend, slowest first. Never raises: what is broken is told in `reason`."""
    rows = BackendStatus("torch", True, "runs on every device"), _numba_status(), _numba_cuda_status()
    return (*rows, *(_not_built(name) for name in NOT_BUILT))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch leaves it unannotated
def choose_backend(backend: str, device_type: str) -> str:
    """The backend that a call with `backend` on `device_type` gets: "torch", "numba" or "numba-cuda".

    Raises `ValueError` for a name that does not exist or does not fit the device, `ModuleNotFoundError` where the package it
    needs is missing, and `RuntimeError` where that package is broken.
    """
    if backend in NOT_BUILT:
        raise ValueError(f"backend {backend!r} is not part of this version; use backend='auto'")
    if backend not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {backend!r}; use 'auto'")
    if backend == "numba" and device_type != "cpu":
        raise ValueError(f"backend 'numba' runs on CPU tensors, got device {device_type}; use backend='auto' or .to('cpu')")
    if backend == "numba-cuda":
        if device_type != "cuda":
            raise ValueError(
                f"backend 'numba-cuda' runs on CUDA tensors, got device {device_type}; use backend='auto' or .to('cuda')"
            )
        if numba_cuda() is None:
            raise ModuleNotFoundError(f"backend 'numba-cuda' is not installed; run: {INSTALL_NUMBA_CUDA}")
        return "numba-cuda"
    if backend == "torch" or device_type != "cpu":
        return "torch"
    if numba_cpu() is not None:
        return "numba"
    if backend == "numba":
        raise ModuleNotFoundError(f"backend 'numba' is not installed; run: {INSTALL_NUMBA}")
    return "torch"


def numba_cpu() -> ModuleType | None:
    """The Numba kernels, or None where they are not installed; `RuntimeError` where they are installed and do not load."""
    found = _load_numba_cpu()
    if isinstance(found, Exception):
        raise RuntimeError(
            f"backend 'numba' {_broken(found)}; run: {REPAIR_NUMBA}, or pass backend='torch' until then"
        ) from found
    return found


@cache  # of the first error, too: a second attempt to import what is broken often fails for another, misleading reason
def _load_numba_cpu() -> ModuleType | Exception | None:
    try:
        import numba  # noqa: F401  # first, so that it is the one named where it is missing
        from vistalib_kernels import numba_cpu

        return numba_cpu
    except ModuleNotFoundError as error:
        return None if error.name in ("numba", "vistalib_kernels") else error
    except Exception as error:
        return error


def _broken(error: Exception) -> str:
    return f"is installed but does not load: {type(error).__name__}: {error}"


def _numba_status() -> BackendStatus:
    found = _load_numba_cpu()
    if found is None:
        return BackendStatus("numba", False, "not installed", INSTALL_NUMBA)
    if isinstance(found, Exception):
        return BackendStatus("numba", False, _broken(found), REPAIR_NUMBA)
    return BackendStatus("numba", True, "runs on CPUs")


@cache
def numba_cuda() -> ModuleType | None:
    """The Numba kernels for GPUs, or None where they or numba-cuda are not installed; `RuntimeError` where they do not load."""
    try:
        import numba_cuda as package  # noqa: F401  # numba alone has an older numba.cuda, which is not enough
        import vistalib_kernels.numba_cuda

        return vistalib_kernels.numba_cuda
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("numba_cuda", "vistalib_kernels"):
            return None
        raise RuntimeError(
            f"backend 'numba-cuda' is installed but does not load: {type(error).__name__}: {error}; "
            f"run: {REPAIR_NUMBA_CUDA}, or pass backend='torch' until then"
        ) from error


def _numba_cuda_status() -> BackendStatus:
    if not torch.cuda.is_available():
        return BackendStatus("numba-cuda", False, "PyTorch finds no NVIDIA GPU here")
    try:
        module = numba_cuda()
    except RuntimeError as error:
        return BackendStatus("numba-cuda", False, str(error), REPAIR_NUMBA_CUDA)
    if module is None:
        return BackendStatus("numba-cuda", False, "not installed", INSTALL_NUMBA_CUDA)
    if not module.cuda.is_available():
        return BackendStatus("numba-cuda", False, f"Numba finds no GPU: {module.cuda.cuda_error()}", REPAIR_NUMBA_CUDA)
    return BackendStatus("numba-cuda", True, "runs on NVIDIA GPUs; the version to read")


def _not_built(name: str) -> BackendStatus:
    return BackendStatus(name, False, "not part of this version")
