"""Making a `Folder` dataset of labels that others wrote: colour PNGs, and COCO's polygons, masks and panoptic PNGs.

Images are linked into the new folder where the disk allows it and copied where not; labels are written as 8-bit PNGs of class
indices. All is checked, image for image, before any of it is in its place: an import is whole or leaves nothing.
Letters: H, W height and width; C classes.
"""

import colorsys
import os
import shutil
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from vistalib.data.decode import UNKNOWN, Image, Label, read_image, unreadable, wrong_size
from vistalib.data.folder import read_classes
from vistalib.data.labels import IGNORE_INDEX, Color
from vistalib.data.layout import files_by_stem
from vistalib.extras import missing
from vistalib.files import read_json, replacing, together, write_json, writing
from vistalib.progress import progress

IMAGES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Imported:
    """What an import made: the folder, how many images it took, and how many it left out for want of a label."""

    root: Path
    images: int
    left_out: int


def import_colors(images: str | Path, labels: str | Path, classes: str | Path, root: str | Path, *, split: str) -> Imported:
    """Make `root` a `Folder` dataset (or give it one more split) of photographs and label pictures in colours.

    `images` and `labels` are folders with files of the same names (a `_L`, `_color` or `_labelColors` at the end of a label's
    is dropped). `classes` is a `classes.json` as `Folder` has it: the name and the colour of every class. Raises `ValueError`
    for a colour that no class has, for what cannot be read and for a label of another size than its image, by the file.
    """
    root, config = Path(root), Path(classes)
    entries, ignore = read_classes(config)
    table = _color_table([color for _, color in entries], config)
    pictures = files_by_stem(Path(images), IMAGES)
    painted = _label_pictures(Path(labels))
    chosen = [name for name in pictures if name in painted]
    _check_readable([*_dead_links(Path(images)), *(pictures[name] for name in chosen)], "image")
    _check_readable([*_dead_links(Path(labels)), *(painted[name] for name in chosen)], "label")
    if not chosen:
        raise ValueError(
            f"images and labels must have files of the same names, got {len(pictures)} images in {images} and {len(painted)} "
            f"PNGs in {labels}, no pair among them; check the folders"
        )
    with together(root, split) as beside:
        _claim(root, beside, entries, ignore)
        for name in progress(chosen, "importing"):
            label = _from_colors(read_image(painted[name]), table, painted[name], config)
            _write(beside, split, pictures[name], name, label, str(painted[name]))
    return Imported(root, len(chosen), len(pictures) - len(chosen))


def import_coco(
    annotations: str | Path, images: str | Path, root: str | Path, *, split: str, panoptic: str | Path | None = None
) -> Imported:
    """Make `root` a `Folder` dataset (or give it one more split) of a COCO annotation file and its folder of images.

    Polygons and run-length masks of an instance file are painted from the largest to the smallest, so that what lies on top
    stays visible; for a panoptic file, `panoptic` is the folder of its PNGs. Classes are the categories by rising id; pixels of
    none are ignored, and images without any annotation are left out. Raises `ValueError` for an annotation that does not fit,
    by its id, for what cannot be read and for another size than the image's, and `ModuleNotFoundError` without pycocotools
    where masks need it.
    """
    root, path = Path(root), Path(annotations)
    content = read_json(path)
    try:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        pictures = {picture["id"]: picture for picture in content["images"]}
        stems = Counter(Path(picture["file_name"]).stem for picture in pictures.values())
        found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            found[annotation["image_id"]].append(annotation)
        index = {category["id"]: value for value, category in enumerate(categories)}
        entries = [(str(category["name"]), _category_color(value, category)) for value, category in enumerate(categories)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must be a COCO file with images, annotations and categories, got something else ({error!r}); give the "
            "JSON file of an instance or panoptic set"
        ) from None
    if not 0 < len(entries) < UNKNOWN or len({name for name, _ in entries}) < len(entries):
        raise ValueError(f"{path} must have 1 to {UNKNOWN - 1} categories of different names, got {len(entries)}")
    if panoptic is None and any("segments_info" in annotation for parts in found.values() for annotation in parts):
        raise ValueError(f"{path} is a panoptic file; give the folder of its PNGs as panoptic")
    if twice := next((stem for stem, times in stems.items() if times > 1), None):
        raise ValueError(f"every image must have a name of its own, got {twice!r} twice in {path}; rename one")
    if strange := found.keys() - pictures.keys():
        raise ValueError(f"{path} has annotations of images that it does not list, the first {min(strange)!r}; add the image")
    sources = {number: Path(images) / picture["file_name"] for number, picture in pictures.items() if number in found}
    if absent := [source for source in sources.values() if not os.path.lexists(source)]:
        raise ValueError(
            f"every label must have its image, got no file {absent[0]}"
            f"{f' and {len(absent) - 1} others' if len(absent) > 1 else ''}; check the folder of the images"
        )
    _check_readable(sources.values(), "image")
    with together(root, split) as beside:
        _claim(root, beside, entries, None)
        for number, source in progress(sources.items(), "importing"):
            what = f"{path}, image {number!r}"
            try:
                if panoptic is None:
                    label = _from_masks(found[number], pictures[number], index, path)
                else:
                    painted = Path(panoptic) / found[number][0]["file_name"]  # panoptic files have one annotation an image
                    what, label = str(painted), _from_panoptic(found[number][0], painted, index, path)
            except KeyError as error:
                raise ValueError(f"{what}: it or its annotation lacks {error}; mend or remove it") from None
            _write(beside, split, source, source.stem, label, what)
    return Imported(root, len(sources), len(pictures) - len(sources))


def _color_table(colors: list[Color], config: Path) -> npt.NDArray[np.uint8]:
    """(2**24,) from a colour's number to its class, `UNKNOWN` where there is none: one look-up, however many the classes."""
    table = np.full(1 << 24, UNKNOWN, np.uint8)
    for value, (red, green, blue) in enumerate(colors):
        number = red << 16 | green << 8 | blue
        if table[number] != UNKNOWN:
            raise ValueError(f"{config} must give every class a colour of its own, got {(red, green, blue)} twice; change one")
        table[number] = value
    return table


def _from_colors(picture: Image, table: npt.NDArray[np.uint8], path: Path, config: Path) -> Label:
    numbers = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)  # (H, W)
    label = table[numbers]
    if (strange := label == UNKNOWN).any():
        some = [tuple(int(number) >> shift & 255 for shift in (16, 8, 0)) for number in np.unique(numbers[strange])[:3]]
        raise ValueError(
            f"{path} must hold only the colours of {config}, got {', '.join(map(str, some))}"
            f"{' and others' if len(np.unique(numbers[strange])) > 3 else ''} at {strange.sum()} pixels; add the classes, or "
            "write the labels again without smoothing"
        )
    return label


def _label_pictures(folder: Path) -> dict[str, Path]:
    """The PNGs of a folder by the stem of their image."""
    found = files_by_stem(folder, (".png",))
    for ending in ("_labelColors", "_color", "_L"):
        if found and all(stem.endswith(ending) for stem in found):
            return {stem.removesuffix(ending): path for stem, path in found.items()}
    return found


def _from_masks(annotations: list[dict[str, Any]], picture: dict[str, Any], index: dict[Any, int], path: Path) -> Label:
    height, width = int(picture["height"]), int(picture["width"])
    label = np.full((height, width), IGNORE_INDEX, np.uint8)
    masks = [(_mask(annotation, height, width, path), annotation) for annotation in annotations]
    for mask, annotation in sorted(masks, key=lambda pair: -int(pair[0].sum())):  # stable: equal areas in the file's order
        label[mask] = _category(annotation["category_id"], annotation, index, path)
    return label


def _mask(annotation: dict[str, Any], height: int, width: int, path: Path) -> npt.NDArray[np.bool_]:
    """The pixels (H, W) of one annotation: polygons, or run lengths."""
    shape = annotation.get("segmentation")
    try:
        from pycocotools import mask as coco
    except ModuleNotFoundError as error:
        raise missing("pycocotools", "read COCO's polygons and masks") from error
    try:
        packed = isinstance(shape, dict) and not isinstance(shape["counts"], list)
        with warnings.catch_warnings():  # its arrays do not know numpy 2's copy=
            warnings.simplefilter("ignore", DeprecationWarning)
            mask = coco.decode(shape if packed else coco.frPyObjects(shape, height, width))
        pixels = mask.any(2) if mask.ndim == 3 else mask.astype(bool)
        if pixels.shape != (height, width):
            raise ValueError(f"a mask of {pixels.shape[1]}x{pixels.shape[0]}")
    except Exception as error:  # what pycocotools raises is of no class in particular
        raise ValueError(
            f"{path}, annotation {annotation.get('id')}: the segmentation must be polygons or run lengths of {width}x{height} "
            f"pixels, got something else ({type(error).__name__}: {error}); mend or remove it"
        ) from None
    return np.asarray(pixels, np.bool_)


def _from_panoptic(annotation: dict[str, Any], picture: Path, index: dict[Any, int], path: Path) -> Label:
    ids = read_image(picture).astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)  # (H, W)
    known, place = np.unique(ids, return_inverse=True)
    table = np.full(len(known), IGNORE_INDEX, np.uint8)
    segments = {segment["id"]: segment for segment in annotation["segments_info"]}
    for position, number in enumerate(known.tolist()):
        if number in segments:
            table[position] = _category(segments[number]["category_id"], segments[number], index, path)
        elif number:  # 0 is what is not labelled
            raise ValueError(f"{picture} must hold only the segments that {path} lists, got segment {number}; take both anew")
    return table[place].reshape(ids.shape)


def _category(number: Any, annotation: dict[str, Any], index: dict[Any, int], path: Path) -> int:
    if number not in index:
        raise ValueError(f"{path}, annotation {annotation.get('id')}: category {number!r} is not among the categories; add it")
    return index[number]


def _category_color(value: int, category: dict[str, Any]) -> Color:
    """A category's own colour (panoptic files have them), or one as far from its neighbours' as the golden ratio puts it."""
    if "color" in category:
        red, green, blue = map(int, category["color"])
        return red, green, blue
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(value * 0.618034 % 1, 0.75, 0.95 - 0.3 * (value % 2)))
    return red, green, blue


def _dead_links(folder: Path) -> Iterator[Path]:
    """The links in `folder`, and one level below, that lead nowhere; one to a folder would hide all that it should hold."""
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.is_symlink() and not path.exists() and not path.name.startswith("."):
            yield path


def _check_readable(paths: Iterable[Path], what: str) -> None:
    """`ValueError` for files that the system does not hand out: how many, and the first with its repair."""
    failed = []
    for path in sorted(set(paths)):
        try:
            path.open("rb").close()
        except OSError as error:
            failed.append(unreadable(path, what, error))
    if failed:
        more = f"{len(failed)} files cannot be read, and nothing was imported; the first: " if len(failed) > 1 else ""
        raise ValueError(f"{more}{failed[0]}")


def _claim(root: Path, beside: Path, entries: list[tuple[str, Color]], ignore: int | None) -> None:
    """Write `classes.json` for `root` into `beside`, or see that the one that is there says the same."""
    config = root / "classes.json"
    if config.exists():
        if read_classes(config) != (entries, ignore):
            raise ValueError(f"every split of a folder must have the same classes, got others in {config}; take a new folder")
        return
    write_json(
        beside / config.name, {"classes": [{"name": name, "color": list(color)} for name, color in entries], "ignore": ignore}
    )


def _write(root: Path, split: str, source: Path, name: str, label: Label, what: str) -> None:
    """Link or copy an image, and write its label, which came from `what`; `ValueError` where they do not fit."""
    image = read_image(source)
    if image.shape[:2] != label.shape:
        raise wrong_size(what, label.shape, image.shape)
    target = root / "images" / split / f"{name}{source.suffix.lower()}"
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.resolve(), target)  # of a link the file: a link beside another folder may lead nowhere
        except OSError:  # another disk, or one that knows no links
            shutil.copyfile(source, target)
    with replacing(root / "labels" / split / f"{name}.png") as beside:
        PillowImage.fromarray(label).save(beside)
