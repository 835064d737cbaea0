"""Settings refuse what cannot be, and the schedule is the released one."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from vistalib.train import TrainSettings, learning_rate

GOLDEN = json.loads((Path(__file__).parent / "data/optim/lr_curve.json").read_text())
BASE = TrainSettings(iterations=100, learning_rate=1e-3, warmup_iters=10)


@pytest.mark.parametrize("name", GOLDEN["curves"])
def test_curve_is_the_released_one(name: str) -> None:
    iterations, rate = name.removeprefix("max").split("_base")
    settings = TrainSettings(iterations=int(iterations), learning_rate=float(rate), warmup_iters=1500, warmup_ratio=1e-6)
    for iteration, golden in GOLDEN["curves"][name].items():
        assert learning_rate(int(iteration), settings) == pytest.approx(golden, rel=1e-12, abs=0)  # measured: 4e-16


def test_warm_up_multiplies_the_rate_that_has_begun_to_fall() -> None:
    assert learning_rate(5, BASE) == pytest.approx(1e-3 * 0.95 * (1 - 0.5 * (1 - 1e-6)))


def test_first_iteration_uses_the_warm_up_ratio() -> None:
    assert learning_rate(0, BASE) == pytest.approx(1e-9)


def test_power_bends_the_fall() -> None:
    assert learning_rate(50, dataclasses.replace(BASE, power=2.0)) == pytest.approx(0.25e-3)


def test_rate_falls_to_the_least() -> None:
    assert learning_rate(99, dataclasses.replace(BASE, min_lr=1e-4)) == pytest.approx(1e-4 + 0.9e-3 * 0.01)


def test_a_group_falls_from_a_rate_of_its_own_to_the_least_that_all_share() -> None:
    settings = dataclasses.replace(BASE, min_lr=1e-4)
    assert learning_rate(99, settings, 0.5) == pytest.approx(1e-4 + 0.4e-3 * 0.01)
    assert learning_rate(0, dataclasses.replace(BASE, warmup_iters=0), 0.94) == 1e-3 * 0.94


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    assert learning_rate(0, dataclasses.replace(BASE, warmup_iters=0)) == 1e-3


@pytest.mark.parametrize("iteration", [-1, 100])
def test_iteration_outside_the_run_is_refused(iteration: int) -> None:
    with pytest.raises(ValueError, match=f"between 0 and iterations - 1 = 99, got {iteration}"):
        learning_rate(iteration, BASE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("iterations", 0), ("iterations", 10.0), ("iterations", True), ("log_every", 0), ("checkpoint_every", -1)],
        *[("evaluate_every", 0), ("keep", 0), ("warmup_iters", -1), ("seed", -1), ("learning_rate", 0.0)],
        *[("learning_rate", float("nan")), ("learning_rate", "6e-5"), ("layer_decay", 0.0), ("layer_decay", 1.1)],
        *[("weight_decay", -0.1), ("weight_decay", float("inf")), ("warmup_ratio", 2.0), ("power", -1.0), ("min_lr", 1.0)],
        *[("betas", (0.9,)), ("betas", (0.9, 1.0)), ("clip_norm", 0.0), ("precision", "fp8")],
    ],
    ids=str,
)
def test_setting_that_cannot_be_is_refused_with_one_that_can(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*, got .*; try {name}="):
        dataclasses.replace(BASE, **{name: value})
