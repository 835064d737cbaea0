"""Writing renderings in the layout of Mapillary Vistas v1.2.

`{training,validation}/images/KEY.jpg`, `{split}/v1.2/labels/KEY.png` (8-bit palette, index = position in the configuration),
`{split}/v1.2/instances/KEY.png` (16-bit, label * 256 + instance) and `config_v1.2.json` at the root.
"""

import string
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vistalib.data.synthetic.render import Rendering
from vistalib.data.vistas_labels import VISTAS_V1_2
from vistalib.files import write_json

SPLITS = ("training", "validation")
VERSION = "v1.2"
PALETTE = [value for entry in VISTAS_V1_2 for value in entry.color]
COUNTED = np.array([entry.instances for entry in VISTAS_V1_2])
LETTERS = string.ascii_letters + string.digits + "-_"


def key(seed: int, split: int, number: int) -> str:
    """The 22 characters that name an image."""
    rng = np.random.default_rng([seed, 0, split, number, 1 << 20])
    return "".join(LETTERS[i] for i in rng.integers(len(LETTERS) - 2, size=1)) + "".join(
        LETTERS[i] for i in rng.integers(len(LETTERS), size=21)
    )


def write_config(root: Path) -> None:
    """The class list, as the dataset's own file gives it."""
    labels = [
        {"name": e.name, "readable": e.readable, "color": list(e.color), "instances": e.instances, "evaluate": e.evaluate}
        for e in VISTAS_V1_2
    ]  # fmt: skip
    write_json(
        root / f"config_{VERSION}.json",
        {"labels": labels, "version": "1.2", "mapping": "public", "folder_structure": "{split}/{content}/{image_key}"},
    )


def write_image(root: Path, rendering: Rendering, *, seed: int, split: int, number: int) -> None:
    """Image, labels and instances of one rendering. Raises `OSError` where a file cannot be written."""
    name, folder = key(seed, split, number), root / SPLITS[split]
    quality = int(np.random.default_rng([seed, split, number]).integers(82, 97))
    save(folder / "images" / f"{name}.jpg", rendering.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    labels = Image.fromarray(rendering.label)
    labels.putpalette(PALETTE)
    target = folder / VERSION / "labels" / f"{name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    labels.save(target)
    save(folder / VERSION / "instances" / f"{name}.png", numbered(rendering))


def numbered(rendering: Rendering) -> np.ndarray:  # uint16 (H, W)
    """label * 256 + instance, instances of a class counting from 0 in the order of their areas' first pixels."""
    result = rendering.label.astype(np.uint16) * 256
    for label in np.unique(rendering.label):
        if not COUNTED[label]:
            continue
        here = rendering.label == label
        _, order = np.unique(rendering.instance[here], return_inverse=True)
        result[here] += np.minimum(order, 255).astype(np.uint16)
    return result


def save(path: Path, array: np.ndarray, options: list[int] | None = None) -> None:  # uint8 or uint16
    """Encode `array` (BGR order where it has colours) by the suffix of `path`, and write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(array), options or [])
    assert done, path
    path.write_bytes(data.tobytes())
