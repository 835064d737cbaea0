"""Tiny datasets in every layout, written with Pillow alone, for the tests of the data room."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistalib.data.vistas_labels import VISTAS_V1_2, VISTAS_V2_0

SIZE = (24, 40)  # height, width
PROBABILITY = np.tile(np.linspace(0, 255, SIZE[1]).astype(np.uint8), (SIZE[0], 1))


def pixels(seed: int) -> NDArray[np.uint8]:
    """A smooth random photograph (H, W, 3) RGB, so that JPEG keeps it nearly whole."""
    coarse = np.random.RandomState(seed).randint(0, 256, (3, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC))


def values(seed: int, allowed: range) -> NDArray[np.uint8]:
    """A random label (H, W) of 4 x 4 blocks."""
    coarse = np.random.RandomState(seed).randint(allowed.start, allowed.stop, (SIZE[0] // 4, SIZE[1] // 4))
    return np.kron(coarse, np.ones((4, 4))).astype(np.uint8)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def write_label(path: Path, label: NDArray[np.uint8], *, palette: bool = False, table=VISTAS_V1_2) -> None:
    """An 8-bit PNG of indices, grey or with the palette of a table of classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    if palette:
        image.putpalette([channel for entry in table for channel in entry.color] + [0] * 3 * (256 - len(table)))
    image.save(path)


VISTAS = {  # layout: classes, configuration, labels below a split
    "v1.2": (VISTAS_V1_2, "config_v1.2.json", "v1.2/labels"),
    "v2.0": (VISTAS_V2_0, "config_v2.0.json", "v2.0/labels"),
    "flat": (VISTAS_V1_2, "config.json", "labels"),
}


def write_vistas(root: Path, layout: str = "v1.2", *, training: int = 3, validation: int = 2) -> Path:
    table, config, below = VISTAS[layout]
    labels = [{"name": c.name, "readable": c.readable, "color": list(c.color), "evaluate": c.evaluate} for c in table]
    root.mkdir(parents=True, exist_ok=True)
    (root / config).write_text(json.dumps({"labels": labels}))
    for split, count, first in (("training", training, 0), ("validation", validation, 100)):
        for i in range(first, first + count):
            write_image(root / split / "images" / f"photo{i:03}.jpg", pixels(i))
            label = values(i, range(len(table)))
            write_label(root / split / below / f"photo{i:03}.png", label, palette=True, table=table)
    return root


def write_cityscapes(root: Path, *, split: str = "train", kind: str = "gtFine", frames: int = 2) -> Path:
    for city in ("aachen", "troisdorf"):
        for i in range(frames):
            stem = f"{city}_000000_{i + 72:06}"
            write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", pixels(i))
            write_label(root / kind / split / city / f"{stem}_{kind}_labelIds.png", values(i, range(34)))
            write_label(root / kind / split / city / f"{stem}_{kind}_instanceIds.png", values(i, range(34)))
    return root


def write_auto(root: Path, *, ending: str = "_leftImg8bit", classes: range = range(34), probability: bool = True) -> Path:
    """train_extra of Cityscapes with automatic labels; a pixel's probability grows from 0 at the left to 255 at the right."""
    for city in ("aachen", "troisdorf"):
        for i in range(2):
            stem = f"{city}_000000_{i + 72:06}"
            write_image(root / "leftImg8bit" / "train_extra" / city / f"{stem}_leftImg8bit.png", pixels(i))
            label = root / "refinement_final" / "train_extra" / city / f"{stem}{ending}.png"
            write_label(label, values(i, classes))
            if probability:
                write_label(label.with_stem(f"{label.stem}_prob"), PROBABILITY)
    return root


def write_folder(root: Path, *, count: int = 5, ignore: int | None = 2) -> Path:
    classes = [{"name": name, "color": [40 * i, 0, 90]} for i, name in enumerate(("sky", "road", "void", "car"))]
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.json").write_text(json.dumps({"classes": classes, "ignore": ignore}))
    for i in range(count):
        write_image(root / "images" / "train" / f"{i:02}{'.png' if i % 2 else '.jpg'}", pixels(i))
        write_label(root / "labels" / "train" / f"{i:02}.png", values(i, range(4)))
    return root
