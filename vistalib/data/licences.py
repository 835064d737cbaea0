"""The terms of the datasets, shown once: on standard error, at a user's first use, and remembered in the cache folder."""

import sys
from pathlib import Path

from vistalib.files import cache_folder, write_text

TERMS = {
    "vistas": (
        "Mapillary Vistas has terms of its own: research and other non-commercial use, under the Research Edition licence "
        "that lies in its download; see https://www.mapillary.com/dataset/vistas. vistalib's licence does not cover it, nor "
        "what is trained on it."
    ),
    "cityscapes": (
        "Cityscapes has terms of its own: non-commercial use such as research, teaching and personal experiments, no passing "
        "on; see https://www.cityscapes-dataset.com/license/. vistalib's licence does not cover it, nor what is trained on it."
    ),
}
DRAWN = "synthetic.json"  # marks the folder of drawn streets, which come under vistalib's own licence


def show_licence(dataset: str, root: Path) -> None:
    """Say the terms of `dataset`, read from `root`, unless this user has seen them or the streets there are drawn."""
    seen = cache_folder() / "licences" / dataset
    if seen.exists() or (root / DRAWN).exists():
        return
    print(f"vistalib: {TERMS[dataset]} (This is said once.)", file=sys.stderr, flush=True)
    try:
        write_text(seen, TERMS[dataset] + "\n")
    except OSError:
        return  # a cache that cannot be written: it will be said again, and nothing else follows from it
