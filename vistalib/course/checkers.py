"""Checkers of the exercises: each tries a reader's function on cases with known answers and says what is right or wrong.

A checker never raises for what the reader wrote: a notebook with unsolved exercises runs from top to bottom.
Letters: C = classes, H, W = the size of a label map. 255 is the ignored label.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = 255
NOTHING = "the function returned nothing; end it with a return statement."
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Verdict:
    """Whether an exercise is solved, and what to say about it; true where it is solved."""

    solved: bool
    message: str

    def __bool__(self) -> bool:
        return self.solved

    def __repr__(self) -> str:
        return f"{'Solved' if self.solved else 'Not yet'}: {self.message}"

    def _repr_html_(self) -> str:
        mark, kind = ("&#10003; Solved:", "solved") if self.solved else ("Not yet:", "unsolved")
        return f'<p class="verdict {kind}" role="status"><strong>{mark}</strong> {escape(self.message)}</p>'


def check_iou(function: Callable[[Labels, Labels, int], float]) -> Verdict:
    """`function(target, prediction, class_id)`: IoU of a class from two maps (H, W); 255 in the target is ignored, 0/0 NaN."""
    target = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [255, 2, 2, 1]])
    prediction = np.array([[0, 1, 1, 1], [0, 2, 1, 1], [2, 2, 2, 0]])
    cases = (
        (0, 2 / 4, "class 0: 2 pixels shared, 4 in either map"),
        (1, 3 / 6, "class 1: 3 pixels shared, 6 in either map"),
        (2, 3 / 4, "class 2: the ignored pixel in the corner, predicted as 2, must count nowhere"),
        (3, math.nan, "class 3 is in neither map: its IoU is 0/0, which is NaN, neither 0 nor 1"),
    )
    for class_id, expected, reason in cases:
        got, fault = _number(lambda c=class_id: function(target.copy(), prediction.copy(), c))  # type: ignore[misc]  # mypy and defaults
        if fault:
            return Verdict(False, fault)
        if not _equal(got, expected):
            return Verdict(False, f"expected {expected:.3f}, got {got:.3f} ({reason}).")
    return Verdict(True, "your IoU agrees on all four classes, the ignored pixel and the absent class among them.")


def check_mean_iou(function: Callable[[NDArray[np.int64]], float]) -> Verdict:
    """`function(confusion)`: mean IoU from a matrix (C, C), rows truth; classes in neither map are left out of the mean."""
    everyday = np.array([[50, 2, 0], [5, 30, 1], [0, 3, 9]])
    absent = np.array([[50, 2, 0, 0], [5, 30, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    invented = np.array([[50, 2, 4], [5, 30, 0], [0, 0, 0]])
    cases = (
        (everyday, "three classes, all of them there"),
        (absent, "two classes occur in neither map: leave them out of the mean, do not count them as 0 or 1"),
        (invented, "class 2 is in no truth but was predicted: its IoU is 0 and it counts"),
    )
    for matrix, reason in cases:
        got, fault = _number(lambda m=matrix: function(m.copy()))  # type: ignore[misc]  # mypy and defaults
        if fault:
            return Verdict(False, fault)
        expected = float(np.nanmean(_iou(matrix)))
        if not _equal(got, expected):
            return Verdict(False, f"expected {expected:.3f}, got {got:.3f} ({reason}).")
    return Verdict(True, "your mean IoU agrees, with absent and invented classes too.")


def check_flattering(
    function: Callable[[Labels], Labels], target: Labels, *, num_classes: int = 19, accuracy: float = 0.9, mean_iou: float = 0.5
) -> Verdict:
    """`function(target)`: a prediction (H, W) for the truth `target` that is flattered by pixel accuracy.

    At least `accuracy` of its pixels must be right, and its mean IoU below `mean_iou`.
    """
    try:
        returned = function(target.copy())
    except Exception as error:
        return Verdict(False, _raised(error))
    if returned is None:
        return Verdict(False, NOTHING)
    prediction = np.asarray(returned)
    if prediction.shape != target.shape or not np.issubdtype(prediction.dtype, np.integer):
        got = f"{prediction.dtype} of shape {prediction.shape}"
        return Verdict(False, f"the function must return integers of the target's shape {target.shape}, got {got}.")
    counted = target != IGNORED
    if not ((prediction[counted] >= 0) & (prediction[counted] < num_classes)).all():
        return Verdict(False, f"every prediction must be a class, 0 to {num_classes - 1}.")
    pairs = target[counted].astype(np.int64) * num_classes + prediction[counted]
    matrix = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    right, score = matrix.trace() / matrix.sum(), float(np.nanmean(_iou(matrix)))
    found = f"{right:.1%} of the pixels are right and the mean IoU is {score:.1%}"
    if right < accuracy:
        return Verdict(False, f"{found}; keep at least {accuracy:.0%} of the pixels right.")
    if score >= mean_iou:
        return Verdict(False, f"{found}; bring the mean IoU below {mean_iou:.0%}.")
    return Verdict(True, f"{found}.")


def _iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    hits = matrix.diagonal()
    with np.errstate(invalid="ignore"):
        ratio: NDArray[np.float64] = np.true_divide(hits, matrix.sum(0) + matrix.sum(1) - hits)
    return ratio


def _number(call: Callable[[], float]) -> tuple[float, str]:
    """What the reader's function returned, and what was wrong with that."""
    try:
        got = call()
    except Exception as error:
        return math.nan, _raised(error)
    if got is None:
        return math.nan, NOTHING
    try:
        return float(got), ""
    except (TypeError, ValueError):
        return math.nan, f"the function must return one number, got {type(got).__name__}."


def _raised(error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return "the function is still empty; write it and run the cell again."
    return f"your function raised {type(error).__name__}: {error}"


def _equal(got: float, expected: float) -> bool:
    return math.isnan(got) == math.isnan(expected) and (math.isnan(got) or math.isclose(got, expected, abs_tol=1e-9))
