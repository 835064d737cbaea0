"""Scoring a model on a dataset: image by image, each into a confusion matrix of its own.

Under torch.distributed every rank takes its share of the images and all ranks return the same result: call it on all of them.
Every image is counted once, and images stay in the order of the dataset, so that the result does not depend on the ranks.
Letters: N = images at a time, C = classes, H, W = an image as read.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vistalib.data.labels import TRAIN_CLASSES
from vistalib.evaluate.confusion import ConfusionMatrix
from vistalib.evaluate.evaluation import Evaluation
from vistalib.evaluate.export import new_folder, write_label_ids
from vistalib.evaluate.inference import Window, mode_name, probability_bands
from vistalib.evaluate.instances import TABLE, instance_table
from vistalib.evaluate.per_image import Cells, PerImage, cells_of
from vistalib.progress import progress as shown
from vistalib.threads import say_if_spinning


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


@runtime_checkable
class Instances(Protocol):
    """What a dataset has besides where its instances are known: Cityscapes."""

    def name(self, i: int, /) -> str: ...

    def has_instances(self) -> bool:
        """Whether every sample has an instance map."""

    def read_instances(self, i: int, /) -> NDArray[np.uint16]:
        """The instance map of sample `i`, (H, W): label id * 1000 + number, else the label id."""


@dataclass(frozen=True)
class _Counted:
    """What is kept of one image."""

    image: int
    cells: Cells
    instances: NDArray[np.int64]  # (m, 5)


def evaluate_dataset(
    model: nn.Module,
    dataset: LabelledImages,
    *,
    scale: tuple[int, int] = (2048, 1024),
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window: Window | None = None,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
    export: str | Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score `model`, moved to `device`, on every image of `dataset` at the label's own size.

    `scale` (width, height), `scales`, `flip` and `window` are those of `predict_probabilities`. The network sees up to
    `batch_size` images at a time where they follow one another with the same size; the scores are the same up to rounding.
    `export` names a new folder, which all ranks must see, for label-id PNGs as the Cityscapes server takes them. `ValueError`
    for an empty dataset, for a model with fewer classes than the dataset, and for an export that is not possible.
    """
    if len(dataset) == 0:
        raise ValueError("a dataset to evaluate must hold at least one image, got none; check its folder and split")
    if export is not None and tuple(dataset.classes) != TRAIN_CLASSES:
        raise ValueError(f"only the 19 Cityscapes classes can be exported, got {len(dataset.classes)} others; leave out export")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}; 1 takes the least memory")
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    model.to(device)
    classes = tuple(dataset.classes)
    known = dataset if isinstance(dataset, Instances) and classes == TRAIN_CLASSES and dataset.has_instances() else None
    indices: Iterable[int] = range(rank, len(dataset), ranks)
    if progress and rank == 0:
        say_if_spinning(device)
        indices = shown(indices, "evaluating")
    counted: list[_Counted] = []
    began = time.perf_counter()
    with new_folder(Path(export)) if export is not None and rank == 0 else nullcontext() as made:
        folder = _of_first(made) if export is not None and distributed else made
        for batch in _batches(dataset, indices, batch_size):
            images = [image for _, image, _ in batch]
            bands = probability_bands(model, images, scale=scale, scales=scales, flip=flip, window=window)
            predictions = torch.cat([_labels(band, len(classes)) for band in bands], dim=1).cpu().numpy()  # (N, H, W)
            for (i, _, label), prediction in zip(batch, predictions, strict=True):
                counts = ConfusionMatrix(len(classes), dataset.ignore_index)
                counts.update(prediction, label)
                counted.append(_Counted(i, cells_of(counts), _instances(known, i, prediction)))
                if folder is not None:
                    write_label_ids(folder, dataset.name(i), prediction)
        if distributed:
            counted = _of_all(counted, ranks)
    counted.sort(key=lambda one: one.image)
    per_image = PerImage.of([one.cells for one in counted], [dataset.name(i) for i in range(len(dataset))], len(classes))
    total = per_image.total()
    return Evaluation(
        classes=classes,
        confusion=total[:, :-1].copy(),
        missed=total[:, -1].copy(),
        images=len(dataset),
        seconds=time.perf_counter() - began,
        mode=mode_name(scales, flip, window),
        per_image=per_image,
        instances=None if known is None else np.concatenate([one.instances for one in counted]),
    )


def _batches(
    dataset: LabelledImages, indices: Iterable[int], batch_size: int
) -> Iterator[list[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]]:
    """Number, image and label of up to `batch_size` samples that follow one another and have one size."""
    batch: list[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]] = []
    for i in indices:
        image, label = dataset.read(i)  # (H, W, 3), (H, W)
        if batch and (len(batch) == batch_size or image.shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append((i, image, label))
    if batch:
        yield batch


def _instances(known: Instances | None, i: int, prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The rows (m, 5) of sample `i`, none where no instances are known."""
    if known is None:
        return np.empty((0, TABLE), np.int64)
    instances = known.read_instances(i)
    if instances.shape != prediction.shape:
        raise ValueError(
            f"the instance map of {known.name(i)} must have the size of its label, {prediction.shape}, got {instances.shape}; "
            "unpack both again"
        )
    return instance_table(i, instances, prediction)


def _labels(probabilities: torch.Tensor, num_classes: int) -> torch.Tensor:
    """The most probable class (N, rows, W) uint8 of probabilities (N, C, rows, W), which must know those of the dataset."""
    outputs = probabilities.shape[1]
    if outputs < num_classes:
        raise ValueError(
            f"the model must know every class of the dataset, got {outputs} outputs for {num_classes} classes; "
            f"make the model with num_classes={num_classes}"
        )
    return probabilities.max(dim=1).indices.to(torch.uint8)  # the first of equals, as argmax, in a third of its time


def _of_first(folder: Path | None) -> Path | None:
    """The folder that rank 0 has made, on all ranks."""
    found: list[Any] = [folder]
    torch.distributed.broadcast_object_list(found, src=0)
    return found[0] if found[0] is None else Path(found[0])


def _of_all(counted: list[_Counted], ranks: int) -> list[_Counted]:
    """What all ranks have counted, on all of them."""
    found: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(found, counted)
    return [one for part in found for one in part]
