"""Writing renderings in the layouts of Mapillary Vistas: v1.2, v2.0 (which comes with v1.2 beside it), and the older flat one.

`{training,validation}/images/KEY.jpg`; below the split, in `v1.2/`, in `v2.0/`, or in the split itself, `labels/KEY.png` (8-bit
palette, index = position in the configuration) and `instances/KEY.png` (16-bit, label * 256 + instance); and the configuration
at the root.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vistalib.data.synthetic.render import Rendering
from vistalib.data.vistas_labels import VISTAS_V1_2, VISTAS_V2_0, VistasClass
from vistalib.files import write_json

SPLITS = ("training", "validation")
LETTERS = string.ascii_letters + string.digits + "-_"
# Renderings know the classes of v1.2; what v2.0 calls those that it has no more.
IN_V2_0 = {
    "human--person": "human--person--individual",
    "marking--crosswalk-zebra": "marking--discrete--crosswalk-zebra",
    "marking--general": "marking--continuous--solid",
    "object--billboard": "object--sign--advertisement",
    "object--traffic-light": "object--traffic-light--general-upright",
}


@dataclass(frozen=True)
class LabelSet:
    """One version of the labels: its classes, in which folder of a split they lie, and their configuration."""

    classes: tuple[VistasClass, ...]
    folder: str
    config: str
    version: str

    def write(self, folder: Path, name: str, rendering: Rendering) -> None:
        """Labels and instances of one rendering, below the split `folder`."""
        value = {entry.name: value for value, entry in enumerate(self.classes)}
        table = np.array([value[entry.name if entry.name in value else IN_V2_0[entry.name]] for entry in VISTAS_V1_2], np.uint8)
        label = table[rendering.label]  # (H, W)
        picture = Image.fromarray(label)
        picture.putpalette([channel for entry in self.classes for channel in entry.color])
        target = folder / self.folder / "labels" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
        counted = [entry.instances for entry in self.classes]
        save(folder / self.folder / "instances" / f"{name}.png", numbered(label, rendering.instance, counted))

    def write_config(self, root: Path) -> None:
        """The class list, as the dataset's own file gives it."""
        labels = [
            {"name": e.name, "readable": e.readable, "color": list(e.color), "instances": e.instances, "evaluate": e.evaluate}
            for e in self.classes
        ]  # fmt: skip
        content = {"labels": labels, "version": self.version, "mapping": "public"}
        write_json(root / self.config, {**content, "folder_structure": "{split}/{content}/{image_key}"})


V1_2 = LabelSet(VISTAS_V1_2, "v1.2", "config_v1.2.json", "1.2")
V2_0 = LabelSet(VISTAS_V2_0, "v2.0", "config_v2.0.json", "2.0")
FLAT = LabelSet(VISTAS_V1_2, ".", "config.json", "1.1")


@dataclass(frozen=True)
class VistasWriter:
    """Writes the images of Vistas with one or several versions of the labels."""

    versions: tuple[LabelSet, ...]
    draws = "vistas"
    splits = SPLITS

    def scene(self, split: int, number: int) -> tuple[int, int]:
        """Which street is drawn for image `number` of a split."""
        return split, number

    def write_image(self, root: Path, rendering: Rendering, *, seed: int, split: int, number: int) -> None:
        """Image, labels and instances of one rendering. Raises `OSError` where a file cannot be written."""
        name, folder = key(seed, split, number), root / SPLITS[split]
        quality = int(np.random.default_rng([seed, split, number]).integers(82, 97))
        save(folder / "images" / f"{name}.jpg", rendering.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        for version in self.versions:
            version.write(folder, name, rendering)

    def finish(self, root: Path) -> None:
        """What lies at the root."""
        for version in self.versions:
            version.write_config(root)


def key(seed: int, split: int, number: int) -> str:
    """The 22 characters that name an image."""
    rng = np.random.default_rng([seed, 0, split, number, 1 << 20])
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS) - 2, size=1)) + "".join(
        LETTERS[i] for i in rng.integers(len(LETTERS), size=21)
    )


def numbered(label: np.ndarray, instance: np.ndarray, counted: Sequence[bool]) -> np.ndarray:  # (H, W) each; uint16 (H, W)
    """label * 256 + instance, instances of a counted class from 0 in the order of their areas' first pixels."""
    result = label.astype(np.uint16) * 256
    for value in np.unique(label):
        if not counted[value]:
            continue
        here = label == value
        _, order = np.unique(instance[here], return_inverse=True)
        result[here] += np.minimum(order, 255).astype(np.uint16)
    return result


def save(path: Path, array: np.ndarray, options: list[int] | None = None) -> None:  # uint8 or uint16
    """Encode `array` (BGR order where it has colours) by the suffix of `path`, and write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(array), options or [])
    assert done, path
    path.write_bytes(data.tobytes())
