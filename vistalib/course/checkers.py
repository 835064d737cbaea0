"""Checkers of the chapter on streets, pixels and mIoU: each tries a reader's function on cases with known answers.

Letters: C = classes, H, W = the size of a label map. 255 is the ignored label.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistalib.course.verdict import Unsolved, Verdict, attempt, expect_number

IGNORED = 255
Labels = NDArray[np.integer[Any]]


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
    try:
        for class_id, expected, reason in cases:
            expect_number(partial(function, target.copy(), prediction.copy(), class_id), expected, reason)
    except Unsolved as fault:
        return Verdict(False, str(fault))
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
    try:
        for matrix, reason in cases:
            expect_number(partial(function, matrix.copy()), float(np.nanmean(_iou(matrix))), reason)
    except Unsolved as fault:
        return Verdict(False, str(fault))
    return Verdict(True, "your mean IoU agrees, with absent and invented classes too.")


def check_flattering(
    function: Callable[[Labels], Labels], target: Labels, *, num_classes: int = 19, accuracy: float = 0.9, mean_iou: float = 0.5
) -> Verdict:
    """`function(target)`: a prediction (H, W) for the truth `target` that is flattered by pixel accuracy.

    At least `accuracy` of its pixels must be right, and its mean IoU below `mean_iou`.
    """
    try:
        prediction = np.asarray(attempt(partial(function, target.copy())))
    except Unsolved as fault:
        return Verdict(False, str(fault))
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
