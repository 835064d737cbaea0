"""What the three datasets share: pairs of an image and a label file, checked when the dataset is made, decoded when it is read.

Layout: an image is uint8 (H, W, 3) RGB; a label is uint8 (H, W) in training ids 0..C-1, with 255 for ignored pixels.
Letters: H, W height and width; C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from vistalib.data.decode import Image, Label, map_label, read_image, read_label, read_probability
from vistalib.data.labels import IGNORE_INDEX
from vistalib.data.mapping import LabelMap
from vistalib.data.windows import Pixels, open_image, open_label
from vistalib.progress import progress

if TYPE_CHECKING:
    import datasets


class Samples(Protocol):
    """What the loader asks of a dataset."""

    def __len__(self) -> int: ...

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """Image (H, W, 3) RGB and label (H, W) of sample `i`, to be asked for windows."""
        ...


@dataclass(frozen=True, eq=False)  # an array has no equality of its own: a reading equals itself
class Reading:
    """How the values that label files store become training ids; the pairs of a dataset share one, or a few.

    `values` names the stored values, None for one that is no class; `names` is the source of these names. `table` (256,):
    stored value -> training id, `UNKNOWN` for a value without a name.
    """

    table: npt.NDArray[np.uint8]
    values: Mapping[int, str | None]
    names: str


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


class StreetDataset:
    """A list of pairs of one set of classes; its subclasses know the folder layouts.

    Pixels of an automatic label that are less probable than `min_probability` are ignored.
    """

    ignore_index = IGNORE_INDEX

    def __init__(
        self,
        pairs: list[Pair],
        *,
        classes: tuple[str, ...],
        colors: npt.NDArray[np.uint8],
        min_probability: float = 0.0,
    ) -> None:
        assert colors.shape == (len(classes), 3)
        self.pairs = pairs
        self.classes = classes
        self.colors = colors  # (C, 3) RGB
        self.min_probability = min_probability

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, i: int) -> str:
        """The stem that names sample `i`, the same on every machine."""
        return self.pairs[i].name

    def image_path(self, i: int) -> Path:
        """The file of image `i`."""
        return self.pairs[i].image

    def label_path(self, i: int) -> Path:
        """The file of label `i`, in the dataset's own values."""
        return self.pairs[i].label

    def read_values(self, i: int) -> Label:
        """The label of sample `i` in the values that its file stores, (H, W), less the pixels that are too unsure."""
        pair = self.pairs[i]
        values = read_label(pair.label)
        if pair.probability is not None:
            probability = read_probability(pair.probability, values.shape)
            unsure = np.arange(256) / 255 < self.min_probability
            values = np.where(unsure[probability], np.uint8(IGNORE_INDEX), values)
        return values

    def read_label(self, i: int) -> Label:
        """The label of sample `i`, (H, W) in training ids; `ValueError` names a damaged file or one with unnamed values."""
        pair = self.pairs[i]
        return map_label(self.read_values(i), pair.reading.table, pair.label, pair.reading.names)

    def read(self, i: int) -> tuple[Image, Label]:
        """Image (H, W, 3) RGB and label (H, W) in training ids of sample `i`; `ValueError` names the file that is at fault."""
        image, label = read_image(self.image_path(i)), self.read_label(i)
        self._check_sizes(i, image, label)
        return image, label

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """What `read` gives, but decoded and mapped only where a window is asked for; see `vistalib.data.windows`."""
        pair = self.pairs[i]
        image = open_image(self.image_path(i))
        label = open_label(self.read_values(i), pair.reading.table, pair.label, pair.reading.names)
        self._check_sizes(i, image, label)
        return image, label

    def _check_sizes(self, i: int, image: Pixels, label: Pixels) -> None:
        if image.shape[:2] != label.shape:
            raise ValueError(
                f"{self.label_path(i)} must have the size of its image, got a label of {label.shape[1]}x{label.shape[0]} "
                f"for an image of {image.shape[1]}x{image.shape[0]}; export the label again at the image's size"
            )

    def index(self) -> "datasets.Dataset":
        """Paths, sizes and class histograms as a `datasets.Dataset`, computed once and cached (see `vistalib.data.index`)."""
        from vistalib.data.index import index

        return index(self)


class InMemory(StreetDataset):
    """Another dataset, decoded once and kept: for small datasets that a training loop reads many times over.

    Takes 4 bytes a pixel: 200 MB for 100 images of 1024 x 512.
    """

    def __init__(self, dataset: StreetDataset) -> None:
        super().__init__(dataset.pairs, classes=dataset.classes, colors=dataset.colors, min_probability=dataset.min_probability)
        self._samples = [dataset.read(i) for i in progress(range(len(dataset)), "decoding")]

    def read(self, i: int) -> tuple[Image, Label]:
        """Sample `i` as it was decoded; do not write into the arrays."""
        return self._samples[i]

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """The same."""
        return self._samples[i]


def reading(chosen: LabelMap, values: Mapping[int, str | None], names: str) -> Reading:
    """How labels are read under the map `chosen`, whose classes `values` and `names` are those of `LabelMap.table`."""
    return Reading(chosen.table(values, names), values, names)


def split_names(split: str, known: tuple[str, ...], what: str) -> list[str]:
    """The parts of a split such as "train+val", each one of `known`; `what` begins the error message."""
    parts = split.split("+")
    if set(parts) - set(known) or len(set(parts)) < len(parts):
        raise ValueError(
            f"{what} must be one of {', '.join(known)}; got {split!r}; several are joined as {'+'.join(known[:2])}"
        )
    return parts


def need_folder(root: Path, relative: str, layout: str) -> Path:
    """`root / relative`, which must be a folder; `layout` completes "give as root the folder that holds ..."."""
    folder = root / relative
    if folder.is_dir():
        return folder
    there = next((path for path in folder.parents if path.is_dir()), Path())
    if there in root.parents:
        got = f"no folder {root}"
    else:
        inside = sorted(path.name for path in there.iterdir())
        got = f"{there} with {', '.join(inside[:8]) + (', ...' if len(inside) > 8 else '') or 'nothing in it'}"
    near = [root.parent, *sorted(root.glob("*/"))]
    better = next((path for path in near if (path / relative).is_dir()), None)
    raise ValueError(
        f"expected the folder {folder}, got {got}; check the split and give as root the folder that holds {layout}"
        + (f" (perhaps {better})" if better else "")
    )


def files_by_stem(folder: Path, suffixes: tuple[str, ...], *, drop: str = "") -> dict[str, Path]:
    """The files in `folder` (and one level below) with one of `suffixes`, in order, by their stems less the ending `drop`."""
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("*.*"), *folder.glob("*/*.*")]):
        if path.suffix.lower() not in suffixes or not path.stem.endswith(drop) or path.name.startswith("."):
            continue
        stem = path.stem.removesuffix(drop)
        if stem in found:
            raise ValueError(f"every sample must have a name of its own, got {found[stem]} and {path}; remove or rename one")
        found[stem] = path
    return found


def pair_up(
    images: dict[str, Path], labels: dict[str, Path], *, reading: Reading, image_folder: Path, label_folder: Path
) -> list[Pair]:
    """The pairs in order of name; `ValueError` when there are none or when an image has no label."""
    if not images:
        raise ValueError(f"expected images in {image_folder}, got none; unpack the dataset there or choose another split")
    bare = [stem for stem in images if stem not in labels]
    if bare:
        raise ValueError(
            f"every image must have a label, got {len(bare)} of {len(images)} without one, first {images[bare[0]]}; "
            f"put its label into {label_folder} or take the image away"
        )
    return [Pair(stem, image, labels[stem], reading) for stem, image in images.items()]
