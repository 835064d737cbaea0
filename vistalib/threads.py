"""Threads and processes that share a machine: how they wait, for how many there is room, and that none is left behind.

Threads of a parallel region wait for each other at its end. OpenMP has them turn in circles meanwhile, which is quickest where
every thread has a core to itself; beside another program it keeps that core from the very thread that is waited for, and a
training step takes many times as long. Asleep, they cost a quiet machine next to nothing.
"""

import multiprocessing
import os
import signal
import sys
import threading
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
            "another program a step can take many times as long. Put `import vistalib` before `import torch`, or start "
            "Python with OMP_WAIT_POLICY=PASSIVE.",
            file=sys.stderr,
            flush=True,
        )


def end_with_parent() -> None:
    """In a process that `multiprocessing` began: be told to end (SIGTERM) once the one that began it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
