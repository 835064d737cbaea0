"""Scores by category: the 19 classes of Cityscapes in 7 groups, and the road taken for the sidewalk is no mistake.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016, and cityscapesScripts. The
intersection of a category is what falls from its classes on its classes; confusion within it costs nothing.
Letters: C = the 19 classes, K = the 7 categories.
"""

import numpy as np
from numpy.typing import NDArray

from vistalib.data.labels import CITYSCAPES
from vistalib.evaluate.confusion import iou

CATEGORIES = tuple(dict.fromkeys(label.category for label in CITYSCAPES.trained))  # flat, construction, ... in the order of ids
CATEGORY_OF = np.array([CATEGORIES.index(label.category) for label in CITYSCAPES.trained])  # (C,)


def by_category(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """The confusion matrix (K, K) of the categories from that of the classes (C, C)."""
    merged = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    np.add.at(merged, (CATEGORY_OF[:, None], CATEGORY_OF[None, :]), matrix)
    return merged


def category_iou(matrix: NDArray[np.int64], missed: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K,) intersection over union of the categories, from the (C, C) matrix and the (C,) misses of the classes."""
    missed_there = np.zeros(len(CATEGORIES), np.int64)
    np.add.at(missed_there, CATEGORY_OF, missed)
    return iou(by_category(matrix), missed_there)
