"""Where a number comes from: the facts that every record and report carries."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import vistalib

PACKAGES = ("torch", "numpy", "numba", "opencv-python-headless", "isal", "pyspng", "torch-scatter", "datasets")


def provenance() -> dict[str, Any]:
    """Commit, versions and machine as plain JSON values; a fact that cannot be found is None."""
    return {
        "vistalib": vistalib.__version__,
        "commit": commit(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.system(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "versions": {package: _version(package) for package in PACKAGES},
    }


def commit() -> str | None:
    """The commit of the checkout this package runs from, with `+changes` when files differ; None outside a checkout."""
    folder = Path(vistalib.__file__).parent
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return revision[:12] + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def peak_memory_mb() -> float:
    """The most resident memory this process has held, in MB (10^6 bytes); on CUDA, the most the allocator has held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == "win32":
        return float("nan")
    if sys.platform == "linux":  # where ru_maxrss counts the process that started this one, too
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, env=environment, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
