"""Our models alone and beside a neighbour, a process that wants all cores: `vistalib bench model --beside`.

Two that want all cores get half each, so twice the time is what can be hoped for. More is lost where threads wait for each
other: each wait ends only when the last of them was given a core. The neighbour multiplies matrices with as many threads as
there are cores, and OpenMP's usual way to wait, as most programs do.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from vistalib.bench.model import ModelBench, ModelSettings, Record, Way, make_call
from vistalib.bench.timing import spread
from vistalib.threads import CHOICES, usable_cores

SIDE = 768  # of the neighbour's matrices: a product takes some milliseconds
AS_OTHERS_WAIT = {"GOMP_SPINCOUNT": "300000"}  # what GNU's OpenMP does where nothing is said
SETTLE = 0.5  # seconds until the neighbour has its cores, or has left them
ROUND = 5.0  # seconds of a round, in which as many calls as there is time for follow each other
Switch = Callable[[bool], None]


class BesideBench(ModelBench):
    """One run: `run` gives the record, with every model and direction alone and beside the neighbour in turns."""

    def __init__(self, settings: ModelSettings) -> None:
        if settings.device != "cpu":
            raise ValueError(f"a neighbour takes the cores of a CPU, got the device {settings.device}; leave --device out")
        super().__init__(settings)

    def run(self) -> Record:
        """Measure everything."""
        with neighbour() as self.switch:
            record = super().run()
        record["machine"]["cores"] = usable_cores()
        return record

    def _measure(self, name: str, way: Way) -> Iterator[Record]:
        """The one row of our model."""
        call = make_call(name, way, self.settings)
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(self.settings.repeats):
            for beside in (False, True):
                self.switch(beside)
                time.sleep(SETTLE)
                times[beside].append(in_a_row(call))
        self.switch(False)
        yield {
            "model": name,
            "crop": self.settings.crop,
            "images": self.settings.images,
            "direction": way,
            "alone": spread(times[False]),
            "beside": spread(times[True]),
            "ratio": spread([b / a for a, b in zip(times[False], times[True], strict=True)]),
            "seconds": {"alone": times[False], "beside": times[True]},
        }


def in_a_row(call: Callable[[], object]) -> float:
    """Seconds of a call among others, as in a training: the first finds caches cold and threads asleep, and does not count."""
    call()
    began, calls = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < ROUND:
        call()
        calls += 1
    return taken / calls


@contextmanager
def neighbour() -> Iterator[Switch]:
    """A process that wants all cores whenever the switch is on, and none else."""
    context = multiprocessing.get_context("spawn")
    ready, on = context.Event(), context.Event()
    process = context.Process(target=multiply, args=(ready, on, usable_cores()), daemon=True)
    with patch.dict(os.environ, AS_OTHERS_WAIT):
        for name in {*CHOICES, "OMP_NUM_THREADS"} - AS_OTHERS_WAIT.keys():
            os.environ.pop(name, None)
        process.start()
    try:
        while not ready.wait(1):  # its imports want a core, too
            if not process.is_alive():
                raise ChildProcessError(f"the neighbour must run until it is told to stop, it ended with {process.exitcode}")
        yield lambda wanted: on.set() if wanted else on.clear()
    finally:
        process.terminate()
        process.join()


def multiply(ready: Any, on: Any, threads: int) -> None:
    """What the neighbour does."""
    torch.set_num_threads(threads)
    matrix = torch.ones(SIDE, SIDE)
    ready.set()
    while True:
        on.wait()
        matrix @ matrix


def beside_table(record: Record) -> Iterator[str]:
    """A line for each model and direction."""
    yield f"{'model':28}{'direction':11}{'alone':>10}{'beside':>10}   times as long"
    for row in record["rows"]:
        ratio = row["ratio"]
        yield (
            f"{row['model']:28}{row['direction']:11}{row['alone']['median']:8.3f} s{row['beside']['median']:8.3f} s   "
            f"{ratio['median']:.2f} ({ratio['q1']:.2f} to {ratio['q3']:.2f})"
        )
    facts, settings = record["facts"], record["settings"]
    yield ""
    yield f"median (quartiles), rounds: {settings['repeats']}, images: {settings['images']} of {settings['crop']}"
    yield f"beside: a process with {record['machine']['cores']} threads; {facts['cpu']}, threads: {facts['threads']}"
