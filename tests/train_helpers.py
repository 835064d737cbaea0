"""A small model and loader for the tests of training: quick, with batch norm, dropout and everything else that has a state."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vistalib.train import TrainSettings, load_checkpoint, read_log

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


def start_ranks(command: list[str], *, ranks: int = 2) -> None:
    """Run `command` once a rank, with the variables that torchrun sets, and wait for all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "OMP_NUM_THREADS": "1"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            env=place | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(said)


def bits(folder: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_checkpoint(folder).model.items()}


def differences(folder: Path, other: Path) -> dict[str, float]:
    """The largest difference of each number in the logs of two runs."""
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = list(zip(read_log(folder), read_log(other), strict=True))
    assert all(a.keys() == b.keys() and a["iteration"] == b["iteration"] for a, b in pairs)
    numbers = ("lr", "loss", "grad_norm", "mean_iou", "pixels")
    return {key: max(abs(a[key] - b[key]) for a, b in pairs if key in a) for key in numbers}
