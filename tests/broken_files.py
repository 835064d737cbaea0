"""Broken datasets, first part: the intact ones, and every damage that a single file can have (`broken_folders` has the rest).

A damage changes a copy of an intact dataset; what it returns, its manifest, says what a doctor must find: path -> kind.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data_helpers import pixels, values, write_folder, write_image, write_label
from numpy.random import RandomState
from PIL import Image

from vistalib.data import synthesize

Manifest = dict[str, str]
Damage = Callable[[Path, RandomState], Manifest]

SIZE = (32, 64)
DRAWN = {
    "vistas": {"training": 2, "validation": 2},
    "vistas-2.0": {"training": 1, "validation": 1},
    "vistas-flat": {"training": 1, "validation": 1},
    "cityscapes": {"train": 2, "val": 2},
    "cityscapes-extra": {"train": 1, "val": 1, "train_extra": 2},
}
LAYOUTS = (*DRAWN, "folder")
AUTO = "refinement_final/train_extra/augsburg/*_leftImg8bit.png"


@dataclass(frozen=True)
class Form:
    """One form of damage to a dataset in `layout`, to be found by a check with `options`."""

    layout: str
    damage: Damage
    options: dict[str, Any]


FORMS: dict[str, Form] = {}


def form(layout: str, name: str, **options: Any) -> Callable[[Damage], Damage]:
    """Register a damage under a name; one function may damage several layouts."""

    def register(damage: Damage) -> Damage:
        assert name not in FORMS
        FORMS[name] = Form(layout, damage, {**options_of(layout), **options})
        return damage

    return register


def options_of(layout: str) -> dict[str, Any]:
    """How an intact dataset of that layout is checked."""
    automatic = {"labels": "auto", "min_probability": 0.5} if layout == "cityscapes-extra" else {}
    return {"kind": layout.partition("-")[0], **({"version": "v2.0"} if layout == "vistas-2.0" else automatic)}


def make_intact(layout: str, root: Path) -> Path:
    """A small whole dataset."""
    if layout in DRAWN:
        return synthesize(root, layout, num_images=DRAWN[layout], size=SIZE, workers=1)
    write_folder(root)
    for i in range(2):
        write_image(root / f"images/val/{i:02}.png", pixels(60 + i))
        write_label(root / f"labels/val/{i:02}.png", values(60 + i, range(4)))
    return root


def pick(root: Path, pattern: str, rng: RandomState) -> Path:
    found = sorted(root.glob(pattern))
    return found[rng.randint(len(found))]


def named(root: Path, path: Path, kind: str) -> Manifest:
    return {path.relative_to(root).as_posix(): kind}


def rewritten(path: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    with Image.open(path) as image:
        image.load()
    change(image).save(path)


IMAGES = {
    "vistas": "training/images/*.jpg",
    "vistas-flat": "training/images/*.jpg",
    "cityscapes": "leftImg8bit/train/aachen/*.png",
    "cityscapes-extra": "leftImg8bit/train_extra/augsburg/*.png",
    "folder": "images/train/*",
}
LABELS = {
    "vistas": "training/v1.2/labels/*.png",
    "vistas-2.0": "training/v2.0/labels/*.png",
    "vistas-flat": "training/labels/*.png",
    "cityscapes": "gtFine/train/aachen/*_labelIds.png",
    "cityscapes-extra": AUTO,
    "folder": "labels/train/*.png",
}


def cut(path: Path, rng: RandomState) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randint(40, len(data) - 1)])


def flip_a_byte(path: Path, rng: RandomState) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT") + 4
    data[rng.randint(start, start + int.from_bytes(data[start - 8 : start - 4], "big"))] ^= 1 << rng.randint(8)
    path.write_bytes(data)


def lock(path: Path) -> None:
    path.chmod(0)


def claim_to_be_huge(path: Path) -> None:
    """Let the header promise 60,000 x 60,000 pixels, and nothing else be wrong."""
    data, side = bytearray(path.read_bytes()), 60_000
    if path.suffix == ".png":
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    else:
        frame = data.index(b"\xff\xc0")  # the marker before the size
        data[frame + 5 : frame + 9] = side.to_bytes(2, "big") * 2
    path.write_bytes(data)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("moved away.jpg")


def to_jpeg(path: Path) -> None:
    with Image.open(path) as image:
        image.convert("L").save(path, "JPEG")


def shrink(path: Path) -> None:
    rewritten(path, lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST))


def to_mode(mode: str) -> Callable[[Path], None]:
    return lambda path: rewritten(path, lambda image: image.convert(mode))


def to_sixteen_bits(path: Path) -> None:
    with Image.open(path) as image:
        array = np.array(image).astype(np.uint16) * 256
    Image.fromarray(array).save(path)


def shuffle_palette(path: Path) -> None:
    def change(image: Image.Image) -> Image.Image:
        image.putpalette(np.roll(np.array(image.getpalette("RGB")).reshape(-1, 3), 1, 1).ravel().tolist())
        return image

    rewritten(path, change)


def one_file(patterns: dict[str, str], what: str, kind: str, change: Callable[..., None], *layouts: str) -> None:
    """Forms that change one image or one label in place: in each of these layouts, one damage and one finding."""
    for layout in layouts:

        def damage(root: Path, rng: RandomState, pattern: str = patterns[layout]) -> Manifest:
            path = pick(root, pattern, rng)
            change(path, rng) if change in (cut, flip_a_byte) else change(path)
            return named(root, path, kind)

        form(layout, f"{layout}: {what}")(damage)


PHOTOS = ("vistas", "cityscapes", "folder")
one_file(IMAGES, "image without content", "empty", lambda path: path.write_bytes(b""), *PHOTOS)
one_file(IMAGES, "cut image", "damaged-image", cut, *PHOTOS, "vistas-flat", "cityscapes-extra")
one_file(IMAGES, "web page for an image", "damaged-image", lambda path: path.write_text("<html>404</html>"), "vistas", "folder")
one_file(IMAGES, "flipped bit in an image", "damaged-image", flip_a_byte, "cityscapes")
one_file(IMAGES, "image that claims to be huge", "damaged-image", claim_to_be_huge, "vistas", "cityscapes")
one_file(IMAGES, "image without permission", "unreadable", lock, "vistas")
one_file(IMAGES, "folder for an image", "unreadable", to_folder, "vistas", "folder")
one_file(IMAGES, "link to nowhere", "unreadable", to_dead_link, "vistas", "cityscapes")
one_file(LABELS, "label without content", "empty", lambda path: path.write_bytes(b""), "vistas", "cityscapes")
one_file(LABELS, "cut label", "damaged-label", cut, *LABELS)
one_file(LABELS, "flipped bit in a label", "damaged-label", flip_a_byte, "vistas", "cityscapes-extra")
one_file(LABELS, "label that claims to be huge", "damaged-label", claim_to_be_huge, "vistas")
one_file(LABELS, "folder for a label", "unreadable", to_folder, "cityscapes")
one_file(LABELS, "label without permission", "unreadable", lock, "folder")
one_file(LABELS, "palette expanded to colours", "label-mode", to_mode("RGB"), "vistas", "vistas-2.0", "vistas-flat")
one_file(LABELS, "label with alpha", "label-mode", to_mode("RGBA"), "folder")
one_file(LABELS, "label of one bit", "label-mode", to_mode("1"), "folder")
one_file(LABELS, "label of 16 bits", "label-mode", to_sixteen_bits, "vistas", "folder")
one_file(LABELS, "JPEG for a label", "label-mode", to_jpeg, "vistas", "cityscapes")
one_file(LABELS, "label of half the size", "wrong-size", shrink, "vistas", "folder")
one_file(LABELS, "palette of other colours", "palette", shuffle_palette, "vistas", "vistas-flat")


def value_outside(layout: str, value: int) -> None:
    @form(layout, f"{layout}: value {value} of no class")
    def damage(root: Path, rng: RandomState) -> Manifest:
        path = pick(root, LABELS[layout], rng)

        def change(image: Image.Image) -> Image.Image:
            image.putpixel((int(rng.randint(image.width)), int(rng.randint(image.height))), value)
            return image

        rewritten(path, change)
        return named(root, path, "unknown-value")


for layout, value in (("vistas", 66), ("vistas-2.0", 124), ("cityscapes", 34), ("cityscapes-extra", 200), ("folder", 4)):
    value_outside(layout, value)
