"""Tiny datasets in every layout, written with Pillow alone, for the tests of the data room."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistalib.data.labels import VISTAS_V1_2

SIZE = (24, 40)  # height, width


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


def write_label(path: Path, label: NDArray[np.uint8], *, palette: bool = False) -> None:
    """An 8-bit PNG of indices, grey or with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    if palette:
        image.putpalette([channel for entry in VISTAS_V1_2 for channel in entry.color] + [0] * 3 * (256 - len(VISTAS_V1_2)))
    image.save(path)


def write_vistas(root: Path, *, training: int = 3, validation: int = 2) -> Path:
    config = {"labels": [{"name": c.name, "readable": c.readable, "color": list(c.color)} for c in VISTAS_V1_2]}
    root.mkdir(parents=True, exist_ok=True)
    (root / "config_v1.2.json").write_text(json.dumps(config))
    for split, count, first in (("training", training, 0), ("validation", validation, 100)):
        for i in range(first, first + count):
            write_image(root / split / "images" / f"photo{i:03}.jpg", pixels(i))
            write_label(root / split / "v1.2" / "labels" / f"photo{i:03}.png", values(i, range(66)), palette=True)
    return root


def write_cityscapes(root: Path, *, split: str = "train", kind: str = "gtFine", frames: int = 2) -> Path:
    for city in ("aachen", "troisdorf"):
        for i in range(frames):
            stem = f"{city}_000000_{i + 72:06}"
            write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", pixels(i))
            write_label(root / kind / split / city / f"{stem}_{kind}_labelIds.png", values(i, range(34)))
            write_label(root / kind / split / city / f"{stem}_{kind}_instanceIds.png", values(i, range(34)))
    return root


def write_folder(root: Path, *, count: int = 5, ignore: int | None = 2) -> Path:
    classes = [{"name": name, "color": [40 * i, 0, 90]} for i, name in enumerate(("sky", "road", "void", "car"))]
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.json").write_text(json.dumps({"classes": classes, "ignore": ignore}))
    for i in range(count):
        write_image(root / "images" / "train" / f"{i:02}{'.png' if i % 2 else '.jpg'}", pixels(i))
        write_label(root / "labels" / "train" / f"{i:02}.png", values(i, range(4)))
    return root
