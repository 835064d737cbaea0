"""Cityscapes as it unpacks: label ids mapped to the 19 training ids.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
Layout: `leftImg8bit/{split}/{city}/{city}_{seq}_{frame}_leftImg8bit.png`, and `gtFine` (or `gtCoarse`)
`/{split}/{city}/{city}_{seq}_{frame}_gtFine_labelIds.png`.
"""

from pathlib import Path

from vistalib.data.dataset import StreetDataset, files_by_stem, lookup_table, need_folder, pair_up
from vistalib.data.labels import CITYSCAPES, TRAIN_CLASSES, TRAIN_COLORS

SPLITS = {"fine": ("train", "val"), "coarse": ("train", "val", "train_extra")}
BAD_IMAGES = frozenset({"troisdorf_000000_000073"})  # in train_extra; its publishers advise leaving it out


class Cityscapes(StreetDataset):
    """The images and mapped labels of one split; `labels` is "fine" or "coarse". Names are `{city}_{seq}_{frame}`."""

    def __init__(self, root: str | Path, split: str, labels: str = "fine") -> None:
        """Checks the folders and that every image has a label; `ValueError` says what to mend."""
        root = Path(root)
        if labels not in SPLITS:
            raise ValueError(f"labels must be 'fine' or 'coarse', got {labels!r}")
        if split not in SPLITS[labels]:
            raise ValueError(
                f"a split of Cityscapes with {labels} labels must be one of {', '.join(SPLITS[labels])}; got {split!r}"
            )
        kind = f"gt{labels.capitalize()}"
        image_folder = need_folder(root, f"leftImg8bit/{split}", f"leftImg8bit/ and {kind}/")
        label_folder = need_folder(root, f"{kind}/{split}", f"leftImg8bit/ and {kind}/")
        images = files_by_stem(image_folder, (".png",), drop="_leftImg8bit")
        super().__init__(
            pair_up(
                {name: path for name, path in images.items() if name not in BAD_IMAGES},
                files_by_stem(label_folder, (".png",), drop=f"_{kind}_labelIds"),
                image_folder=image_folder,
                label_folder=label_folder,
            ),
            classes=TRAIN_CLASSES,
            colors=TRAIN_COLORS,
            table=lookup_table((label.id, label.train_id) for label in CITYSCAPES.labels if label.id >= 0),
            names="the table of Cityscapes' label ids (0 to 33)",
        )
