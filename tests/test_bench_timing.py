"""Timing in turns: who is called when, and what is timed."""

import time

import pytest
import torch

from vistalib.bench.timing import Captured, Trial, interleave, seconds, spread
from vistalib.ops import dcnv3

CPU = torch.device("cpu")


class Noted(Trial):
    """Notes each preparation and each call."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def prepare(self) -> None:
        self.notes.append(f"prepare {self.name}")

    def __call__(self) -> tuple[torch.Tensor, ...]:
        self.notes.append(self.name)
        return ()


def calls(cache: str) -> list[str]:
    notes: list[str] = []
    interleave([Noted(name, notes) for name in "abc"], repeats=2, device=CPU, cache=cache)
    return notes


def test_every_round_calls_everyone_and_begins_with_another() -> None:
    assert [note for note in calls("cold") if len(note) == 1] == [*"abc", *"abc", *"bca"]


def test_warm_means_called_once_more_just_before() -> None:
    assert [note for note in calls("warm") if len(note) == 1] == [*"abc", *"aabbcc", *"bbccaa"]


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_every_call_is_prepared(cache: str) -> None:
    notes = calls(cache)
    assert [note.removeprefix("prepare ") for note in notes[::2]] == notes[1::2]
    assert all(note.startswith("prepare") for note in notes[::2])


def test_a_time_belongs_to_whom_it_was_taken_from() -> None:
    class Slow(Noted):
        def __call__(self) -> tuple[torch.Tensor, ...]:
            time.sleep(0.02)
            return ()

    quick, slow = interleave([Noted("", []), Slow("", [])], repeats=3, device=CPU, cache="warm")
    assert len(quick) == len(slow) == 3
    assert min(slow) >= 0.02


def test_seconds_are_those_of_the_call() -> None:
    assert 0.02 <= seconds(lambda: time.sleep(0.02), CPU) < 0.2


def test_spread_is_median_least_and_quartiles() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "min": 1.0, "q1": 2.0, "q3": 4.0}


@pytest.fixture
def tensors() -> list[torch.Tensor]:
    return [torch.randn(1, 4, 5, last, requires_grad=True) for last in (4, 36, 18)]


def run(value: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return dcnv3(value, offset, mask, groups=2, backend="torch")


def test_forward_makes_no_graph(tensors: list[torch.Tensor]) -> None:
    (output,) = Trial(run, tensors, torch.ones(1, 4, 5, 4), direction="forward")()
    assert not output.requires_grad


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_backward_and_both_give_the_gradients_again_and_again(tensors: list[torch.Tensor], direction: str) -> None:
    gradient = torch.randn(1, 4, 5, 4)
    expected = torch.autograd.grad(run(*tensors), tensors, gradient)
    trial = Trial(run, tensors, gradient, direction=direction)
    for _ in range(2):
        trial.prepare()
        assert all(torch.equal(a, b) for a, b in zip(trial(), expected))


def test_backward_walks_a_graph_that_was_made_before(tensors: list[torch.Tensor]) -> None:
    forwards = []

    def counted(*inputs: torch.Tensor) -> torch.Tensor:
        forwards.append(1)
        return run(*inputs)

    trial = Trial(counted, tensors, torch.ones(1, 4, 5, 4), direction="backward")
    trial.prepare()
    trial()
    assert len(forwards) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_a_captured_call_runs_on_a_gpu_and_takes_time(tensors: list[torch.Tensor], direction: str) -> None:
    device = torch.device("cuda")
    there = [tensor.detach().to(device).requires_grad_() for tensor in tensors]
    trial = Trial(run, there, torch.ones(1, 4, 5, 4, device=device), direction=direction, keep=True)
    times = interleave([trial, Captured(trial)], repeats=2, device=device, cache="cold")
    assert min(map(min, times)) > 0
