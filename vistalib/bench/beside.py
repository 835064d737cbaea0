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
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

import torch

from vistalib.bench.machine import load
from vistalib.bench.model import ModelSettings, Record, make_call
from vistalib.bench.timing import seconds, spread
from vistalib.progress import progress
from vistalib.provenance import provenance
from vistalib.threads import CHOICES, usable_cores

SIDE = 768  # of the neighbour's matrices: a product takes some milliseconds
AS_OTHERS_WAIT = {"GOMP_SPINCOUNT": "300000"}  # what GNU's OpenMP does where nothing is said
SETTLE = 0.5  # seconds until the neighbour has its cores, or has left them
Switch = Callable[[bool], None]


class BesideBench:
    """One run: `run` gives the record."""

    def __init__(self, settings: ModelSettings) -> None:
        if settings.device != "cpu":
            raise ValueError(f"a neighbour takes the cores of a CPU, got the device {settings.device}; leave --device out")
        self.settings = settings
        self.load = load()  # before this run makes its own

    def run(self) -> Record:
        """Every model and direction, alone and beside the neighbour in turns."""
        began, settings, before = time.perf_counter(), self.settings, torch.get_num_threads()
        torch.set_num_threads(settings.threads or before)
        cases = [(model, way) for model in settings.models for way in settings.directions]
        try:
            with neighbour() as switch:
                rows = [self._measure(model, way, switch) for model, way in progress(cases, "bench model --beside")]
            facts = provenance()
        finally:
            torch.set_num_threads(before)
        return {
            "facts": facts,
            "settings": asdict(settings),
            "machine": {"load_before": self.load, "cores": usable_cores()},
            "rows": rows,
            "seconds": time.perf_counter() - began,
        }

    def _measure(self, name: str, way: Any, switch: Switch) -> Record:
        call, device = make_call(name, way, self.settings), torch.device("cpu")
        call()
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(self.settings.repeats):
            for beside in (False, True):
                switch(beside)
                time.sleep(SETTLE)
                times[beside].append(seconds(call, device))
        switch(False)
        return {
            "model": name,
            "crop": self.settings.crop,
            "images": self.settings.images,
            "direction": way,
            "alone": spread(times[False]),
            "beside": spread(times[True]),
            "ratio": spread([b / a for a, b in zip(times[False], times[True], strict=True)]),
            "seconds": {"alone": times[False], "beside": times[True]},
        }


@contextmanager
def neighbour() -> Iterator[Switch]:
    """A process that wants all cores whenever the switch is on."""
    context = multiprocessing.get_context("spawn")
    on = context.Event()
    process = context.Process(target=multiply, args=(on, usable_cores()), daemon=True)
    with patch.dict(os.environ, AS_OTHERS_WAIT):
        for name in {*CHOICES, "OMP_NUM_THREADS"} - AS_OTHERS_WAIT.keys():
            os.environ.pop(name, None)
        process.start()
    try:
        yield lambda wanted: on.set() if wanted else on.clear()
    finally:
        process.terminate()
        process.join()


def multiply(on: Any, threads: int) -> None:
    """What the neighbour does."""
    torch.set_num_threads(threads)
    matrix = torch.ones(SIDE, SIDE)
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
