"""The probe behind an estimate: a few steps of a run, and a few images evaluated, into a folder that is thrown away.

Its rate is too small to move a weight. The steps in which the machine warms up, and the batches that workers had made before
they were asked, are not counted.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vistalib.data.loader import AHEAD
from vistalib.evaluate import evaluate_dataset
from vistalib.evaluate.evaluation import RUN_FILE
from vistalib.recipes.recipe import Dataset, Recipe
from vistalib.recipes.run import Parts, scores
from vistalib.train import Interrupted, by_first, fit, rank, world_size
from vistalib.train.checkpoint import CHECKPOINTS, checkpoints
from vistalib.train.log import NAME as LOG

WARM_UP = 2  # steps, and one image
MOST_STEPS, MOST_IMAGES = 20, 8  # measured
UNMOVED = 1e-12  # a rate that changes no weight of float32


@dataclass(frozen=True)
class Files:
    """Bytes of a checkpoint, of a line of the log for a step and for an evaluation, and of all else in a run's folder."""

    checkpoint: int
    line: int
    evaluation: int
    rest: int


@dataclass(frozen=True)
class Measured:
    """Seconds of the steps and of the images that were counted, the mean of those spent waiting for a batch, and the files."""

    step_seconds: tuple[float, ...]
    data_seconds: float
    image_seconds: tuple[float, ...]
    files: Files


def measure(recipe: Recipe, parts: Parts, folder: Path, device: str, *, seconds: float) -> Measured:
    """Train into `folder` for some steps and evaluate some images; times are of rank 0."""
    ahead = AHEAD * parts.loader.num_workers
    crop, scale = recipe.augmentation.crop, recipe.evaluation_scale
    forward = _forward_seconds(parts.model, device, crop)
    a_step = 3 * forward * recipe.batch_size / world_size()  # roughly: the backward takes twice the forward
    an_image = forward * scale[0] * scale[1] / (crop[0] * crop[1])
    steps = by_first(lambda: int(min(max(seconds / a_step, 2), WARM_UP + ahead + MOST_STEPS)))
    images = by_first(lambda: int(min(max(seconds / 3 / an_image, 2), 1 + MOST_IMAGES)))
    few = _Few(parts.validation_data, images * world_size())

    def evaluate(trained: torch.nn.Module) -> dict[str, Any]:
        few.began.clear()
        scored = evaluate_dataset(trained, few, scale=scale, device=device, progress=False)
        few.began.append(time.perf_counter())
        if rank() == 0:
            scored.save(folder / RUN_FILE)
        return scores(scored)

    settings = replace(
        recipe.settings,
        iterations=steps,
        learning_rate=UNMOVED,
        min_lr=0.0,
        warmup_iters=0,
        log_every=1,
        checkpoint_every=steps,
        evaluate_every=steps,
    )
    lines: list[dict[str, Any]] = []
    try:
        fit(
            parts.model,
            parts.loader,
            settings,
            folder=folder,
            evaluate=evaluate,
            device=device,
            on_log=lines.append,
            about=parts.about,
        )
    except Interrupted:  # what it wrote is removed
        raise KeyboardInterrupt from None
    counted = [line for line in lines if line["kind"] == "train"][min(WARM_UP + ahead, steps // 2) :]
    asked = np.diff(few.began)
    return Measured(
        tuple(line["seconds"] for line in counted),
        sum(line["data_seconds"] for line in counted) / max(1, len(counted)),
        tuple((asked[1:] if len(asked) > 1 else asked).tolist()),
        by_first(lambda: _files(folder)),
    )


def _files(folder: Path) -> Files:
    texts = (folder / LOG).read_bytes().splitlines(keepends=True)
    lengths = {kind: [len(text) for text in texts if json.loads(text)["kind"] == kind] for kind in ("train", "evaluation")}
    line, evaluation = (round(float(np.mean(found))) for found in lengths.values())
    (checkpoint,) = map(bytes_below, checkpoints(folder / CHECKPOINTS))
    return Files(checkpoint, line, evaluation, bytes_below(folder) - checkpoint - sum(map(len, texts)))


class _Few:
    """Some images from all over a dataset; notes when each was asked for."""

    def __init__(self, data: Dataset, most: int) -> None:
        self.data, self.classes, self.ignore_index = data, data.classes, data.ignore_index
        self.chosen = np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(int).tolist()
        self.began: list[float] = []

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, i: int, /) -> str:
        """As the dataset calls it."""
        return self.data.name(self.chosen[i])

    def read(self, i: int, /) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """As the dataset reads it."""
        self.began.append(time.perf_counter())
        return self.data.read(self.chosen[i])


def _forward_seconds(model: torch.nn.Module, device: str, crop: tuple[int, int]) -> float:
    """The time of one crop through the model, the second time."""
    image = torch.zeros(1, 3, *crop, device=device)
    model.eval()
    began = 0.0
    with torch.no_grad():
        for _ in range(2):
            began = time.perf_counter()
            float(model(image).sum())  # waits for the device
    return time.perf_counter() - began


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
