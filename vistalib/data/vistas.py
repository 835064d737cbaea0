"""Mapillary Vistas v1.2 as it unpacks, with its 66 classes mapped to the 19 of Cityscapes by name.

Source: Neuhold et al., "The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes", ICCV 2017.
Layout: `{training,validation}/images/*.jpg`, `{training,validation}/v1.2/labels/*.png` (palette PNGs whose index is the
position in the `labels` list of the configuration), `config_v1.2.json`.
"""

from pathlib import Path

from vistalib.data.dataset import StreetDataset, files_by_stem, lookup_table, need_folder, pair_up
from vistalib.data.labels import TRAIN_CLASSES, TRAIN_COLORS, VISTAS_TO_CITYSCAPES, vistas_to_train_id
from vistalib.files import read_json

SPLITS = ("training", "validation", "training+validation")
LAYOUT = "training/, validation/ and config_v1.2.json"


class Vistas(StreetDataset):
    """The images and mapped labels of one split, or of both as the released training uses them ("training+validation")."""

    def __init__(self, root: str | Path, split: str, version: str = "v1.2") -> None:
        """Checks the folders, the configuration and that every image has a label; `ValueError` says what to mend."""
        root = Path(root)
        if split not in SPLITS:
            raise ValueError(f"a Vistas split must be one of {', '.join(SPLITS)}; got {split!r}")
        if version != "v1.2":
            raise ValueError(f"the version must be 'v1.2', got {version!r}: its 66 classes are the ones mapped to the 19")
        pairs = []
        for part in split.split("+"):
            images = need_folder(root, f"{part}/images", LAYOUT)
            labels = need_folder(root, f"{part}/{version}/labels", LAYOUT)
            pairs += pair_up(
                files_by_stem(images, (".jpg", ".jpeg")),
                files_by_stem(labels, (".png",)),
                image_folder=images,
                label_folder=labels,
            )
        config = root / f"config_{version}.json"
        names = _class_names(config)
        super().__init__(
            pairs,
            classes=TRAIN_CLASSES,
            colors=TRAIN_COLORS,
            table=lookup_table(enumerate(vistas_to_train_id(names)[: len(names)].tolist())),
            names=str(config),
        )


def _class_names(config: Path) -> tuple[str, ...]:
    """The names in the configuration, in the order of the label values; every class that is mapped must be among them."""
    content = read_json(config)
    try:
        names = tuple(str(label["name"]) for label in content["labels"])
    except (KeyError, TypeError):
        raise ValueError(
            f'{config} must be {{"labels": [{{"name": ...}}, ...]}}, got other JSON; restore the original file'
        ) from None
    lacking = sorted(VISTAS_TO_CITYSCAPES.keys() - set(names))
    if lacking:
        raise ValueError(
            f"{config} must name every class that is mapped to Cityscapes, got none called {', '.join(lacking[:3])}"
            f"{' and others' if len(lacking) > 3 else ''}; restore the original v1.2 file"
        )
    return names
