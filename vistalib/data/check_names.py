"""The doctor's look at folders and names, before any file is opened: what is there, what pairs, what is there twice."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vistalib.data.check_files import Sample
from vistalib.data.cityscapes import BAD_IMAGES
from vistalib.data.findings import Finding
from vistalib.data.layout import Kind, Layout, Part, Place, Reading, no_folder
from vistalib.data.licences import DRAWN
from vistalib.data.published import SPLIT_OF, UNLABELLED
from vistalib.files import sha256


@dataclass(frozen=True)
class Found:
    """The files of one split by the names of the samples; `labels_at` is None where labels are not handed out.

    `there` is False where a folder is missing or closed. `reading` is None where nobody knows the classes.
    """

    split: str
    images_at: Place
    labels_at: Place | None
    images: Mapping[str, list[Path]]
    labels: Mapping[str, list[Path]]
    there: bool = True
    reading: Reading | None = None
    with_probability: bool = False

    @property
    def pairs(self) -> int:
        return len(self.images.keys() & self.labels.keys())

    def samples(self) -> Iterator[Sample]:
        """Every image and every label that there is, together where they pair."""
        for name in sorted(self.images.keys() | self.labels.keys()):
            image, label = (next(iter(files.get(name, [])), None) for files in (self.images, self.labels))
            yield Sample(image, label, self.reading, self.with_probability)

    def paths(self) -> list[Path]:
        return [path for sample in self.samples() for path in (sample.image, sample.label) if path is not None]


def find(part: Part, reading: Reading | None, *, with_probability: bool) -> Found:
    """The files of a split, less the images that nobody uses."""
    images, labels = (
        {name: paths for name, paths in place.files().items() if name not in part.left_out}
        for place in (part.images, part.labels)
    )
    there = all(os.access(place.folder, os.R_OK | os.X_OK) for place in (part.images, part.labels))
    return Found(part.split, part.images, part.labels, images, labels, there, reading, with_probability)


def find_unlabelled(kind: Kind, layout: Layout) -> list[Found]:
    """The images of the benchmark, whose labels are not handed out, where they are there."""
    if kind not in UNLABELLED:
        return []
    split, below = UNLABELLED[kind]
    place = replace(layout.parts[0].images, below=below)
    return [Found(split, place, None, place.files(), {})] if place.folder.is_dir() else []


def places(layout: Layout) -> list[Place]:
    """All the folders of a layout."""
    return [place for part in layout.parts for place in (part.images, part.labels)]


def missing_folders(layout: Layout) -> list[Finding]:
    """The folders of the layout that are not there; only the first where none is, since then the root is another."""
    absent = [place for place in places(layout) if not place.folder.is_dir()]
    return [
        Finding.of("missing-folder", place.folder, no_folder(place, layout.holds))
        for place in (absent[:1] if len(absent) == len(places(layout)) else absent)
    ]


def name_findings(kind: Kind, found: Found) -> Iterator[Finding]:
    """Names that two files share, images and labels without the other, and names that the layout does not have."""
    for name, paths in (*found.images.items(), *found.labels.items()):
        for path in paths[1:]:
            yield Finding("same-name", path, f"shares the name {name} with {paths[0]}", "remove or rename one of the two")
    if found.there and not found.images:
        repair = "unpack the dataset there, or choose another split"
        yield Finding("no-images", found.images_at.folder, f"has no {' or '.join(found.images_at.suffixes)} file", repair)
    if found.there and found.labels_at is not None:
        for name in sorted(found.images.keys() - found.labels.keys()):
            repair = f"put the label into {found.labels_at.folder}, or take the image away"
            yield Finding("missing-label", found.images[name][0], "has no label", repair)
        for name in sorted(found.labels.keys() - found.images.keys()):
            repair = f"put the image into {found.images_at.folder}, or take the label away"
            yield Finding("missing-image", found.labels[name][0], "has no image, so that it is not used", repair)
    if kind == "cityscapes":
        for name, paths in found.images.items():
            yield from _town_findings(found.split, name, paths[0])


def count_findings(found: Found, expected: int | None) -> Iterator[Finding]:
    """Whether a split has as many images as it should; sources differ on whether they count the bad image of train_extra."""
    images, uncertain = len(found.images), len(BAD_IMAGES) if found.split == "train_extra" else 0
    if expected is None or not images or expected <= images <= expected + uncertain:
        return
    drawn = (found.images_at.root / DRAWN).is_file()
    yield Finding(
        "count",
        found.images_at.folder,
        f"has {images:,} images, {expected:,} were {'drawn' if drawn else 'published'}",
        "draw the streets again" if drawn else "unpack all archives (what is there is kept), unless it is a choice of yours",
    )


def twice(kind: Kind, splits: Sequence[Found]) -> Iterator[Finding]:
    """Images that are there twice by their bytes, or by their names in two splits where names are the dataset's own.

    Only files of equal size are read.
    """
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for found in splits:
        for path in (path for paths in found.images.values() for path in paths if os.path.isfile(path)):
            by_size[path.stat().st_size].append((found.split, path))
    copies: set[Path] = set()
    for size in sorted(by_size.keys() - {0}):
        firsts: dict[str, tuple[str, Path]] = {}
        for split, path in by_size[size] if len(by_size[size]) > 1 else []:
            try:
                first_split, first = firsts.setdefault(sha256(path), (split, path))
            except OSError:  # the look at single files says so
                continue
            if first != path:
                copies.add(path)
                yield _copy(path, first, across=split != first_split)
    where: dict[str, Path] = {}
    for found in splits if kind != "folder" else []:  # one's own names may well begin anew in every split
        for name, paths in found.images.items():
            if where.setdefault(name, paths[0]) != paths[0] and paths[0] not in copies:
                repair = "see whether they show the same, and remove one of the two"
                yield Finding("name-twice", paths[0], f"has the name of {where[name]}", repair)


def _copy(path: Path, first: Path, *, across: bool) -> Finding:
    follows = "what is scored was trained on" if across else "it counts twice"
    return Finding("duplicate", path, f"is {first} again", f"remove one of the two, or {follows}")


def _town_findings(split: str, name: str, path: Path) -> Iterator[Finding]:
    """Names of Cityscapes begin with the town, which is the folder and belongs to one split."""
    matched = re.fullmatch(r"(.+)_\d{6}_\d{6}", name)
    if matched is None:
        form = "TOWN_SEQUENCE_FRAME_leftImg8bit.png, as in ulm_000000_000019_leftImg8bit.png"
        yield Finding("naming", path, "is not named as Cityscapes names images", f"name it {form}")
        return
    town = matched[1]
    belongs = SPLIT_OF.get(town, "train_extra")
    if belongs != split:
        repair = f"move it and its label to {belongs}, or what is scored may have been trained on"
        yield Finding("wrong-split", path, f"is of {town}, a town of {belongs}", repair)
    elif path.parent.name != town:
        yield Finding("naming", path, f"is of {town} and lies in {path.parent.name}", f"move it into the folder {town}")
