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

from vistalib.data.dataset import Pair, StreetDataset, files_by_stem, need_folder, pair_up, reading, split_names
from vistalib.data.labels import CITYSCAPES, IGNORE_INDEX, TRAIN_CLASSES
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
        root = Path(root)
        if labels not in SPLITS:
            raise ValueError(f"labels must be 'auto', 'fine' or 'coarse', got {labels!r}")
        if not 0 <= min_probability <= 1 or (min_probability > 0 and labels != "auto"):
            raise ValueError(
                f"min_probability must lie in 0..1, and above 0 with labels='auto' only, got {min_probability} with "
                f"labels={labels!r}; leave it out"
            )
        parts = split_names(split, SPLITS[labels], f"a split of Cityscapes with {labels} labels")
        self.map = choose_map(map, native=native_map((label.name, label.color, True) for label in CITYSCAPES.trained))
        pairs: list[Pair] = []
        for part in parts:
            automatic = labels == "auto" and part == "train_extra"
            kind = "refinement_final" if automatic else "gtCoarse" if labels == "coarse" else "gtFine"
            layout = f"leftImg8bit/ and {kind}/"
            image_folder = need_folder(root, f"leftImg8bit/{part}", layout)
            label_folder = need_folder(root, f"{kind}/{part}", layout)
            images = files_by_stem(image_folder, (".png",), drop="_leftImg8bit")
            endings = AUTO_ENDINGS if automatic else {f"_{kind}_labelIds": NAMED_BY_ID}
            files = {ending: files_by_stem(label_folder, (".png",), drop=ending) for ending in endings}
            ending = max(files, key=lambda name: len(files[name]))  # the first where both are whole
            meaning, values = endings[ending]
            found = pair_up(
                {name: path for name, path in images.items() if name not in BAD_IMAGES},
                files[ending],
                reading=reading(self.map, values, f"the table of Cityscapes' {meaning}"),
                image_folder=image_folder,
                label_folder=label_folder,
            )
            pairs += [_with_probability(pair) for pair in found] if automatic and min_probability > 0 else found
        super().__init__(pairs, classes=self.map.classes, colors=self.map.colors, min_probability=min_probability)
        show_licence("cityscapes", root)


def _with_probability(pair: Pair) -> Pair:
    probability = pair.label.with_stem(f"{pair.label.stem}_prob")
    if not probability.is_file():
        raise ValueError(
            f"min_probability needs a file of probabilities for every automatic label, got none at {probability}; unpack it "
            "too, or leave min_probability out"
        )
    return Pair(pair.name, pair.image, pair.label, pair.reading, probability)
