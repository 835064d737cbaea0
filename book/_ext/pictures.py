"""Pictures that the pages show and the package draws: made when the book is built, so they always show what the code does.

`_build/drawn/pictures` holds `street.jpg`, a street in the Vistas layout, and `street_labels.png`, its label map.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from frame import ROOT, source_key
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config

from vistalib.data import Vistas, synthesize
from vistalib.viz import colorize

DRAWN = ROOT / "_build" / "drawn"
SEED = 36  # which street
TOP = 0.12  # what is cut off above, of the height; below so much that the picture is twice as wide as high


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", _draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _draw(app: Sphinx, config: Config) -> None:
    mark = DRAWN / "source.txt"
    if not mark.exists() or mark.read_text() != source_key():
        shutil.rmtree(DRAWN, ignore_errors=True)
        street = synthesize(DRAWN / "data", "vistas", num_images={"training": 1}, seed=SEED, size=(720, 1440))
        dataset = Vistas(street, "training")
        image, label = dataset.read(0)
        top = round(TOP * len(image))
        band = slice(top, top + image.shape[1] // 2)
        _save(image[band], DRAWN / "pictures" / "street.jpg")
        _save(colorize(label[band], dataset.colors), DRAWN / "pictures" / "street_labels.png")
        shutil.rmtree(street)
        mark.write_text(source_key())
    config["html_static_path"] = [*config["html_static_path"], "_build/drawn/pictures"]


def _save(picture: np.ndarray[Any, Any], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(path, quality=90, optimize=True)
