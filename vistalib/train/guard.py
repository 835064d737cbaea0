"""What keeps a run from harm: a lock on its folder, an answer to being told to stop, a watch for infinities and NaN."""

import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from vistalib.train.distributed import from_all_ranks, on_all_ranks

INTERRUPTED = 75  # the exit status of a run that was told to stop and can be resumed (EX_TEMPFAIL of sysexits.h)
LOCK = "run.lock"


class Interrupted(SystemExit):
    """The run was told to stop (SIGTERM, SIGINT) and has written `checkpoint`; uncaught, the process exits with status 75."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(INTERRUPTED)
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        return f"interrupted; {self.checkpoint} holds the run so far, resume it to go on"


class NonFiniteLoss(FloatingPointError):
    """The loss or its gradient was infinite or not a number; `iteration` (0-based) and `samples` replay the batch."""

    def __init__(self, iteration: int, samples: list[int]) -> None:
        super().__init__(
            f"the loss or its gradient was not finite in iteration {iteration} (0-based), samples {samples}; no weight has "
            f"changed since that iteration began. Look at that batch, loader.batches({iteration}) gives it first; then try a "
            'lower learning_rate, a longer warm-up (warmup_iters), clip_norm=0.1 or precision="fp32", in a new folder'
        )
        self.iteration = iteration
        self.samples = samples

    def __reduce__(self) -> tuple[Any, ...]:
        """From process to process."""
        return type(self), (self.iteration, self.samples), vars(self)


class FiniteGuard:
    """Watches losses and gradient norms on the device, where nobody has to wait for them.

    From the first number that is not finite, `found` is 1.0 and AdamW's fused kernel, which reads it, leaves weights and
    moments alone; `check()`, called where the host waits anyway, raises with the samples of that iteration.
    """

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), -1, device=device)  # the first bad iteration, -1 while there is none
        self._samples: dict[int, Tensor] = {}
        self.found = torch.zeros((), device=device)

    def watch(self, iteration: int, samples: Tensor, fine: Tensor) -> None:
        """Take in one iteration: `samples` (B,) are its numbers, `fine` a scalar on the device, False where it went wrong."""
        self._samples[iteration] = samples
        self._first = torch.where(on_all_ranks(fine) | (self._first >= 0), self._first, iteration)
        self.found = (self._first >= 0).float()

    def check(self) -> None:
        """Wait for the device; raise `NonFiniteLoss` if anything was not finite since the last call."""
        first = int(self._first)
        if first >= 0:
            raise NonFiniteLoss(first, from_all_ranks(self._samples[first].tolist()))
        self._samples.clear()


class StopSignals:
    """While entered, SIGTERM and SIGINT set `requested` instead of killing; a second SIGINT raises `KeyboardInterrupt`.

    Inside `raising(checkpoint)` a signal raises `Interrupted` at once. Outside the main thread Python hands out no signals,
    and nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._checkpoint: Path | None = None
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def raising(self, checkpoint: Path) -> Iterator[None]:
        """For a stretch whose loss costs nothing, since `checkpoint` holds the run as it stood at its beginning."""
        self._checkpoint = checkpoint
        try:
            if self.requested:
                raise Interrupted(checkpoint)
            yield
        finally:
            self._checkpoint = None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._checkpoint is not None:
            raise Interrupted(self._checkpoint)
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold `folder/run.lock`; the system lets go of it when the process ends, however it ends.

    Raises `ValueError` while another process holds it, `OSError` where the folder cannot be written; warns and goes on where
    the file system knows no locks. A record lock (not `flock`), since those are not inherited by a loader's forked workers.
    A folder in which the run wrote nothing else is removed again.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"the run's folder {folder} cannot be written: {error.strerror or error}; "
            "choose another folder or mend its permissions"
        ) from error
    with file:
        try:
            _lock(file.fileno())
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(
                f"{folder} must have one run at a time, {holder} is writing there; wait for it or choose another folder"
            ) from None
        except OSError as error:
            warnings.warn(
                f"{folder} is on a file system without locks ({error}): see to it that one run writes there", stacklevel=3
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                with suppress(OSError):  # Windows removes no open file: there the lock stays
                    (folder / LOCK).unlink()
                    folder.rmdir()


def _lock(handle: int) -> None:
    """Take the lock or raise at once: `BlockingIOError` or `PermissionError` where another process has it."""
    try:
        import fcntl
    except ModuleNotFoundError:
        import msvcrt

        os.lseek(handle, 1 << 30, os.SEEK_SET)  # Windows forbids others to read locked bytes: lock one far behind the text
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # Windows alone has it
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
