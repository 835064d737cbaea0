"""The index of a dataset: one row a pair with its paths, size and class histogram, as a Hugging Face `datasets.Dataset`.

Every label is read once, no image ever; what is counted is kept in the user's cache folder, in the values that the files store:
another map, or another choice of classes, counts nothing again. The key is made of the paths, sizes and times of the label
files, so a changed file makes a new index. Nothing is fetched.
Letters: H, W height and width; C classes; N pairs; R ways of reading labels in a dataset; Y, X rows and columns of `GRID`.
"""

import hashlib
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistalib.data.dataset import StreetDataset
from vistalib.data.decode import UNKNOWN, Label, unnamed
from vistalib.data.layout import Reading
from vistalib.data.sampler import ClassBalance
from vistalib.extras import missing
from vistalib.files import cache_folder
from vistalib.progress import progress
from vistalib.sums import per_class_sum

if TYPE_CHECKING:
    import datasets

GRID = (24, 48)  # rows and columns of the map that says where in the image a class lives
ROWS, PLACES = "rows", "places.npy"  # what lies in a folder of the cache
VALUES = "values"  # column: pixels of each stored value, (256,)


def index(dataset: StreetDataset) -> "datasets.Dataset":
    """Rows of name, image, label (paths), width, height (pixels), histogram (C + 1 pixel counts, the last of ignored ones).

    `ValueError` names a label file that is damaged or holds values that have no name.
    """
    datasets = _library()
    rows = datasets.Dataset.load_from_disk(str(_counted(dataset) / ROWS))
    values: NDArray[np.int64] = rows.with_format("numpy")[VALUES][:]  # (N, 256)
    return rows.remove_columns(VALUES).add_column("histogram", _mapped(dataset, values).tolist())


def class_pixels(dataset: StreetDataset) -> list[int]:
    """The pixels of each class over the whole dataset, ignored ones left out: C numbers, from the index."""
    counts = np.array(index(dataset)["histogram"][:])  # (N, C + 1)
    pixels: list[int] = counts.sum(0)[:-1].tolist()
    return pixels


def class_balance(dataset: StreetDataset, temperature: float) -> ClassBalance:
    """How to draw images so that rare classes come more often; from the index."""
    return ClassBalance(np.array(index(dataset)["histogram"][:])[:, :-1], temperature)


def source_pixels(dataset: StreetDataset) -> dict[str, int]:
    """The pixels of each class that the label files themselves have, by name, whatever the map makes of it; from the index."""
    _library()
    counts = np.load(_counted(dataset) / PLACES).sum((2, 3))  # (R, 256)
    found: dict[str, int] = {}
    for how, total in zip(_readings(dataset), counts, strict=True):
        for value, name in how.values.items():
            if name is not None:
                found[name] = found.get(name, 0) + int(total[value])
    return found


def class_places(dataset: StreetDataset) -> NDArray[np.float64]:
    """Where in the image each class lives, (C, Y, X): the share of the pixels in a cell of a grid that are of the class.

    Images of every size lie under the same grid. From the index; a class that nowhere occurs is zero everywhere.
    """
    _library()
    counts = np.load(_counted(dataset) / PLACES)  # (R, 256, Y, X)
    cells = torch.from_numpy(np.maximum(counts.sum((0, 1)), 1))  # (Y, X)
    mapped = [_by_class(dataset, how, torch.from_numpy(found)) for how, found in zip(_readings(dataset), counts, strict=True)]
    share: NDArray[np.float64] = (torch.stack(mapped).sum(0)[:-1].double() / cells).numpy()  # (C, Y, X)
    return share


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise missing("datasets", "make the index of a dataset") from error
    return datasets


def _mapped(dataset: StreetDataset, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 256) counts of stored values to (N, C + 1) counts of classes; a value without a name raises for its file."""
    mapped = np.zeros((len(values), len(dataset.classes) + 1), np.int64)
    readings = _readings(dataset)
    which = np.array([readings.index(pair.reading) for pair in dataset.pairs])
    for r, how in enumerate(readings):
        rows = np.flatnonzero(which == r)
        strange = values[rows] * (how.table == UNKNOWN)
        for row in rows[strange.any(1)][:1]:
            found = np.flatnonzero(strange[rows == row][0])
            raise unnamed(dataset.label_path(int(row)), how.names, found, int(values[row, found].sum()))
        mapped[rows] = _by_class(dataset, how, torch.from_numpy(values[rows].T)).numpy().T
    return mapped


def _by_class(dataset: StreetDataset, how: Reading, counts: Tensor) -> Tensor:
    """(256, ...) counts of stored values to (C + 1, ...) counts of classes, the last of ignored ones."""
    columns = np.minimum(how.table, len(dataset.classes)).astype(np.int64)  # ignored and unnamed values lie above
    return per_class_sum(counts.contiguous(), torch.from_numpy(columns), len(dataset.classes) + 1)


def _readings(dataset: StreetDataset) -> list[Reading]:
    """The ways of reading labels in a dataset, in order of appearance."""
    return list(dict.fromkeys(pair.reading for pair in dataset.pairs))


def _counted(dataset: StreetDataset) -> Path:
    """The folder of what was counted: a saved `datasets.Dataset` and, as `PLACES`, counts by cell of the grid."""
    folder = cache_folder() / "index" / _key(dataset)
    if not folder.is_dir():
        readings = _readings(dataset)
        places = np.zeros((len(readings), 256, *GRID), np.int64)
        rows: list[dict[str, Any]] = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding leaves the interpreter to others
            counted = pool.map(lambda i: _count(dataset.read_values(i)), range(len(dataset)))
            for i, (size, counts) in enumerate(progress(counted, "reading labels for the index", total=len(dataset))):
                places[readings.index(dataset.pairs[i].reading)] += counts
                rows.append(_row(dataset, i, size, counts.sum((1, 2))))
        _save(rows, places, folder)
    return folder


def _count(values: Label) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Height and width of a label, and how often each stored value lies in each cell of the grid, (256, Y, X)."""
    counts = np.empty((*GRID, 256), np.int64)
    rows, columns = (_edges(length, cells) for length, cells in zip(values.shape, GRID, strict=True))
    for y, x in np.ndindex(GRID):  # cell by cell: one count of the whole would need eight bytes a pixel, and 15 times the time
        counts[y, x] = np.bincount(values[rows[y] : rows[y + 1], columns[x] : columns[x + 1]].ravel(), minlength=256)
    return (values.shape[0], values.shape[1]), counts.transpose(2, 0, 1)  # (256, Y, X)


def _edges(length: int, cells: int) -> NDArray[np.int64]:
    """Where the cells of a grid begin along `length` pixels, and where the last one ends."""
    return -(-np.arange(cells + 1) * length // cells)


def _row(dataset: StreetDataset, i: int, size: tuple[int, int], counts: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "name": dataset.name(i),
        "image": str(dataset.image_path(i)),
        "label": str(dataset.label_path(i)),
        "width": size[1],
        "height": size[0],
        VALUES: counts.tolist(),
    }


def _key(dataset: StreetDataset) -> str:
    readings = _readings(dataset)
    files = [
        (str(pair.image.absolute()), str(pair.label.absolute()), *stamp(pair.label), readings.index(pair.reading))
        + (() if pair.probability is None else stamp(pair.probability))
        for pair in dataset.pairs
    ]
    return hashlib.sha256(json.dumps([GRID, dataset.min_probability, files]).encode()).hexdigest()[:24]


def stamp(path: Path) -> tuple[int, int]:
    """Bytes and time of a file: what tells that it was changed."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _save(rows: list[dict[str, Any]], places: NDArray[np.int64], folder: Path) -> None:
    """Write beside `folder` first and rename, so that a cut run leaves no half index."""
    datasets = _library()
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # its own, which do not know that they are not on a terminal
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".index.", dir=folder.parent))
    try:
        whole = beside / "whole"
        datasets.Dataset.from_list(rows).save_to_disk(str(whole / ROWS))
        np.save(whole / PLACES, places)
        whole.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process may have been first, with the same rows
            raise
    finally:
        shutil.rmtree(beside)
        if bars:
            datasets.enable_progress_bars()
