"""The result of an evaluation: scores read from a confusion matrix, the matrices of the single images, and both as files.

`scores.json` is for people: scores, the summed confusion matrix, how the images were shown. What comparing two evaluations
needs, and a person does not, lies beside as `scores.npz`: the matrices of the images and, for Cityscapes, its instances.
Letters: C = classes, m = instances.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistalib.data.labels import TRAIN_CLASSES
from vistalib.evaluate import confusion
from vistalib.evaluate.categories import CATEGORIES, category_iou
from vistalib.evaluate.instances import INSTANCE_CATEGORIES, INSTANCE_CLASSES, instance_category_iou, instance_iou
from vistalib.evaluate.per_image import PerImage, read_arrays
from vistalib.files import read_json, replacing, write_json

RUN_FILE = "evaluation.json"  # in a run's folder


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation. Scores are fractions; NaN stands for a class that is absent.

    `confusion` (C, C) int64 has targets in rows and predictions in columns; `missed` (C,) int64 are the target pixels that were
    given a class outside the table. `seconds` is wall time, `mode` says how the images were shown to the model. `per_image`
    holds the matrices of the single images, and `instances` (m, 5) what iIoU needs (see `vistalib.evaluate.instances`), where
    they are known.
    """

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    missed: NDArray[np.int64]
    images: int
    seconds: float
    mode: str
    per_image: PerImage | None = None
    instances: NDArray[np.int64] | None = None

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

    @property
    def category_iou(self) -> dict[str, float]:
        """IoU of Cityscapes' seven categories; empty for other classes than its 19."""
        if self.classes != TRAIN_CLASSES:
            return {}
        return dict(zip(CATEGORIES, category_iou(self.confusion, self.missed).tolist(), strict=True))

    @property
    def instance_iou(self) -> dict[str, float]:
        """IIoU of the eight classes with instances; empty where no instances are known."""
        if self.instances is None:
            return {}
        return dict(zip(INSTANCE_CLASSES, instance_iou(self.instances, self.confusion).tolist(), strict=True))

    @property
    def instance_category_iou(self) -> dict[str, float]:
        """IIoU of the categories human and vehicle; empty where no instances are known."""
        if self.instances is None:
            return {}
        return dict(zip(INSTANCE_CATEGORIES, instance_category_iou(self.instances, self.confusion).tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, without single images; NaN becomes None.

        With the 19 classes of Cityscapes there are scores by category, and where instances are known by instance.
        """
        further = {
            "category_iou": self.category_iou,
            "instance_iou": self.instance_iou,
            "instance_category_iou": self.instance_category_iou,
        }
        values: dict[str, Any] = {
            "mode": self.mode,
            "mean_iou": plain(self.mean_iou),
            "pixel_accuracy": plain(self.pixel_accuracy),
            "mean_accuracy": plain(self.mean_accuracy),
            "iou": {name: plain(score) for name, score in zip(self.classes, self.iou, strict=True)},
            "accuracy": {name: plain(score) for name, score in zip(self.classes, self.accuracy, strict=True)},
        }
        for name, scores in further.items():
            if scores:
                values[f"mean_{name}"] = plain(confusion.mean(np.array(list(scores.values()))))
                values[name] = {key: plain(score) for key, score in scores.items()}
        return values | {
            "confusion": self.confusion.tolist(),
            "missed": self.missed.tolist(),
            "images": self.images,
            "seconds": self.seconds,
        }

    def save(self, path: str | Path) -> None:
        """Write `to_json` to `path` and what is known of single images beside it, as .npz; `read_evaluation` reads both."""
        beside = arrays_beside(path)
        arrays = {} if self.per_image is None else self.per_image.arrays()
        if self.instances is not None:
            arrays["instances"] = self.instances
        if arrays:
            with replacing(beside) as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        else:
            beside.unlink(missing_ok=True)
        write_json(path, self.to_json())


def read_evaluation(path: str | Path) -> Evaluation:
    """The evaluation that `Evaluation.save` wrote to `path`, or that lies in the run's folder `path`.

    `ValueError` for a file that is none, and where the scores and the matrices of the images are not of one evaluation.
    """
    path = Path(path) / RUN_FILE if Path(path).is_dir() else Path(path)
    values = read_json(path)
    try:
        found = Evaluation(
            classes=tuple(values["iou"]),
            confusion=np.array(values["confusion"], np.int64),
            missed=np.array(values["missed"], np.int64),
            images=values["images"],
            seconds=values["seconds"],
            mode=values["mode"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold an evaluation as `vistalib evaluate --json` writes it, got {error!r}") from None
    if not arrays_beside(path).exists():
        return found
    arrays = read_arrays(arrays_beside(path))
    try:
        per_image = PerImage.of_arrays(arrays, len(found.classes))
        same = np.array_equal(per_image.total(), np.column_stack([found.confusion, found.missed]))
    except (KeyError, ValueError, IndexError):
        same = False
    if not same:
        raise ValueError(f"{arrays_beside(path)} must hold the images of {path}, got those of others; evaluate again")
    return Evaluation(**(vars(found) | {"per_image": per_image, "instances": arrays.get("instances")}))


def arrays_beside(path: str | Path) -> Path:
    """Where the matrices of the single images lie, for scores in `path`; `ValueError` where that is the same file."""
    path = Path(path)
    if path.suffix == ".npz":
        raise ValueError(f"scores are written as .json, got {path}; the .npz beside them holds the matrices of the images")
    return path.with_suffix(".npz")


def plain(score: float) -> float | None:
    """A score as JSON has it: None for NaN."""
    return None if math.isnan(score) else float(score)
