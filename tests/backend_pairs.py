"""The backends and devices that tests of the operator are tried on."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from kernels_helpers import build_once, library

from vistalib.ops import backend_status

CPU_BACKENDS = ("torch", "numba", "cpp")
FAST = "-fast"  # behind the name of a backend: its fast tier
GPU_PAIRS = [("torch", "cuda"), ("numba-cuda", "cuda"), ("cuda", "cuda")] if torch.cuda.is_available() else []


def skip_unusable(backend: str) -> None:
    """End the test as skipped, with the reason that `backend_status` gives, where `backend` does not run here."""
    if backend == "cpp":
        library()
    if backend == "cuda":
        build_once()  # where it cannot be built, NVRTC stands in
    row = next(row for row in backend_status() if row.name == backend)
    if not row.usable:
        pytest.skip(f"backend {backend!r}: {row.reason}")


def in_tier(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend that `name` means; its calls get the fast tier where the name ends so, else the default one."""
    monkeypatch.setenv("VISTALIB_KERNELS_TIER", "fast" if name.endswith(FAST) else "default")
    return name.removesuffix(FAST)


@contextmanager
def default_device(backend: str, device: str) -> Iterator[None]:
    """New tensors lie on `device` meanwhile; the test is skipped where `backend` does not run."""
    skip_unusable(backend)
    if device == "cpu":
        yield
    else:
        with torch.device(device):
            yield
