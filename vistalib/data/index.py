"""The index of a dataset: one row a pair with its paths, size and class histogram, as a Hugging Face `datasets.Dataset`.

Computed once by reading every label (no image is decoded), then kept in the user's cache folder under a key made of the paths,
sizes and times of the label files and of the class table: a changed file or another map makes a new index. Nothing is fetched.
Letters: H, W height and width; C classes.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vistalib.data.dataset import StreetDataset
from vistalib.data.decode import Label
from vistalib.extras import missing
from vistalib.files import cache_folder
from vistalib.progress import progress
from vistalib.sums import per_class_sum

if TYPE_CHECKING:
    import datasets


def index(dataset: StreetDataset) -> "datasets.Dataset":
    """Rows of name, image, label (paths), width, height (pixels), histogram (C + 1 pixel counts, the last of ignored ones)."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise missing("datasets", "make the index of a dataset") from error
    folder = cache_folder() / "index" / _key(dataset)
    if not folder.is_dir():
        rows = [_row(dataset, i) for i in progress(range(len(dataset)), "reading labels for the index")]
        bars = not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()  # its own, which do not know that they are not on a terminal
        try:
            _save(datasets.Dataset.from_list(rows), folder)
        finally:
            if bars:
                datasets.enable_progress_bars()
    return datasets.Dataset.load_from_disk(str(folder))


def class_pixels(dataset: StreetDataset) -> list[int]:
    """The pixels of each class over the whole dataset, ignored ones left out: C numbers, from the index."""
    counts = torch.tensor(index(dataset)["histogram"][:])  # (len(dataset), C + 1)
    pixels: list[int] = counts.sum(0)[:-1].tolist()
    return pixels


def histogram(label: Label, num_classes: int) -> list[int]:
    """Pixels of each class in `label` (H, W), and last the ignored ones: C + 1 numbers."""
    classes = torch.from_numpy(label).flatten().long().clamp_(max=num_classes)  # (H * W,)
    counts: list[int] = per_class_sum(torch.ones_like(classes), classes, num_classes + 1).tolist()
    return counts


def _row(dataset: StreetDataset, i: int) -> dict[str, Any]:
    label = dataset.read_label(i)
    return {
        "name": dataset.name(i),
        "image": str(dataset.image_path(i)),
        "label": str(dataset.label_path(i)),
        "width": label.shape[1],
        "height": label.shape[0],
        "histogram": histogram(label, len(dataset.classes)),
    }


def _key(dataset: StreetDataset) -> str:
    files = [(str(pair.image.resolve()), str(pair.label.resolve()), *_stamp(pair.label)) for pair in dataset.pairs]
    facts = json.dumps([dataset.classes, dataset.table.tolist(), files])
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _save(rows: "datasets.Dataset", folder: Path) -> None:
    """Write beside `folder` first and rename, so that a cut run leaves no half index."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".index.", dir=folder.parent))
    try:
        rows.save_to_disk(str(beside / "rows"))
        (beside / "rows").rename(folder)
    except OSError:
        if not folder.is_dir():  # another process may have been first, with the same rows
            raise
    finally:
        shutil.rmtree(beside)
