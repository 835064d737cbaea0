"""Jobs side by side, where they do not need each other: each in a process of its own, with its share of the cores.

A training step of a small network gains next to nothing from a second core, so two trainings at once take the time of one. And
threads of one process wait for each other again and again, which beside other programs takes ten times as long; processes
do not.
"""

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import torch

from vistalib.progress import hide_progress, progress
from vistalib.threads import end_with_parent, usable_cores
from vistalib.train.guard import StopSignals


@dataclass(frozen=True)
class Job:
    """What to do: `work(report)`, which calls `report(steps)` with the number of its `steps` that are done.

    It begins when the job named `needs` has ended. `work` and what it returns go from process to process, so both must pickle.
    """

    name: str
    steps: int
    work: Callable[[Callable[[int], None]], Any]
    needs: str | None = None


def run_jobs(jobs: Sequence[Job], description: str, *, folder: Path) -> Iterator[tuple[str, Any]]:
    """The name and the result of each job, as they end; each begins as soon as it may.

    There may be more of them than cores: then no core is idle while there is work. Progress is shown as `description`. SIGTERM
    and SIGINT end all jobs, each as it ends by itself on SIGTERM, and raise `Interrupted` with `folder`, which holds what they
    left. An error of a job is raised here, once the others have ended likewise; where one was killed it is a
    `ChildProcessError`.
    """
    threads = max(1, usable_cores() // sum(job.needs is None for job in jobs))
    running: dict[Connection, tuple[Job, BaseProcess]] = {}
    with StopSignals() as signals, signals.raising(folder):
        try:
            yield from _run(list(jobs), running, threads, description, folder)
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.join()


def _run(
    waiting: list[Job], running: dict[Connection, tuple[Job, BaseProcess]], threads: int, description: str, folder: Path
) -> Iterator[tuple[str, Any]]:
    ended: set[str | None] = {None}
    done, shown = dict.fromkeys((job.name for job in waiting), 0), 0
    bar = progress(range(sum(job.steps for job in waiting)), description)
    while waiting or running:
        for job in [job for job in waiting if job.needs in ended]:
            waiting.remove(job)
            connection, process = _begin(job, threads)
            running[connection] = job, process
        results = []
        spoke = wait(list(running))
        for connection in [one for one in running if one in spoke]:
            job, process = running[connection]
            kind, value = _received(connection, folder)
            if kind == "steps":
                done[job.name] = value
                continue
            del running[connection]
            process.join()
            if kind == "error":
                raise value
            ended.add(job.name)
            done[job.name] = job.steps
            results.append((job.name, value))
        for _ in range(shown, sum(done.values())):
            next(bar)
        shown = sum(done.values())
        yield from results
    next(bar, None)  # says that all is done


def _begin(job: Job, threads: int) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, theirs, threads))
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return ours, process


def _received(connection: Connection, folder: Path) -> tuple[str, Any]:
    try:
        kind, value = connection.recv()
    except EOFError:
        raise ChildProcessError(
            f"a job in {folder} must be left alone until it ends, got one that was killed, perhaps for want of memory; what it "
            "had written is kept: the same command goes on"
        ) from None
    return kind, value


def _work(job: Job, connection: Connection, threads: int) -> None:
    """A process that works: quiet, on its share of the cores, and told to stop where the one that began it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is typed on a terminal goes to all; the first process tells the others
    hide_progress()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    end_with_parent()
    try:
        answer = "result", job.work(lambda steps: connection.send(("steps", steps)))
    except BaseException as error:
        answer = "error", _portable(error)
    connection.send(answer)


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note, as it can go to another process."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
