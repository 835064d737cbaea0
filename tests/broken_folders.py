"""A corpus of broken datasets: every form of damage in every layout, done to an intact dataset by a seeded generator.

`break_folder` copies an intact dataset and does one damage to it. By itself this writes the whole corpus, with a manifest that
says what a doctor must find in each folder: `python tests/broken_folders.py OUT`.
"""

import json
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

from broken_files import (
    AUTO,
    FORMS,
    IMAGES,
    LABELS,
    LAYOUTS,
    Manifest,
    form,
    make_intact,
    named,
    pick,
    rewritten,
    shrink,
    to_sixteen_bits,
)
from numpy.random import RandomState
from PIL import Image

from vistalib.data import CITYSCAPES


def break_folder(name: str, intact: Path, root: Path, *, seed: int = 0) -> Manifest:
    """Copy `intact` to `root`, do the damage of that name to the copy, and say what must be found."""
    shutil.copytree(intact, root)
    return FORMS[name].damage(root, RandomState([seed, zlib.crc32(name.encode())]))


def label_of(image: Path) -> Path:
    """The label of an image of Vistas v1.2."""
    return image.parents[1] / "v1.2" / "labels" / f"{image.stem}.png"


def moved(path: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(to)


def saved_again(path: Path, to: Path) -> None:
    """The same picture in other bytes."""
    with Image.open(path) as image:
        image.convert("RGB").save(to, "JPEG", quality=70)


@form("vistas", "vistas: image without label")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, IMAGES["vistas"], rng)
    label_of(image).unlink()
    return named(root, image, "missing-label")


@form("cityscapes-extra", "cityscapes-extra: image without automatic label")
def _(root: Path, rng: RandomState) -> Manifest:
    pick(root, AUTO, rng).unlink()
    return named(root, next(root.glob(IMAGES["cityscapes-extra"])), "missing-label")


@form("vistas", "vistas: label without image")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, IMAGES["vistas"], rng)
    image.unlink()
    return {**named(root, label_of(image), "missing-image"), "training/images": "count"}


@form("vistas", "vistas: split without images")
def _(root: Path, rng: RandomState) -> Manifest:
    del rng
    for image in (root / "validation/images").iterdir():
        image.unlink()
    labels = sorted((root / "validation/v1.2/labels").iterdir())
    return {"validation/images": "no-images"} | {path.relative_to(root).as_posix(): "missing-image" for path in labels}


@form("vistas", "vistas: folder of labels gone")
def _(root: Path, rng: RandomState) -> Manifest:
    split = ("training", "validation")[rng.randint(2)]
    shutil.rmtree(root / split / "v1.2")
    return {f"{split}/v1.2/labels": "missing-folder"}


@form("cityscapes", "cityscapes: package not unpacked")
def _(root: Path, rng: RandomState) -> Manifest:
    del rng
    shutil.rmtree(root / "gtFine")
    return {"gtFine/train": "missing-folder", "gtFine/val": "missing-folder"}


@form("folder", "folder: one level too deep")
def _(root: Path, rng: RandomState) -> Manifest:
    del rng
    for path in list(root.iterdir()):
        moved(path, root / "inside" / path.name)
    return {"images/train": "missing-folder"}


def configuration(layout: str, name: str, what: str, text: str | None) -> None:
    @form(layout, f"{layout}: {what}")
    def damage(root: Path, rng: RandomState) -> Manifest:
        del rng
        if text is None:
            (root / name).unlink()
        else:
            (root / name).write_text(text)
        return {name: "configuration"}


configuration("vistas", "config_v1.2.json", "configuration gone", None)
configuration("vistas", "config_v1.2.json", "configuration that is no JSON", '{"labels": [')
configuration("vistas-flat", "config.json", "configuration without content", "")
configuration("vistas-2.0", "config_v2.0.json", "configuration of another form", '{"labels": ["sky"]}')
configuration("folder", "classes.json", "classes gone", None)
configuration("folder", "classes.json", "one class twice", json.dumps({"classes": [{"name": "sky", "color": [0, 0, 0]}] * 4}))


@form("vistas", "vistas: configuration short of a class")
def _(root: Path, rng: RandomState) -> Manifest:
    config = json.loads((root / "config_v1.2.json").read_text())
    spare = [entry for entry in config["labels"] if entry["name"].startswith("void--")]
    config["labels"].remove(spare[rng.randint(len(spare))])
    (root / "config_v1.2.json").write_text(json.dumps(config))
    return {"config_v1.2.json": "configuration"}


@form("vistas-2.0", "vistas-2.0: configuration of v1.2 under its name")
def _(root: Path, rng: RandomState) -> Manifest:
    del rng
    shutil.copy(root / "config_v1.2.json", root / "config_v2.0.json")
    return {"config_v2.0.json": "configuration"}


def labels_of_another_version(version: str, other: str) -> None:
    @form("vistas-2.0", f"vistas-2.0: labels of {other} among those of {version}", version=version)
    def damage(root: Path, rng: RandomState) -> Manifest:
        path = pick(root, f"training/{version}/labels/*.png", rng)
        shutil.copy(root / "training" / other / "labels" / path.name, path)
        return named(root, path, "other-version")


labels_of_another_version("v1.2", "v2.0")
labels_of_another_version("v2.0", "v1.2")


@form("vistas", "vistas: photograph turned by its EXIF orientation")
def _(root: Path, rng: RandomState) -> Manifest:
    path = pick(root, IMAGES["vistas"], rng)
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # to be shown turned by a quarter
        image.save(path, exif=exif, quality=95)
    return named(root, label_of(path), "wrong-size")


@form("vistas", "vistas: photograph in both splits")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, IMAGES["vistas"], rng)
    again = root / "validation/images" / f"{image.stem}-again.jpg"
    shutil.copy(image, again)
    shutil.copy(label_of(image), label_of(again))
    return {**named(root, again, "duplicate"), "validation/images": "count"}


@form("vistas", "vistas: name in both splits")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, IMAGES["vistas"], rng)
    again = root / "validation/images" / image.name
    saved_again(image, again)
    shutil.copy(label_of(image), label_of(again))
    return {**named(root, again, "name-twice"), "validation/images": "count"}


@form("folder", "folder: photograph twice in a split")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, "images/train/*.jpg", rng)
    shutil.copy(image, image.with_stem("99"))
    shutil.copy(root / "labels/train" / f"{image.stem}.png", root / "labels/train/99.png")
    return {"images/train/99.jpg": "duplicate"}


@form("folder", "folder: two photographs of one name")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, "images/train/*.png", rng)
    saved_again(image, image.with_suffix(".jpg"))
    return named(root, image, "same-name")


@form("folder", "folder: class that nothing shows")
def _(root: Path, rng: RandomState) -> Manifest:
    value = rng.choice([0, 1, 3])  # 2 is ignored
    for path in (root / "labels/train").iterdir():
        rewritten(path, lambda image: image.point([2 if stored == value else stored for stored in range(256)]))
    return {"labels/train": "unseen-class"}


@form("folder", "folder: label under another suffix")
def _(root: Path, rng: RandomState) -> Manifest:
    label = pick(root, LABELS["folder"], rng)
    image = next((root / "images/train").glob(f"{label.stem}.*"))
    return {**named(root, label.rename(label.with_suffix(".bmp")), "stray"), **named(root, image, "missing-label")}


@form("folder", "folder: images too deep")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, IMAGES["folder"], rng)
    deep = moved(image, image.parent / "camera" / "monday" / image.name)
    return {**named(root, deep, "stray"), f"labels/train/{image.stem}.png": "missing-image"}


def left_over(layout: str, what: str, pattern: str, prefix: str, suffix: str) -> None:
    @form(layout, f"{layout}: {what}")
    def damage(root: Path, rng: RandomState) -> Manifest:
        path = pick(root, pattern, rng)
        left = path.with_name(f"{prefix}{path.name}{suffix}")
        left.write_bytes(rng.bytes(40))
        return named(root, left, "stray")


left_over("vistas", "what macOS leaves beside an image", IMAGES["vistas"], "._", "")
left_over("cityscapes", "what macOS leaves beside a label", LABELS["cityscapes"], "._", "")
left_over("vistas", "interrupted unpacking", LABELS["vistas"], "", ".part")
left_over("cityscapes", "interrupted copy", IMAGES["cityscapes"], ".", ".Xk3a9Q")
left_over("cityscapes", "backup beside a label", LABELS["cityscapes"], "old_", "~")


@form("cityscapes", "cityscapes: image and label made smaller")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, IMAGES["cityscapes"], rng)
    shrink(image)
    shrink(next(root.glob(f"gtFine/*/*/{stem_of(image)}_gtFine_labelIds.png")))
    return named(root, image, "image-size")


@form("cityscapes", "cityscapes: town of the validation among those of training")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, "leftImg8bit/val/*/*.png", rng)
    for path in root.glob(f"gtFine/val/*/{stem_of(image)}_*"):
        moved(path, root / "gtFine/train" / path.parent.name / path.name)
    image = moved(image, root / "leftImg8bit/train" / image.parent.name / image.name)
    return {**named(root, image, "wrong-split"), "leftImg8bit/train": "count", "leftImg8bit/val": "count"}


@form("cityscapes", "cityscapes: image in the folder of another town")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, IMAGES["cityscapes"], rng)
    return named(root, moved(image, image.parents[1] / "bochum" / image.name), "naming")


@form("cityscapes", "cityscapes: pair of another name")
def _(root: Path, rng: RandomState) -> Manifest:
    image = pick(root, IMAGES["cityscapes"], rng)
    for path in root.glob(f"gtFine/*/*/{stem_of(image)}_*"):
        path.rename(path.with_name(path.name.replace(stem_of(image), "mine")))
    return named(root, image.rename(image.with_name("mine_leftImg8bit.png")), "naming")


@form("cityscapes", "cityscapes: training ids for label ids")
def _(root: Path, rng: RandomState) -> Manifest:
    path = pick(root, LABELS["cityscapes"], rng)
    rewritten(path, lambda image: image.point(CITYSCAPES.id_to_train_id().tolist()))
    return named(root, path, "unknown-value")


@form("cityscapes", "cityscapes: instance ids for label ids")
def _(root: Path, rng: RandomState) -> Manifest:
    path = pick(root, LABELS["cityscapes"], rng)
    shutil.copy(path.with_name(path.name.replace("labelIds", "instanceIds")), path)
    return named(root, path, "label-mode")


@form("cityscapes-extra", "cityscapes-extra: coarse label of half the size", labels="coarse", min_probability=0.0)
def _(root: Path, rng: RandomState) -> Manifest:
    path = pick(root, "gtCoarse/train_extra/augsburg/*_labelIds.png", rng)
    shrink(path)
    return named(root, path, "wrong-size")


def probability(what: str, change: Callable[[Path], None]) -> None:
    @form("cityscapes-extra", f"cityscapes-extra: {what}")
    def damage(root: Path, rng: RandomState) -> Manifest:
        path = pick(root, "refinement_final/train_extra/augsburg/*_prob.png", rng)
        change(path)
        return named(root, path, "probability")


probability("probability gone", Path.unlink)
probability("probability of half the size", shrink)
probability("probability without content", lambda path: path.write_bytes(b""))
probability("probability of 16 bits", to_sixteen_bits)


def stem_of(image: Path) -> str:
    return image.stem.removesuffix("_leftImg8bit")


def main(out: Path) -> None:
    """Write the corpus: a folder for each form of damage, and a manifest beside it."""
    intact = {layout: make_intact(layout, out / "intact" / layout) for layout in LAYOUTS}
    for number, (name, broken) in enumerate(FORMS.items(), 1):
        folder = out / f"{number:02}"
        manifest = break_folder(name, intact[broken.layout], folder)
        options = {"options": broken.options, "findings": manifest}
        folder.with_suffix(".json").write_text(json.dumps({"damage": name, **options}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
