"""The confusion matrix and the scores read from it: intersection over union, class accuracy, pixel accuracy.

IoU of a class is intersection / union over all pixels of all images together (Everingham et al. 2010; Cordts et al. 2016),
never a mean over images. Rows are targets, columns predictions. Pixels whose target is `ignore_index` count nowhere.
A prediction outside the table (a 150-class head scored on 19 classes) is a miss of its target and of no other class.
Counts are int64: float32 sums, as the released evaluation keeps them, go wrong above 2**24 pixels a class.
Letters: C = classes, n = pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistalib.sums import per_class_sum


class ConfusionMatrix:
    """Counts of (target, prediction) pixel pairs over `num_classes` classes, gathered map by map."""

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1 or 0 <= ignore_index < num_classes:
            raise ValueError(
                f"num_classes must be at least 1 and ignore_index outside 0..num_classes-1, got num_classes={num_classes} "
                f"and ignore_index={ignore_index}; keep ignore_index=255"
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self._counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)  # the last column: outside the table

    @property
    def matrix(self) -> Tensor:
        """(C, C) int64, rows target, columns prediction."""
        return self._counts[:, :-1]

    @property
    def missed(self) -> Tensor:
        """(C,) int64: pixels of each target that were given a class outside the table."""
        return self._counts[:, -1]

    def update(self, prediction: Tensor | NDArray[np.integer], target: Tensor | NDArray[np.integer]) -> None:
        """Count one pair of integer maps of the same shape, on any device.

        `ValueError` for unequal shapes, for a target that is neither a class nor `ignore_index`, for a negative prediction,
        and for maps that are not integers.
        """
        target = _integers("target", target)
        prediction = _integers("prediction", prediction).to(target.device)
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction and target must have the same shape, got {tuple(prediction.shape)} and {tuple(target.shape)}; "
                "resize the prediction to the label's size"
            )
        C = self.num_classes
        ignored = target == self.ignore_index
        outside = ((target < 0) | (target >= C)) & ~ignored
        if bool(outside.any()):
            found = sorted(set(target[outside].tolist()))[:8]
            raise ValueError(
                f"targets must be 0..{C - 1} or ignore_index={self.ignore_index}, got {found}; "
                "map the labels to training ids first"
            )
        if bool((prediction < 0).any()):
            raise ValueError(f"predictions must not be negative, got {int(prediction.min())}; give class numbers, from 0 up")
        row = target.masked_fill(ignored, C)  # one row more, for what is ignored: cheaper than picking the others out
        pair = (row * (C + 1) + prediction.clamp(max=C)).flatten()  # (n,)
        ones = pair.new_ones(()).expand_as(pair)  # (n,)
        self._counts += per_class_sum(ones, pair, (C + 1) * (C + 1)).view(C + 1, C + 1)[:C].cpu()

    def all_reduce(self) -> None:
        """Add up the counts of all ranks, on all of them; once, after the last `update`. Does nothing in a single process."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            device = "cuda" if "nccl" in torch.distributed.get_backend() else "cpu"
            counts = self._counts.to(device)
            torch.distributed.all_reduce(counts)
            self._counts = counts.cpu()

    def iou(self) -> NDArray[np.float64]:
        """(C,) intersection over union; NaN for a class that is in no target and in no prediction."""
        return iou(self.matrix.numpy(), self.missed.numpy())

    def accuracy(self) -> NDArray[np.float64]:
        """(C,) share of each class's target pixels that were found; NaN for a class that is in no target."""
        return accuracy(self.matrix.numpy(), self.missed.numpy())

    def mean_iou(self) -> float:
        """The mean of `iou` over the classes that have one; NaN if none has."""
        return mean(self.iou())

    def mean_accuracy(self) -> float:
        """The mean of `accuracy` over the classes that have one; NaN if none has."""
        return mean(self.accuracy())

    def pixel_accuracy(self) -> float:
        """The share of all counted pixels that are right; NaN if none was counted."""
        return pixel_accuracy(self.matrix.numpy(), self.missed.numpy())


def iou(matrix: NDArray[np.int64], missed: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) intersection over union from a (C, C) matrix and the (C,) pixels predicted outside the table; NaN where 0/0."""
    hits = matrix.diagonal()
    return _ratio(hits, matrix.sum(axis=0) + matrix.sum(axis=1) + missed - hits)


def accuracy(matrix: NDArray[np.int64], missed: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) share of each class's target pixels that were found; NaN where 0/0."""
    return _ratio(matrix.diagonal(), matrix.sum(axis=1) + missed)


def pixel_accuracy(matrix: NDArray[np.int64], missed: NDArray[np.int64]) -> float:
    """The share of all counted pixels that are right; NaN if none was counted."""
    return float(_ratio(matrix.trace(), matrix.sum() + missed.sum()))


def mean(scores: NDArray[np.float64]) -> float:
    """The mean of the scores that are not NaN, added one after the other as cityscapesScripts does; NaN if all are."""
    present = scores[~np.isnan(scores)]
    return float(np.cumsum(present)[-1] / present.size) if present.size else float("nan")


def _ratio(part: NDArray[np.int64] | np.int64, whole: NDArray[np.int64] | np.int64) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.true_divide(part, whole)


def _integers(name: str, values: Tensor | NDArray[np.integer]) -> Tensor:
    """`values` as an int64 tensor on its own device."""
    tensor = torch.as_tensor(values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, got {tensor.dtype}; take the argmax of the logits over the classes first")
    return tensor.long()
