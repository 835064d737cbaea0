"""How fast a disk hands out the files of a dataset, one after another."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_FILES, MOST_BYTES, MOST_SECONDS = 200, 256 << 20, 5.0  # a sample this large, and no longer than this


@dataclass(frozen=True)
class Disk:
    """A sample of files that was read, in how many seconds. `asked_to_forget`: the system was asked
    before to drop what it keeps of them in memory. Where it cannot be asked (it can on Linux), the speed may be that of memory.
    """

    files: int
    bytes: int
    seconds: float
    asked_to_forget: bool


def disk_speed(paths: Sequence[Path]) -> Disk:
    """Read files from all over `paths`, each from its beginning, until the sample is large enough; skip what cannot be read."""
    files = size = 0
    seconds = 0.0
    for path in paths[:: max(1, len(paths) // MOST_FILES)][:MOST_FILES]:
        try:
            with path.open("rb", buffering=0) as file:
                _forget(file.fileno())
                began = time.perf_counter()
                while piece := file.read(1 << 20):
                    size += len(piece)
                seconds += time.perf_counter() - began
        except OSError:
            continue
        files += 1
        if size >= MOST_BYTES or seconds >= MOST_SECONDS:
            break
    return Disk(files, size, seconds, hasattr(os, "posix_fadvise"))


def _forget(descriptor: int) -> None:
    """Let the system drop the pages that it keeps of a file, as far as it lets itself be told."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
