"""Pictures that the pages show and the package draws: made when the book is built, so they always show what the code does.

`_build/drawn` holds `street.jpg`, a street in the Vistas layout, and `street_labels.png`, its label map.
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
SEED, NUMBER = 7, 1  # which street


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", _draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _draw(app: Sphinx, config: Config) -> None:
    mark = DRAWN / "source.txt"
    if not mark.exists() or mark.read_text() != source_key():
        shutil.rmtree(DRAWN, ignore_errors=True)
        street = synthesize(DRAWN / "data", "vistas", num_images={"training": NUMBER + 1}, seed=SEED, size=(512, 1024))
        image, label = Vistas(street, "training").read(NUMBER)
        _save(image, DRAWN / "street.jpg")
        _save(colorize(label, Vistas(street, "training").colors), DRAWN / "street_labels.png")
        shutil.rmtree(street)
        mark.write_text(source_key())
    config["html_static_path"] = [*config["html_static_path"], "_build/drawn"]


def _save(picture: np.ndarray[Any, Any], path: Path) -> None:
    Image.fromarray(picture).save(path, quality=90, optimize=True)
