"""Timing calls side by side: in turns, so that whatever disturbs the machine disturbs all of them, and their ratios stay.

A round times every call once, and each round begins with another one. Before each timed call the caches are either `cold`, a
large buffer having just been written over them, or `warm`, the same call having just been made. On CUDA a time is what passes
on the stream between two events; an eager call that is shorter than its own launch shows the launch, which a call captured
in a CUDA graph does not.
"""

import time
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from vistalib.bench.workload import Direction

Cache = Literal["cold", "warm"]
CACHES: tuple[Cache, ...] = get_args(Cache)
FLUSH = 1 << 27  # bytes, on a CPU: more than most last-level caches
L2S = 4  # buffer on CUDA, in sizes of its second-level cache
WARM_UP = 3  # calls before a capture


class Trial:
    """What is timed: calling it once. `prepare` first, untimed: for "backward" it makes the graph that is walked back."""

    def __init__(
        self,
        run: Callable[..., Tensor],
        tensors: Sequence[Tensor],
        gradient: Tensor,
        direction: Direction,
        *,
        keep: bool = False,
    ) -> None:
        self.run, self.tensors, self.gradient, self.direction, self.keep = run, tuple(tensors), gradient, direction, keep
        self.output: Tensor | None = None

    def prepare(self) -> None:
        """Everything that belongs before the timed part."""
        if self.direction == "backward":
            self.output = self.run(*self.tensors)

    def __call__(self) -> tuple[Tensor, ...]:
        """One call; gives the output, or the gradients of the tensors."""
        if self.direction == "forward":
            with torch.no_grad():
                return (self.run(*self.tensors),)
        output = self.run(*self.tensors) if self.direction == "both" else self.output
        assert output is not None, "prepare comes first"
        return torch.autograd.grad(output, self.tensors, self.gradient, retain_graph=self.keep)


class Captured:
    """A trial recorded in a CUDA graph: calling it launches everything at once."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.graph = trial, torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # of torch
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            trial.prepare()
            for _ in range(WARM_UP):
                trial()
        with torch.cuda.graph(self.graph, stream=stream):
            trial()

    def prepare(self) -> None:
        """Nothing: the recorded call reads what was there when it was recorded."""

    def __call__(self) -> None:
        """Launch the graph."""
        self.graph.replay()


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """How long one call takes: by the clock on a CPU, between two events on CUDA."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # of torch
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def interleave(trials: Sequence[Trial | Captured], *, repeats: int, device: torch.device, cache: Cache) -> list[list[float]]:
    """Seconds of every trial in every round, after one untimed call each."""
    flush = _flush(device)
    times: list[list[float]] = [[] for _ in trials]
    for trial in trials:
        trial.prepare()
        trial()
    for turn in range(repeats):
        for place in range(len(trials)):
            which = (turn + place) % len(trials)
            trial = trials[which]
            if cache == "warm":
                trial.prepare()
                trial()
            trial.prepare()
            if cache == "cold":
                flush.zero_()
            times[which].append(seconds(trial, device))
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and quartiles."""
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "min": min(values), "q1": q1, "q3": q3}


def _flush(device: torch.device) -> Tensor:
    size = FLUSH
    if device.type == "cuda":
        size = L2S * torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(size, dtype=torch.uint8, device=device)
