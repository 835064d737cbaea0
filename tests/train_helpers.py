"""A small model and loader for the tests of training: quick, with batch norm, dropout and everything else that has a state."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vistalib.train import TrainSettings

CLASSES = 3


class Tiny(nn.Module):
    """Two layers: a convolution with batch norm and dropout, and a classifier."""

    num_layers = 1

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.stem(image)).relu()))

    def loss(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        logits = self(image)
        return {
            "decode.loss_ce": nn.functional.cross_entropy(logits, label),
            "decode.acc_seg": (logits.argmax(1) == label).float().mean() * 100,
        }

    def layer_ids(self) -> dict[str, int]:
        return {name: 2 if name.startswith("head") else 0 for name, _ in self.named_parameters()}


def plain() -> Tiny:
    """A model without batch norm and dropout, whose loss is the same for any number of ranks."""
    model = tiny()
    model.norm, model.drop = nn.GroupNorm(2, 8), nn.Identity()  # type: ignore[assignment]
    return model


class Noise:
    """A loader whose batch of iteration i is a function of i; `spoil` is an iteration whose first image is not finite."""

    def __init__(self, *, batch_size: int = 2, spoil: int | None = None) -> None:
        self.batch_size, self.spoil = batch_size, spoil

    def batches(self, start: int) -> Iterator[dict[str, Tensor]]:
        iteration = start
        while True:
            generator = torch.Generator().manual_seed(1000 + iteration)
            image = torch.randn(self.batch_size, 3, 8, 8, generator=generator)
            label = (image.mean(1) * 2).round().clamp(-1, 1).long() + 1
            if iteration == self.spoil:
                image[0, 0, 0, 0] = float("nan")
            first = iteration * self.batch_size
            yield {"image": image, "label": label, "sample": torch.arange(first, first + self.batch_size)}
            iteration += 1


def tiny(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def settings(**changes: Any) -> TrainSettings:
    usual = {
        "iterations": 12,
        "learning_rate": 1e-2,
        "layer_decay": 0.9,
        "warmup_iters": 3,
        "clip_norm": 0.5,
        "log_every": 2,
        "checkpoint_every": 3,
        "evaluate_every": 4,
        "keep": 2,
    }
    return TrainSettings(**(usual | changes))


def score(model: nn.Module) -> dict[str, float]:
    """A stand-in for an evaluation: a number that depends on every weight and running statistic."""
    image = next(Noise(batch_size=4).batches(10_000))["image"]
    return {"mean_iou": float(model(image).double().sigmoid().mean())}


def steady(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of a log without times and memory."""
    return [{key: value for key, value in line.items() if "seconds" not in key and key != "memory_mb"} for line in lines]


def flip_a_bit(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(bytes(data))
