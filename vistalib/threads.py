"""Threads that share a machine: how they wait, and for how many of them there is room.

Threads of a parallel region wait for each other at its end. OpenMP has them turn in circles meanwhile, which is quickest where
every thread has a core to itself; beside another program it keeps that core from the very thread that is waited for, and a
training step takes a hundred times as long. Asleep, they cost a quiet machine next to nothing.
"""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # by which users may have chosen themselves
_spinning = False


def sleep_while_waiting() -> None:
    """Have OpenMP's threads sleep while they wait, where nobody chose; it is read once, when PyTorch is loaded."""
    global _spinning
    if not any(name in os.environ for name in CHOICES):
        _spinning = "torch" in sys.modules
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # processes that are begun from here read it, too


def say_if_spinning(device: "str | torch.device") -> None:
    """Once, to standard error, before minutes of work on a CPU: threads turn in circles, since PyTorch came first."""
    global _spinning
    import torch  # loaded already; `import vistalib` does not wait for it

    if _spinning and torch.device(device).type == "cpu" and torch.get_num_threads() > 1:
        _spinning = False
        print(
            "vistalib: torch was imported before vistalib, so its threads do not sleep while they wait for each other: beside "
            "another program a step can take a hundred times as long. Put `import vistalib` before `import torch`, or start "
            "Python with OMP_WAIT_POLICY=PASSIVE.",
            file=sys.stderr,
            flush=True,
        )


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
