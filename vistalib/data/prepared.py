"""Datasets prepared for speed: images decoded once, labels mapped, both at no more than 2048 x 1024, side by side on disk.

Layout of the folder, with i the number of a pair in six digits: `images/i.npy` uint8 (H, W, 3) RGB and `labels/i.npy` uint8
(H, W) for "raw", mapped into memory, so that a sample reads the pages under its window; `images/i.jpg` and `labels/i.png` for
"jpeg". `cache.json` says what it was made of. It is written first, as unfinished, and every file appears whole or not at all,
so that a run that was stopped goes on where it was. A raw copy of images that fit the box gives the bytes that the files give.
Larger images are resized into it, and JPEG loses a little: training then sees other pixels.
Letters: H, W height and width.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from vistalib.data.augment import fitted_size, resize, resize_label
from vistalib.data.dataset import StreetDataset
from vistalib.data.decode import Image, Label, read_image, read_label
from vistalib.data.index import stamp
from vistalib.data.windows import Pixels
from vistalib.files import read_json, replacing, write_json
from vistalib.progress import progress

Kind = Literal["raw", "jpeg"]
BOX = (2048, 1024)  # width, height; turned for an upright image
QUALITY = 95
MANIFEST = "cache.json"
ENDINGS: dict[str, tuple[str, str]] = {"raw": (".npy", ".npy"), "jpeg": (".jpg", ".png")}  # of images, of labels
PROBE = 8  # pairs that are written to foretell the rest
SPARE = 1.05  # of the bytes foretold must be free
Source = tuple[str, int, int, int, int]  # name, image's bytes and time, label's bytes and time


class Prepared(StreetDataset):
    """`dataset` as it was prepared in `folder`; `exact` is whether samples have the bytes that the files give.

    `ValueError` for a folder that is none, is unfinished, or was made of other files, another map or another threshold.
    """

    def __init__(self, dataset: StreetDataset, folder: str | Path) -> None:
        super().__init__(dataset.pairs, classes=dataset.classes, colors=dataset.colors, min_probability=dataset.min_probability)
        self.folder = Path(folder)
        manifest = read_json(self.folder / MANIFEST)
        _check_settings(manifest, dataset, self.folder)
        if not manifest["finished"]:
            raise ValueError(f"{self.folder} must be finished, got one that was stopped; call `vistalib data prepare` again")
        self.kind: Kind = manifest["kind"]
        self.exact: bool = manifest["exact"]
        numbers = {tuple(source): number for number, source in enumerate(manifest["sources"])}
        names = {source[0] for source in manifest["sources"]}
        self._numbers: list[int] = []
        for i in range(len(dataset)):
            source = _source(dataset, i)
            if source not in numbers:
                raise ValueError(
                    f"{self.folder} must hold every image of the dataset as it is, got {dataset.image_path(i)}, which "
                    + ("has changed since" if source[0] in names else "is not there")
                    + "; prepare it again, in a new folder"
                )
            self._numbers.append(numbers[source])

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """Sample `i`: windows of files mapped into memory, or the decoded arrays."""
        image, label = _places(self.folder, self.kind, self._numbers[i])
        if self.kind == "jpeg":
            return read_image(image), read_label(label)
        return map_pixels(image), map_pixels(label)

    def read(self, i: int) -> tuple[Image, Label]:
        """Sample `i` as it was prepared."""
        image, label = self.open(i)
        everything = slice(None), slice(None)
        return image[everything], label[everything]


@dataclass(frozen=True)
class Plan:
    """What is still to be written, foretold from a probe: bytes, and seconds at the probe's speed."""

    images: int
    total: int
    bytes: int
    seconds: float
    exact: bool


def prepare(dataset: StreetDataset, folder: str | Path, kind: Kind, *, foretell: Callable[[Plan], None] | None = None) -> Plan:
    """Prepare `dataset` in `folder`, or go on there, and return what was foretold; `foretell` is told before it begins.

    Raises `ValueError` for a folder with anything else in it, for damaged files by name, and when the disk has too little room.
    """
    folder = Path(folder)
    manifest = _begin(dataset, folder, kind)
    for part in ("images", "labels"):
        (folder / part).mkdir(exist_ok=True)
        for left in (folder / part).glob(".*"):  # by a run that was killed
            left.unlink()
    waiting = [i for i in range(len(dataset)) if not all(path.exists() for path in _places(folder, kind, i))]
    probe = waiting[:: max(1, len(waiting) // PROBE)][:PROBE]
    rest = [i for i in waiting if i not in set(probe)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # decoding leaves the interpreter to others

        def write(numbers: Iterable[int]) -> Iterable[int]:
            return pool.map(lambda i: _write(dataset, i, folder, kind), numbers)

        _need_room(folder, min(len(waiting), PROBE) * BOX[0] * BOX[1] * 4)
        began = time.perf_counter()
        written = list(write(probe))
        share = len(rest) / max(1, len(probe))
        plan = Plan(
            len(rest), len(dataset), round(sum(written) * share), (time.perf_counter() - began) * share, manifest["exact"]
        )
        if foretell is not None:
            foretell(plan)
        _need_room(folder, plan.bytes)
        try:
            for _ in progress(write(rest), f"preparing {kind}", total=len(rest)) if rest else ():
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_json(folder / MANIFEST, manifest | {"finished": True})
    return plan


def _begin(dataset: StreetDataset, folder: Path, kind: Kind) -> dict[str, Any]:
    """The manifest, written if there is none yet; a `ValueError` where another one lies, or other files."""
    sources = [_source(dataset, i) for i in range(len(dataset))]
    if (folder / MANIFEST).exists():
        manifest: dict[str, Any] = read_json(folder / MANIFEST)
        _check_settings(manifest, dataset, folder)
        if manifest["kind"] != kind or list(map(tuple, manifest["sources"])) != sources:
            changed = [a[0] for a, b in zip(sources, manifest["sources"], strict=False) if a != tuple(b)]
            raise ValueError(
                f"{folder} must be prepared of the same files in the same form, got {manifest['kind']} of "
                f"{len(manifest['sources'])} images for {kind} of {len(sources)}"
                + (f", first other one {changed[0]}" if changed else "")
                + "; choose a new folder, or delete this one"
            )
        return manifest
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"a dataset must be prepared in a new or empty folder, got {folder} with other files; choose another")
    fits = all(_fits(dataset.image_path(i)) for i in progress(range(len(dataset)), "looking at sizes"))
    manifest = _settings(dataset) | {"kind": kind, "exact": kind == "raw" and fits, "finished": False, "sources": sources}
    write_json(folder / MANIFEST, manifest)
    return manifest


def _settings(dataset: StreetDataset) -> dict[str, Any]:
    tables = {str(pair.reading.table.tobytes().hex()) for pair in dataset.pairs}
    return {
        "box": list(BOX),
        "quality": QUALITY,
        "classes": list(dataset.classes),
        "min_probability": dataset.min_probability,
        "tables": sorted(tables),
    }


def _check_settings(manifest: dict[str, Any], dataset: StreetDataset, folder: Path) -> None:
    wanted = _settings(dataset)
    found = {name: manifest.get(name) for name in wanted}
    found["tables"] = [
        table for table in wanted["tables"] if table in manifest["tables"]
    ]  # a part of the splits may be asked for
    other = [name for name, value in wanted.items() if found[name] != value]
    if other:
        raise ValueError(
            f"{folder} must be prepared with the map and the settings that are asked for, got other {', '.join(other)}; "
            "prepare the dataset again, in a new folder"
        )


def _source(dataset: StreetDataset, i: int) -> Source:
    return (dataset.name(i), *stamp(dataset.image_path(i)), *stamp(dataset.label_path(i)))


def _fits(path: Path) -> bool:
    try:
        with PillowImage.open(path) as image:
            size = image.size
    except OSError:
        return True  # which is told when the file is read
    return max(size) <= max(BOX) and min(size) <= min(BOX)


def _places(folder: Path, kind: Kind, number: int) -> tuple[Path, Path]:
    image, label = ENDINGS[kind]
    return folder / "images" / f"{number:06}{image}", folder / "labels" / f"{number:06}{label}"


def _write(dataset: StreetDataset, i: int, folder: Path, kind: Kind) -> int:
    """Write pair `i`; the bytes of its files."""
    image, label = dataset.read(i)
    if fitted_size(label.shape[0], label.shape[1], BOX)[0] < label.shape[1]:
        image, label = resize(image, BOX), resize_label(label, BOX)
    places = _places(folder, kind, i)
    for place, pixels in zip(places, (image, label), strict=True):
        with replacing(place) as beside:
            if kind == "raw":
                np.save(beside, pixels)
            elif pixels.ndim == 3:
                PillowImage.fromarray(pixels).save(beside, quality=QUALITY)
            else:  # as palette indices, which need no filter
                indices = PillowImage.fromarray(pixels)
                indices.putpalette(bytes(range(256)) * 3)
                indices.save(beside)
    return sum(place.stat().st_size for place in places)


def _need_room(folder: Path, bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if bytes * SPARE > free:
        raise ValueError(
            f"{folder} must have room for {bytes / 1e9:.1f} GB more, got {free / 1e9:.1f} GB free; make room, or choose "
            "another disk or --cache jpeg, and call it again"
        )


def map_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """The array that lies in a file, of which what is looked at is read."""
    return np.asarray(np.load(path, mmap_mode="r"))
