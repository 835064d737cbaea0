"""What every part of tools/gpu.py is given, and the few things that several of them do."""

import dataclasses
import gc
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from vistalib_kernels.cuda import TIER

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = min(12, os.cpu_count() or 1)
SHARED, ROOM = Path("/dev/shm"), 4 << 30  # what processes share on Linux, and bytes of it for two batches of each
PLAIN, FAST = "cuda", "cuda-fast"  # our CUDA kernels in every record: as nobody has to ask for them, and in the fast tier
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line."""

    out: Path
    dry_run: bool
    folder: Path | None
    minutes: float

    @property
    def device(self) -> torch.device:
        """Where it is measured."""
        return torch.device("cpu" if self.dry_run else "cuda")

    @property
    def drawers(self) -> int | None:
        """Processes that draw streets: many, or as few as a rehearsal needs."""
        return None if self.dry_run else PROCESSES

    @property
    def readers(self) -> int:
        """Processes that decode images; none where they have no room to hand over batches, as in many containers."""
        room = shutil.disk_usage(SHARED).free if SHARED.exists() else 0
        return 0 if self.dry_run or room < ROOM else PROCESSES

    def budget(self) -> "Budget":
        """The time of a part that begins now."""
        return Budget(60 * self.minutes)


class Budget:
    """Seconds that a part may take."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds to go; negative when they are used up."""
        return self._until - time.monotonic()


@contextmanager
def backend_of(name: str) -> Iterator[str]:
    """The backend that is called `name` in the records; meanwhile every call gets its tier, whatever the environment says."""
    with patch.dict(os.environ, {TIER: "fast" if name == FAST else "default"}):
        yield PLAIN if name == FAST else name


def attempt(work: Callable[[], Record], device: torch.device) -> Record:
    """What `work` gives, or {"failed": reason}: on a GPU anything may refuse, and what follows should run all the same."""
    try:
        return work()
    except Exception as error:
        return {"failed": reason(error)}
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def reason(error: Exception) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300]


def command(arguments: list[str], log: Path, *, limit: float) -> Record:
    """Run a program in the checkout for at most `limit` seconds, its output in `log`; exit status, seconds and last line."""
    began = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "PYTHONUNBUFFERED": "1"}
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                arguments, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment, timeout=max(limit, 1), check=False
            )
            status = done.returncode
        except subprocess.TimeoutExpired:
            status = 124
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return {"status": status, "seconds": time.perf_counter() - began, "last": lines[-1] if lines else ""}
