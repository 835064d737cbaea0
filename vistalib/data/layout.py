"""Where the files of a dataset lie: what the three layouts share, for the datasets, which need whole pairs, and for the doctor.

A layout says which folders it has and how files are named there; whether the folders exist and what they hold is looked up when
it is asked for. A dataset refuses what is wrong, at the first wrong thing; `vistalib.data.check` reports all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from vistalib.data.labels import Color
from vistalib.data.mapping import LabelMap

Kind = Literal["vistas", "cityscapes", "folder"]


@dataclass(frozen=True, eq=False)  # an array has no equality of its own: a reading equals itself
class Reading:
    """How the values that label files store become training ids; the pairs of a dataset share one, or a few.

    `values` names the stored values, None for one that is no class; `names` is the source of these names. `table` (256,):
    stored value -> training id, `UNKNOWN` for a value without a name. `colors` are those of the stored values, where the
    dataset gives its label files a palette.
    """

    table: npt.NDArray[np.uint8]
    values: Mapping[int, str | None]
    names: str
    colors: Mapping[int, Color]


@dataclass(frozen=True)
class Pair:
    """One image file, its label file with the way to read it, and the name that stands for both.

    `probability` is the file that says how sure an automatic label is, where the dataset is to leave out unsure pixels.
    """

    name: str
    image: Path
    label: Path
    reading: Reading
    probability: Path | None = None


@dataclass(frozen=True)
class Place:
    """A folder of files of one kind, named by the sample's name, `ending` and one of `suffixes`.

    `beside` are the endings of files that belong there too and are not read.
    """

    root: Path
    below: str
    suffixes: tuple[str, ...]
    ending: str = ""
    beside: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return self.root / self.below

    def files(self) -> dict[str, list[Path]]:
        """The files that are there by the sample's name, in order; a name should have one."""
        return all_by_stem(self.folder, self.suffixes, drop=self.ending)


@dataclass(frozen=True)
class Part:
    """The images and labels of one split. `left_out` are names of images that are there and not used.

    `automatic` labels have files beside them that say how sure they are (`probability_of`).
    """

    split: str
    images: Place
    labels: Place
    left_out: frozenset[str] = frozenset()
    automatic: bool = False

    def pairs(self, reading: Reading) -> list[Pair]:
        """The pairs in order of name; `ValueError` when there are none, two of a name, or an image without a label."""
        images = {name: _only(paths) for name, paths in self.images.files().items() if name not in self.left_out}
        labels = {name: _only(paths) for name, paths in self.labels.files().items()}
        if not images:
            raise ValueError(
                f"expected images in {self.images.folder}, got none; unpack the dataset there or choose another split"
            )
        bare = [name for name in images if name not in labels]
        if bare:
            raise ValueError(
                f"every image must have a label, got {len(bare)} of {len(images)} without one, first {images[bare[0]]}; "
                f"put its label into {self.labels.folder} or take the image away"
            )
        return [Pair(name, image, labels[name], reading) for name, image in images.items()]


class Layout(Protocol):
    """One dataset on a disk: its splits, and what its labels mean."""

    parts: list[Part]
    holds: str  # what the root folder holds

    @property
    def config(self) -> Path | None:
        """The file that names the classes, where there is one."""
        ...

    def read(self, chosen: str | Path | LabelMap | None) -> tuple[LabelMap, list[Reading]]:
        """The map that is meant, and the reading of each part; `ValueError` where the configuration does not allow it."""
        ...


def need_folders(layout: Layout) -> None:
    """`ValueError` for the first folder of the layout that is not there."""
    for place in (*(part.images for part in layout.parts), *(part.labels for part in layout.parts)):
        if not place.folder.is_dir():
            raise no_folder(place, layout.holds)


def reading(
    chosen: LabelMap, values: Mapping[int, str | None], names: str, colors: Mapping[int, Color] | None = None
) -> Reading:
    """How labels are read under the map `chosen`, whose classes `values` and `names` are those of `LabelMap.table`."""
    return Reading(chosen.table(values, names), values, names, colors or {})


def split_names(split: str, known: tuple[str, ...], what: str) -> list[str]:
    """The parts of a split such as "train+val", each one of `known`; `what` begins the error message."""
    parts = split.split("+")
    if set(parts) - set(known) or len(set(parts)) < len(parts):
        raise ValueError(
            f"{what} must be one of {', '.join(known)}; got {split!r}; several are joined as {'+'.join(known[:2])}"
        )
    return parts


def no_folder(place: Place, holds: str) -> ValueError:
    """The error for a folder that is not there; `holds` completes "give as root the folder that holds ..."."""
    folder, root = place.folder, place.root
    there = next((path for path in folder.parents if path.is_dir()), Path())
    if there in root.parents:
        got = f"no folder {root}"
    else:
        inside = sorted(path.name for path in there.iterdir())
        got = f"{there} with {', '.join(inside[:8]) + (', ...' if len(inside) > 8 else '') or 'nothing in it'}"
    near = [root.parent, *sorted(root.glob("*/"))]
    better = next((path for path in near if (path / place.below).is_dir()), None)
    return ValueError(
        f"expected the folder {folder}, got {got}; check the split and give as root the folder that holds {holds}"
        + (f" (perhaps {better})" if better else "")
    )


def all_by_stem(folder: Path, suffixes: tuple[str, ...], *, drop: str = "") -> dict[str, list[Path]]:
    """The files in `folder` (and one level below) with one of `suffixes`, in order, by their stems less the ending `drop`."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.*"), *folder.glob("*/*.*")]):
        if path.suffix.lower() in suffixes and path.stem.endswith(drop) and not path.name.startswith("."):
            found.setdefault(path.stem.removesuffix(drop), []).append(path)
    return found


def files_by_stem(folder: Path, suffixes: tuple[str, ...], *, drop: str = "") -> dict[str, Path]:
    """`all_by_stem`, where each stem must have one file: `ValueError` names two that share theirs."""
    return {stem: _only(paths) for stem, paths in all_by_stem(folder, suffixes, drop=drop).items()}


def probability_of(label: Path) -> Path:
    """The file that says how sure the automatic label `label` is, from 0 to 255."""
    return label.with_stem(f"{label.stem}_prob")


def _only(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise ValueError(f"every sample must have a name of its own, got {paths[0]} and {paths[1]}; remove or rename one")
    return paths[0]
