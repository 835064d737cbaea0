"""iIoU: IoU in which every person and every car weighs the same, however near it stands.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016, section 4.1, as
cityscapesScripts computes it. A target pixel of an instance weighs the average size of its class over the size of the instance;
pixels of a class's regions without single instances weigh nothing; false positives belong to no instance and weigh one.
An instance map is uint16 (H, W): label id * 1000 + number where there is an instance, else the label id.
Rows of an instance table are int64: image, class (training id), pixels, pixels found, pixels found as its category.
Letters: m = instances, C = the 19 classes.
"""

import numpy as np
from numpy.typing import NDArray

from vistalib.data.labels import CITYSCAPES, TRAIN_CLASSES
from vistalib.evaluate.categories import CATEGORIES, CATEGORY_OF, by_category

# Pixels of an average instance in the training images at 2048x1024; the published constants.
AVERAGE_SIZE = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
INSTANCE_CLASSES = tuple(label.name for label in CITYSCAPES.trained if label.has_instances)
INSTANCE_CATEGORIES = ("human", "vehicle")  # those whose classes all have instances
FIRST = 1000  # instance ids lie above
TABLE = 5  # columns

_NO_CLASS = 255
_CLASS_OF = CITYSCAPES.id_to_train_id()  # (256,): by label id
_CATEGORY = np.full(256, _NO_CLASS, np.uint8)  # by training id; 255 for what is no class
_CATEGORY[: len(CATEGORY_OF)] = CATEGORY_OF


def instance_table(image: int, instances: NDArray[np.uint16], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The rows (m, 5) of image number `image`, by rising instance id, from two maps (H, W); `prediction` has training ids."""
    here = instances > FIRST
    ids, found = instances[here], prediction[here]  # (pixels,)
    classes = _CLASS_OF[ids // FIRST]
    size = np.bincount(ids)
    hits = np.bincount(ids[found == classes], minlength=len(size))
    in_category = np.bincount(ids[_CATEGORY[found] == _CATEGORY[classes]], minlength=len(size))
    present = np.flatnonzero(size)
    present = present[_CLASS_OF[present // FIRST] != _NO_CLASS]  # caravans and trailers are not scored
    class_of = _CLASS_OF[present // FIRST].astype(np.int64)
    return np.column_stack(
        [np.full_like(class_of, image), class_of, size[present], hits[present], in_category[present]]
    ).reshape(-1, TABLE)


def instance_iou(table: NDArray[np.int64], matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """iIoU of `INSTANCE_CLASSES` from the table (m, 5) of all images and the confusion matrix (C, C); NaN where 0/0."""
    classes = [TRAIN_CLASSES.index(name) for name in INSTANCE_CLASSES]
    false = matrix.sum(axis=0) - matrix.diagonal()
    return np.array([_weighted(table[table[:, 1] == c], 3, int(false[c])) for c in classes])


def instance_category_iou(table: NDArray[np.int64], matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """iIoU of `INSTANCE_CATEGORIES`; an instance is found where any class of its category is seen."""
    merged = by_category(matrix)
    false = merged.sum(axis=0) - merged.diagonal()
    numbers = [CATEGORIES.index(name) for name in INSTANCE_CATEGORIES]
    return np.array([_weighted(table[CATEGORY_OF[table[:, 1]] == k], 4, int(false[k])) for k in numbers])


def _weighted(table: NDArray[np.int64], column: int, false: int) -> float:
    """Weighted hits / (weighted hits + false positives + weighted misses), added up in the order of the scripts."""
    hits = misses = 0.0
    for row in table.tolist():
        weight = AVERAGE_SIZE[TRAIN_CLASSES[row[1]]] / float(row[2])
        hits += row[column] * weight
        misses += (row[2] - row[column]) * weight
    union = hits + false + misses
    return hits / union if union else float("nan")
