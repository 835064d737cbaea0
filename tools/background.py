"""Work behind the user's back: one at a time by a lock, felt by nobody, its state in one line that others can read."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

SILENT = 60.0  # seconds after which a work that says nothing has ended; while it runs it speaks every few


class Gone(Exception):
    """The environment that the work was for, its only argument, was removed, or made anew by someone else."""

    def __str__(self) -> str:
        return f"{self.args[0]} was removed or made anew meanwhile; run the command again"


class State:
    """The state of one work in `folder`/`name`.json: one `line` for people, and whether it is still `running`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.json"

    def read(self) -> dict[str, object]:
        """The last state; nothing where there is none. What broke off is no longer running."""
        try:
            state, age = json.loads(self.path.read_text(encoding="utf-8")), time.time() - self.path.stat().st_mtime
        except (OSError, ValueError):
            return {}
        return state | {"running": state["running"] and age < SILENT}

    def write(self, line: str, *, running: bool = False, **more: object) -> None:
        """Replace the state in one step; raises `Gone` where its folder is no more."""
        beside = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            beside.write_text(json.dumps({"line": line, "running": running} | more) + "\n", encoding="utf-8")
            beside.replace(self.path)
        except FileNotFoundError:
            raise Gone(str(self.path.parent)) from None


@contextlib.contextmanager
def lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the file `path` alone among all processes; `waiting` is called every second until it is free.

    The system frees it when its holder ends, in whatever way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        while not _taken(file):
            waiting()
            time.sleep(1)
        yield


def _taken(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the second is what Windows says
        return False
    return True


def start(*command: str | Path) -> None:
    """Start `command` detached: it outlives this process and its terminal, says nothing, and gives way to everything."""
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.IDLE_PRIORITY_CLASS}
    else:
        apart = {"start_new_session": True, "preexec_fn": _give_way}
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        [*map(str, command)], stdin=nowhere, stdout=nowhere, stderr=nowhere, cwd=Path.home().anchor, **apart
    )
    process.returncode = 0  # nobody waits for it, and Python need not warn of that


def _give_way() -> None:
    """Let this process and those it starts have what nobody else wants: processor, disk and, if it comes to that, memory."""
    os.nice(19)
    if sys.platform == "linux":
        # A session of its own is a group of its own to the scheduler, and nice counts only inside: the group gives way, too.
        for name, value in (("autogroup", "19"), ("oom_score_adj", "1000")):
            with contextlib.suppress(OSError):
                Path("/proc/self", name).write_text(value)
        with contextlib.suppress(OSError):  # idle on the processor is idle on the disk, too (ioprio_set(2))
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def stop(process: subprocess.Popen[bytes]) -> None:
    """End `process`, started with `process_group=0`, and all that it started."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
    process.wait()
