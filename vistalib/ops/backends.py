"""Which backends there are, which of them run here, and which one a call gets.

This module alone opens `vistalib_kernels`. A package that is not installed is "missing" and named with the command that
installs it; a package that is installed and fails to import is "broken": that error is shown, and nothing else is quietly
used instead. The same holds for the compiled library: not built is one thing, built and not loading another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch

INSTALL = "python -m pip install vistalib-kernels"
INSTALL_NUMBA_CUDA = f'python -m pip install "vistalib-kernels[cu{(torch.version.cuda or "13").split(".")[0]}]"'


@dataclass(frozen=True)
class BackendStatus:
    """One row of `backend_status()`: whether the backend runs here; if not, why, and the command that repairs it."""

    name: str
    usable: bool
    reason: str
    repair: str | None = None


@dataclass(frozen=True)
class Package:
    """Where a backend's kernels come from: a module with `status`, `forward` and `backward`."""

    device: str
    load: Callable[[], ModuleType]
    needs: tuple[str, ...]  # what it cannot do without; where one of these is not there, the backend is not installed
    install: str = INSTALL

    @property
    def reinstall(self) -> str:
        """The command for one that is there and does not load."""
        return self.install.replace("install ", "install --force-reinstall ", 1)


def _numba() -> ModuleType:
    import numba  # noqa: F401  # first, so that it is the one named where it is missing
    from vistalib_kernels import numba_cpu

    return numba_cpu


def _cpp() -> ModuleType:
    from vistalib_kernels import extension

    return extension


def _numba_cuda() -> ModuleType:
    import numba_cuda as package  # noqa: F401  # numba alone has an older numba.cuda, which is not enough
    import vistalib_kernels.numba_cuda

    return vistalib_kernels.numba_cuda


def _cuda() -> ModuleType:
    from vistalib_kernels import cuda

    return cuda


PACKAGES = {
    "cpp": Package("cpu", _cpp, ("vistalib_kernels",)),
    "numba": Package("cpu", _numba, ("numba", "vistalib_kernels")),
    "numba-cuda": Package("cuda", _numba_cuda, ("numba_cuda", "vistalib_kernels"), INSTALL_NUMBA_CUDA),
    "cuda": Package("cuda", _cuda, ("vistalib_kernels",)),
}
NAMES = ("auto", "torch", *PACKAGES)
AUTOMATIC = {"cpu": ("numba",), "cuda": ("cuda", "numba-cuda")}  # the first that is usable, else torch
_usable: set[str] = set()  # what was found usable stays so; to ask at every call would cost more than the kernels


def backend_status() -> tuple[BackendStatus, ...]:
    """One record a backend, slowest first. Never raises: what is broken is told in `reason`."""
    return BackendStatus("torch", True, "runs on every device"), *map(_told, PACKAGES)


def choose_backend(backend: str, device_type: str) -> str:
    """The backend that a call with `backend` on `device_type` gets: "auto" becomes the fastest that is usable there.

    Raises `ValueError` for a name that does not exist or does not fit the device and where the environment asks for a tier of
    kernels that does not exist, `ModuleNotFoundError` where the package it needs is missing, and `RuntimeError` where that
    package is broken, or was not built.
    """
    if backend not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {backend!r}; use 'auto'")
    if backend == "auto":
        return next((name for name in AUTOMATIC.get(device_type, ()) if _serves(name)), "torch")
    if backend == "torch":
        return "torch"
    device = PACKAGES[backend].device
    if device_type != device:
        raise ValueError(
            f"backend {backend!r} runs on {device.upper()} tensors, got device {device_type}; "
            f"use backend='auto' or .to({device!r})"
        )
    kernels(backend)
    if backend not in _usable:
        status = _status(backend)
        if not status.usable:
            repair = "" if status.repair is None else f"; run: {status.repair}"
            raise RuntimeError(f"backend {backend!r} cannot be used: {status.reason}{repair}, or pass backend='torch'")
        _usable.add(backend)
    return backend


# What `torch.compiler.assume_constant_result` does, which imports the compiler: four seconds that only its users should pay.
choose_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]


def kernels(backend: str) -> ModuleType:
    """The module of `backend`. `ModuleNotFoundError` where it is not installed, `RuntimeError` where it does not load."""
    found, package = _load(backend), PACKAGES[backend]
    if found is None:
        raise ModuleNotFoundError(f"backend {backend!r} is not installed; run: {package.install}")
    if isinstance(found, Exception):
        raise RuntimeError(
            f"backend {backend!r} {_broken(found)}; run: {package.reinstall}, or pass backend='torch' until then"
        ) from found
    return found


def winograd() -> ModuleType | None:
    """The module of 3 x 3 convolutions on a CPU, or None where Numba is not installed."""
    if choose_backend("auto", "cpu") != "numba":
        return None
    from vistalib_kernels import winograd as module

    return module


def build_kernels(
    *, architectures: Sequence[str] | None = None, again: bool = False, say: Callable[[str], None] = print
) -> Any:
    """Build the compiled library, or find the one that is there: what `vistalib_kernels.build.build` returns.

    Raises `ModuleNotFoundError` where `vistalib-kernels` is not installed, `OSError` with compiler's first error and the
    known remedies where the library cannot be built.
    """
    try:
        from vistalib_kernels import build
    except ModuleNotFoundError as error:
        if error.name != "vistalib_kernels":
            raise
        raise ModuleNotFoundError(f"vistalib-kernels is not installed; run: {INSTALL}") from None
    return build.build(architectures=architectures, again=again, say=say)


@cache  # of the first error, too: a second attempt to import what is broken often fails for another, misleading reason
def _load(backend: str) -> ModuleType | Exception | None:
    package = PACKAGES[backend]
    try:
        return package.load()
    except ModuleNotFoundError as error:
        return None if error.name in package.needs else error
    except Exception as error:
        return error


def _serves(backend: str) -> bool:
    """Whether "auto" may take `backend`; `RuntimeError` where it is there and broken."""
    if backend == "numba-cuda" and torch.are_deterministic_algorithms_enabled():
        return False  # its backward would refuse
    if backend not in _usable and _load(backend) is not None and _has_device(backend) and kernels(backend).status()[0]:
        _usable.add(backend)
    return backend in _usable


def _told(backend: str) -> BackendStatus:
    try:
        if backend == "cuda" and isinstance(found := _load(backend), ModuleType):
            found.tier()  # where there is no GPU, too: a job may be prepared here and run where there is one
        return _status(backend)
    except ValueError as error:  # the environment asks for a tier that does not exist
        return BackendStatus(backend, False, str(error))


def _status(backend: str) -> BackendStatus:
    package = PACKAGES[backend]
    if not _has_device(backend):
        return BackendStatus(backend, False, "PyTorch finds no NVIDIA GPU here")
    found = _load(backend)
    if found is None:
        return BackendStatus(backend, False, "not installed", package.install)
    if isinstance(found, Exception):
        return BackendStatus(backend, False, _broken(found), package.reinstall)
    try:
        usable, reason, repair = found.status()
    except RuntimeError as error:  # what was built does not load
        reason, _, repair = str(error).partition("; run: ")
        return BackendStatus(backend, False, reason, repair)
    return BackendStatus(backend, usable, reason, repair)


def _has_device(backend: str) -> bool:
    return PACKAGES[backend].device == "cpu" or torch.cuda.is_available()


def _broken(error: Exception) -> str:
    return f"is installed but does not load: {type(error).__name__}: {error}"
