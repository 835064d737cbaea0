"""Averaged weights: what they are, who gets them, and that neither a kill nor a skipped step does them harm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_helpers import Noise, Tiny, score, settings, steady, tiny

from vistalib.train import NonFiniteLoss, fit, load_checkpoint, read_log
from vistalib.train.average import WeightAverage

DECAY = 0.7


class Power(Exception):
    """The power fails."""


class Watching(Noise):
    """Notes the weights of `model` as each iteration finds them, and ends everything in the place of iteration `at`."""

    def __init__(self, model: nn.Module, at: int | None = None, **rest: Any) -> None:
        super().__init__(**rest)
        self.model, self.at, self.seen = model, at, list[dict[str, Tensor]]()

    def batches(self, start: int) -> Iterator[dict[str, Tensor]]:
        for iteration, batch in enumerate(super().batches(start), start):
            if iteration == self.at:
                raise Power
            self.seen.append({name: weight.detach().clone() for name, weight in self.model.named_parameters()})
            yield batch


def averages(seen: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """By definition, of the weights after the steps 1, 2, ..."""
    found = {name: weight.double() for name, weight in seen[0].items()}
    for weights in seen[1:]:
        found = {name: DECAY * average + (1 - DECAY) * weights[name].double() for name, average in found.items()}
    return found


def test_a_checkpoint_holds_the_average_and_the_training_goes_on_from_the_weights(tmp_path: Path) -> None:
    model, plain = tiny(), tiny()
    loader, other = Watching(model), Watching(plain)
    fit(model, loader, settings(ema_decay=DECAY, keep=9, checkpoint_every=1), folder=tmp_path / "averaged", evaluate=score)
    fit(plain, other, settings(), folder=tmp_path / "plain", evaluate=score)
    assert all(torch.equal(a[name], b[name]) for a, b in zip(loader.seen, other.seen, strict=True) for name in a)
    for done in (5, 6, 11):
        saved = load_checkpoint(tmp_path / f"averaged/checkpoints/iter_{done:06d}").model
        for name, expected in averages(loader.seen[1 : done + 1]).items():
            assert torch.allclose(saved[name].double(), expected, rtol=0, atol=1e-6)  # worst measured 7e-8
            assert not torch.equal(saved[name], loader.seen[done][name])


def test_the_model_that_is_evaluated_saved_and_left_is_one(tmp_path: Path) -> None:
    model, seen = tiny(), list[dict[str, Tensor]]()

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return score(model)

    result = fit(model, Noise(), settings(ema_decay=DECAY), folder=tmp_path, evaluate=evaluate)
    saved = load_checkpoint(tmp_path).model
    left = model.state_dict()
    assert all(torch.equal(left[name], seen[-1][name]) and torch.equal(left[name], saved[name]) for name in left)
    with torch.no_grad():
        assert result.last_mean_iou == score(model.eval())["mean_iou"]


def test_running_statistics_are_those_of_the_training(tmp_path: Path) -> None:
    averaged, plain = tiny(), tiny()
    fit(averaged, Noise(), settings(ema_decay=DECAY), folder=tmp_path / "averaged")
    fit(plain, Noise(), settings(), folder=tmp_path / "plain")
    assert all(torch.equal(a, b) for a, b in zip(averaged.buffers(), plain.buffers(), strict=True))


@pytest.mark.parametrize("at", [1, 4, 7, 8, 11])
def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path, at: int) -> None:
    whole, killed, resumed = tiny(), tiny(), tiny(seed=99)
    fit(whole, Noise(), settings(ema_decay=DECAY), folder=tmp_path / "whole", evaluate=score)
    with pytest.raises(Power):
        fit(killed, Watching(killed, at), settings(ema_decay=DECAY), folder=tmp_path / "killed", evaluate=score)
    start = resumed if at > 3 else tiny()  # before the first checkpoint there is nothing to go on from
    fit(start, Noise(), settings(ema_decay=DECAY), folder=tmp_path / "killed", evaluate=score, resume=True)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in start.state_dict().items())
    files = [next(tmp_path.glob(f"{run}/checkpoints/iter_000012/optimizer.safetensors")) for run in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert steady(read_log(tmp_path / "whole")) == steady(read_log(tmp_path / "killed"))


def test_a_finished_run_gives_the_average_again(tmp_path: Path) -> None:
    first, second = tiny(), tiny(seed=5)
    for model in (first, second):
        fit(model, Noise(), settings(ema_decay=DECAY), folder=tmp_path, evaluate=score, resume=True)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_frozen_parts_have_no_average(tmp_path: Path) -> None:
    model = tiny()
    start = model.stem.weight.detach().clone()
    fit(model, Noise(), settings(ema_decay=DECAY, frozen=("stem", "norm")), folder=tmp_path)
    assert torch.equal(model.stem.weight, start)


def test_a_step_that_is_not_finite_leaves_the_average_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[WeightAverage] = []
    update = WeightAverage.update

    def watched(average: WeightAverage) -> None:
        kept[:] = [average]
        update(average)

    monkeypatch.setattr(WeightAverage, "update", watched)
    model = tiny()
    with pytest.raises(NonFiniteLoss):
        fit(model, Noise(spoil=2), settings(ema_decay=DECAY, log_every=12, checkpoint_every=12), folder=tmp_path)
    with kept[0].in_place():
        assert all(weight.isfinite().all() for weight in model.parameters())


def test_a_step_that_fp16_skips_leaves_the_average_where_it_is(tmp_path: Path) -> None:
    class Steep(Tiny):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) * 100

    torch.manual_seed(0)
    model = Steep()
    start = {name: weight.clone() for name, weight in model.named_parameters()}
    fit(model, Noise(), settings(ema_decay=DECAY, precision="fp16", iterations=3, log_every=1), folder=tmp_path)
    assert [line["skipped"] for line in read_log(tmp_path)] == [1, 1, 1]
    assert all(torch.equal(weight, start[name]) for name, weight in model.named_parameters())


def test_another_decay_is_refused_when_a_run_is_resumed(tmp_path: Path) -> None:
    model = tiny()
    with pytest.raises(Power):
        fit(model, Watching(model, 5), settings(ema_decay=DECAY), folder=tmp_path)
    with pytest.raises(ValueError, match=r"ema_decay was 0\.7, now None"):
        fit(tiny(), Noise(), settings(), folder=tmp_path, resume=True)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan"), True])
def test_a_decay_that_means_nothing_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"ema_decay must be None or between 0 and 1, got .*; try ema_decay=0\.999"):
        settings(ema_decay=decay)
