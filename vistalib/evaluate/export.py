"""Predictions as the Cityscapes benchmark server takes them: one PNG of label ids an image, named by the image.

The server finds a prediction by `{city}_{sequence}_{frame}*.png` and reads label ids, not training ids, at the image's size.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistalib.data.labels import CITYSCAPES

_LABEL_IDS = CITYSCAPES.train_id_to_id()  # (256,)


def write_label_ids(folder: Path, name: str, prediction: NDArray[np.uint8]) -> None:
    """Write `prediction` (H, W), in training ids, as `{name}.png` in label ids; a class beyond the 19 becomes 0 (unlabeled)."""
    Image.fromarray(_LABEL_IDS[prediction]).save(folder / f"{name}.png")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success it becomes `folder`, on any error it is removed.

    So a folder of that name always holds a whole export. `ValueError` when it exists already and is not empty.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"the export folder must be new or empty, got {folder}; choose another or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as name:
        beside = Path(name) / folder.name  # inside, so that it gets the usual permissions
        beside.mkdir()
        yield beside
        if folder.is_dir():
            folder.rmdir()
        beside.rename(folder)
