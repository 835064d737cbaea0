"""One confusion matrix an image, kept small: of each matrix only the cells that are not zero.

A street has a few of the classes and takes each for a few others, so that most cells are empty. A cell that is not takes 12
bytes; whole matrices of 2,000 images in 124 classes would take 248 MB.
Letters: n = images, C = classes, k = cells that are not zero, of all images together.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistalib.evaluate.confusion import ConfusionMatrix

Cells = tuple[NDArray[np.int32], NDArray[np.int64]]  # which cells of one image are not zero, and what they hold


@dataclass(frozen=True)
class PerImage:
    """The confusion matrices of n images, (C, C + 1) each: rows targets, columns predictions, the last for any other.

    Image `i` has the cells `start[i]` to `start[i + 1]`; a cell is target * (C + 1) + prediction. Images are in the order of
    their dataset.
    """

    names: tuple[str, ...]
    num_classes: int
    start: NDArray[np.int64]  # (n + 1,)
    cell: NDArray[np.int32]  # (k,)
    count: NDArray[np.int64]  # (k,)

    @classmethod
    def of(cls, images: Sequence[Cells], names: Sequence[str], num_classes: int) -> "PerImage":
        """From the `cells_of` each image."""
        start = np.cumsum([0, *(len(cell) for cell, _ in images)], dtype=np.int64)
        cell, count = (np.concatenate(parts) for parts in zip(*images, strict=True))
        return cls(tuple(names), num_classes, start, cell, count)

    def __len__(self) -> int:
        return len(self.names)

    def matrix(self, i: int) -> NDArray[np.int64]:
        """The matrix (C, C + 1) of image `i`."""
        mine = slice(self.start[i], self.start[i + 1])
        return self._filled(self.cell[mine], self.count[mine])

    def total(self) -> NDArray[np.int64]:
        """The sum (C, C + 1) over all images."""
        return self._filled(self.cell, self.count)

    def ordered(self, order: NDArray[np.int64]) -> "PerImage":
        """The same images in another order: `order` (n,) holds their present places."""
        cells = [(self.cell[mine], self.count[mine]) for i in order for mine in [slice(self.start[i], self.start[i + 1])]]
        return PerImage.of(cells, [self.names[i] for i in order], self.num_classes)

    def hits(self) -> NDArray[np.int64]:
        """(n, C) pixels of each class that were found."""
        target, prediction = self._pairs()
        return self._by_class(target, target == prediction)

    def targets(self) -> NDArray[np.int64]:
        """(n, C) pixels that are of each class."""
        return self._by_class(self._pairs()[0])

    def predictions(self) -> NDArray[np.int64]:
        """(n, C) pixels that were taken for each class."""
        prediction = self._pairs()[1]
        return self._by_class(prediction, prediction < self.num_classes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `of_arrays` takes them, without the number of classes."""
        return {"names": np.array(self.names), "start": self.start, "cell": self.cell, "count": self.count}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], num_classes: int) -> "PerImage":
        """From what `arrays` gave."""
        names = tuple(arrays["names"].tolist())
        return cls(names, num_classes, arrays["start"], arrays["cell"], arrays["count"])

    def _filled(self, cell: NDArray[np.int32], count: NDArray[np.int64]) -> NDArray[np.int64]:
        matrix = np.zeros(self.num_classes * (self.num_classes + 1), np.int64)
        np.add.at(matrix, cell, count)
        return matrix.reshape(self.num_classes, self.num_classes + 1)

    def _pairs(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        target, prediction = np.divmod(self.cell, np.int32(self.num_classes + 1))
        return target, prediction  # (k,), (k,)

    def _by_class(self, of: NDArray[np.int32], counted: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        image = np.repeat(np.arange(len(self)), np.diff(self.start))  # (k,)
        kept = slice(None) if counted is None else counted
        pixels = np.zeros((len(self), self.num_classes), np.int64)
        np.add.at(pixels, (image[kept], of[kept]), self.count[kept])
        return pixels


def cells_of(counts: ConfusionMatrix) -> Cells:
    """The cells of one image's `counts` that are not zero."""
    whole = np.column_stack([counts.matrix.numpy(), counts.missed.numpy()]).ravel()
    cell = np.flatnonzero(whole)
    return cell.astype(np.int32), whole[cell]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file; `ValueError` where it is missing or damaged."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist: the matrices of single images lie there, beside the scores; "
            "keep the two files together, or evaluate again with --json"
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be a readable .npz file, got: {error}; evaluate again") from error
