"""Cityscapes as it unpacks: label ids mapped to the 19 training ids.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016; automatic labels: Tao et al.,
"Hierarchical Multi-Scale Attention for Semantic Segmentation", 2020.
Layout: `leftImg8bit/{split}/{city}/{name}_leftImg8bit.png`, and below `{split}/{city}/`, with name `{city}_{seq}_{frame}`:
`gtFine/.../{name}_gtFine_labelIds.png`, `gtCoarse/.../{name}_gtCoarse_labelIds.png`, and automatic labels as published,
`refinement_final/.../{name}_leftImg8bit.png` (label ids), or as the released InternImage configuration names them,
`refinement_final/.../{name}_gtFine_labelTrainIds.png` (training ids). A file of the same name that ends with `_prob` says how
sure an automatic label is, from 0 to 255.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vistalib.data.dataset import StreetDataset
from vistalib.data.decode import read_instances
from vistalib.data.labels import CITYSCAPES, IGNORE_INDEX, TRAIN_CLASSES
from vistalib.data.layout import Pair, Part, Place, Reading, need_folders, probability_of, reading, split_names
from vistalib.data.licences import show_licence
from vistalib.data.mapping import LabelMap, choose_map, native_map

SPLITS = {
    "fine": ("train", "val"),
    "coarse": ("train", "val", "train_extra"),
    "auto": ("train", "val", "train_extra"),
}
BAD_IMAGES = frozenset({"troisdorf_000000_000073"})  # in train_extra; its publishers advise leaving it out
LABEL_IDS: dict[int, str | None] = {label.id: label.name for label in CITYSCAPES.labels if label.id >= 0}
TRAIN_IDS: dict[int, str | None] = {**dict(enumerate(TRAIN_CLASSES)), IGNORE_INDEX: None}
# Ending of the label files, what their values mean, and what says so.
NAMED_BY_ID = ("label ids (0 to 33)", LABEL_IDS)
AUTO_ENDINGS = {
    "_leftImg8bit": ("automatic label ids (0 to 33, or 255)", {**LABEL_IDS, IGNORE_INDEX: None}),
    "_gtFine_labelTrainIds": ("training ids (0 to 18, or 255)", TRAIN_IDS),
}
# What lies beside the labels and is not read: other forms of the same truth, and how sure automatic labels are.
BESIDE = (
    *("_labelIds.png", "_labelTrainIds.png", "_instanceIds.png", "_instanceTrainIds.png", "_color.png", "_polygons.json"),
    *("_leftImg8bit.png", "_prob.png"),
)


class CityscapesLayout:
    """The folders of Cityscapes for one split, or for several joined by "+"; None takes all that have such labels."""

    config = None

    def __init__(self, root: Path, split: str | None, labels: str) -> None:
        if labels not in SPLITS:
            raise ValueError(f"labels must be 'auto', 'fine' or 'coarse', got {labels!r}")
        known = SPLITS[labels]
        names = list(known) if split is None else split_names(split, known, f"a split of Cityscapes with {labels} labels")
        found = [self._part(root, name, labels) for name in names]
        self.parts = [part for part, _ in found]
        self._meanings = [meaning for _, meaning in found]
        self.holds = f"leftImg8bit/ and {' and '.join(dict.fromkeys(_kind(name, labels) + '/' for name in names))}"

    def read(self, chosen: str | Path | LabelMap | None) -> tuple[LabelMap, list[Reading]]:
        """The map that is meant, and the reading of each part; `ValueError` for a map of another dataset."""
        map = choose_map(chosen, native=native_map((label.name, label.color, True) for label in CITYSCAPES.trained))
        return map, [reading(map, values, f"the table of Cityscapes' {meaning}") for meaning, values in self._meanings]

    @staticmethod
    def _part(root: Path, split: str, labels: str) -> tuple[Part, tuple[str, dict[int, str | None]]]:
        kind = _kind(split, labels)
        automatic = kind == "refinement_final"
        endings = AUTO_ENDINGS if automatic else {f"_{kind}_labelIds": NAMED_BY_ID}
        places = [Place(root, f"{kind}/{split}", (".png",), ending, BESIDE) for ending in endings]
        place = max(places, key=lambda place: len(place.files()))  # the first where both are whole
        images = Place(root, f"leftImg8bit/{split}", (".png",), "_leftImg8bit")
        return Part(split, images, place, BAD_IMAGES, automatic), endings[place.ending]


class Cityscapes(StreetDataset):
    """The images and mapped labels of one split, or of several joined by "+". Names are `{city}_{seq}_{frame}`.

    `labels` is "fine", "coarse", or "auto": automatic labels for train_extra, fine ones for train and val, so that
    "train+train_extra" with "auto" is what the released training on top of Vistas reads. Pixels of automatic labels less
    probable than `min_probability` are ignored; their authors use 0.5, and 0 needs no `_prob` files. `map` maps Cityscapes'
    labels to classes of your own (a YAML file); None takes the 19 classes.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        labels: str = "fine",
        *,
        min_probability: float = 0.0,
        map: str | Path | LabelMap | None = None,
    ) -> None:
        """Checks the folders and that every image has a label; `ValueError` says what to mend."""
        layout = CityscapesLayout(Path(root), split, labels)
        check_threshold(min_probability, labels)
        need_folders(layout)
        self.map, readings = layout.read(map)
        pairs: list[Pair] = []
        for part, how in zip(layout.parts, readings, strict=True):
            found = part.pairs(how)
            pairs += [_with_probability(pair) for pair in found] if part.automatic and min_probability > 0 else found
        super().__init__(pairs, classes=self.map.classes, colors=self.map.colors, min_probability=min_probability)
        show_licence("cityscapes", Path(root))

    def instance_path(self, i: int) -> Path:
        """The file of instance ids beside label `i`; there need not be one."""
        label = self.label_path(i)
        return label.with_name(label.name.replace("_labelIds", "_instanceIds"))

    def has_instances(self) -> bool:
        """Whether every sample has fine labels with its instance ids beside them."""
        return all(
            self.label_path(i).name.endswith("_gtFine_labelIds.png") and self.instance_path(i).is_file()
            for i in range(len(self))
        )

    def read_instances(self, i: int) -> NDArray[np.uint16]:
        """Instance ids of sample `i`, (H, W): label id * 1000 + number where there is an instance, else the label id.

        `ValueError` names a file that is missing or damaged.
        """
        return read_instances(self.instance_path(i))


def check_threshold(min_probability: float, labels: str) -> None:
    """`ValueError` for a threshold that is no probability, or one for labels that no network made."""
    if not 0 <= min_probability <= 1 or (min_probability > 0 and labels != "auto"):
        raise ValueError(
            f"min_probability must lie in 0..1, and above 0 with labels='auto' only, got {min_probability} with "
            f"labels={labels!r}; leave it out"
        )


def _kind(split: str, labels: str) -> str:
    """The folder that such labels of a split lie in."""
    if labels == "auto" and split == "train_extra":
        return "refinement_final"
    return "gtCoarse" if labels == "coarse" else "gtFine"


def _with_probability(pair: Pair) -> Pair:
    probability = probability_of(pair.label)
    if not probability.is_file():
        raise no_probability(probability)
    return Pair(pair.name, pair.image, pair.label, pair.reading, probability)


def no_probability(path: Path) -> ValueError:
    """The error for a file of probabilities that is not there."""
    return ValueError(
        f"min_probability needs a file of probabilities for every automatic label, got none at {path}; unpack it too, or "
        "leave min_probability out"
    )
