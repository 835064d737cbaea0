"""Scoring a model on a dataset: image by image into one confusion matrix, so memory does not grow with the dataset.

Under torch.distributed every rank takes its share of the images and all ranks return the same result: call it on all of them.
Letters: C = classes, H, W = an image as read.
"""

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vistalib.data.labels import TRAIN_CLASSES
from vistalib.evaluate import confusion
from vistalib.evaluate.confusion import ConfusionMatrix
from vistalib.evaluate.export import new_folder, write_label_ids
from vistalib.evaluate.inference import Window, mode_name, probability_bands
from vistalib.progress import progress as shown


class LabelledImages(Protocol):
    """What `evaluate_dataset` asks of a dataset; every dataset of `vistalib.data` has it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """C names, in the order of the training ids."""

    @property
    def ignore_index(self) -> int:
        """The label value that counts nowhere."""

    def __len__(self) -> int: ...

    def name(self, i: int, /) -> str:
        """A stable name of sample `i`, fit for a file."""

    def read(self, i: int, /) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The RGB image (H, W, 3) and the label in training ids (H, W)."""


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation. Scores are fractions; NaN stands for a class that is absent.

    `confusion` (C, C) int64 has targets in rows and predictions in columns; `missed` (C,) int64 are the target pixels that were
    given a class outside the table. `seconds` is wall time, `mode` says how the images were shown to the model.
    """

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    missed: NDArray[np.int64]
    images: int
    seconds: float
    mode: str

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C,) intersection over union."""
        return confusion.iou(self.confusion, self.missed)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(C,) share of each class's target pixels that were found."""
        return confusion.accuracy(self.confusion, self.missed)

    @property
    def mean_iou(self) -> float:
        """The mean of `iou` over the classes that have one."""
        return confusion.mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """The mean of `accuracy` over the classes that have one."""
        return confusion.mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """The share of all counted pixels that are right."""
        return confusion.pixel_accuracy(self.confusion, self.missed)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; NaN becomes None."""
        return {
            "mode": self.mode,
            "mean_iou": plain(self.mean_iou),
            "pixel_accuracy": plain(self.pixel_accuracy),
            "mean_accuracy": plain(self.mean_accuracy),
            "iou": {name: plain(score) for name, score in zip(self.classes, self.iou, strict=True)},
            "accuracy": {name: plain(score) for name, score in zip(self.classes, self.accuracy, strict=True)},
            "confusion": self.confusion.tolist(),
            "missed": self.missed.tolist(),
            "images": self.images,
            "seconds": self.seconds,
        }


def evaluate_dataset(
    model: nn.Module,
    dataset: LabelledImages,
    *,
    scale: tuple[int, int] = (2048, 1024),
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: Window | None = None,
    device: str | torch.device = "cpu",
    export: str | Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score `model`, moved to `device`, on every image of `dataset` at the label's own size.

    `scale` (width, height), `scales`, `flip` and `window` are those of `predict_probabilities`. `export` names a new folder for
    label-id PNGs as the Cityscapes server takes them. `ValueError` for an empty dataset, for a model with fewer
    classes than the dataset, and for an export that is not possible.
    """
    if len(dataset) == 0:
        raise ValueError("a dataset to evaluate must hold at least one image, got none; check its folder and split")
    if export is not None and tuple(dataset.classes) != TRAIN_CLASSES:
        raise ValueError(f"only the 19 Cityscapes classes can be exported, got {len(dataset.classes)} others; leave out export")
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    if export is not None and ranks > 1:
        raise ValueError(f"an export must run in one process, got {ranks}; evaluate with export in a run of its own")
    model.to(device)
    counts = ConfusionMatrix(len(dataset.classes), dataset.ignore_index)
    indices: Iterable[int] = range(rank, len(dataset), ranks)
    if progress and rank == 0:
        indices = shown(indices, "evaluating")
    began = time.perf_counter()
    with new_folder(Path(export)) if export is not None else nullcontext() as folder:
        for i in indices:
            image, label = dataset.read(i)  # (H, W, 3), (H, W)
            bands = probability_bands(model, image, scale=scale, scales=scales, flip=flip, window=window)
            prediction = torch.cat([_labels(band, counts.num_classes) for band in bands]).cpu().numpy()  # (H, W)
            counts.update(prediction, label)
            if folder is not None:
                write_label_ids(folder, dataset.name(i), prediction)
    counts.all_reduce()
    return Evaluation(
        classes=tuple(dataset.classes),
        confusion=counts.matrix.numpy().copy(),
        missed=counts.missed.numpy().copy(),
        images=len(dataset),
        seconds=time.perf_counter() - began,
        mode=mode_name(scales, flip, window),
    )


def _labels(probabilities: torch.Tensor, num_classes: int) -> torch.Tensor:
    """The most probable class (rows, W) uint8 of probabilities (C, rows, W), which must have the classes of the dataset."""
    if len(probabilities) < num_classes:
        raise ValueError(
            f"the model must know every class of the dataset, got {len(probabilities)} outputs for {num_classes} classes; "
            f"make the model with num_classes={num_classes}"
        )
    return probabilities.argmax(dim=0).to(torch.uint8)


def plain(score: float) -> float | None:
    """A score as JSON has it: None for NaN."""
    return None if math.isnan(score) else float(score)
