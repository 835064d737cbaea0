"""Mapillary Vistas as it unpacks: v1.2 with 66 classes, v2.0 with 124, and the older flat layout with the 66.

Source: Neuhold et al., "The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes", ICCV 2017.
Layout: `{training,validation}/images/*.jpg`; labels in `{training,validation}/v1.2/labels/*.png` with `config_v1.2.json`, in
`.../v2.0/labels/*.png` with `config_v2.0.json`, or, in releases before v1.2, in `{training,validation}/labels/*.png` with
`config.json`. Labels are palette PNGs whose index is the position in the `labels` list of the configuration.
"""

from pathlib import Path
from typing import Any

from vistalib.data.dataset import StreetDataset, files_by_stem, need_folder, pair_up, reading, split_names
from vistalib.data.decode import UNKNOWN
from vistalib.data.labels import Color
from vistalib.data.licences import show_licence
from vistalib.data.mapping import LabelMap, choose_map, native_map
from vistalib.files import read_json

SPLITS = ("training", "validation")
# Where labels lie, in order of preference: version, folder below a split, default map. Both the first two have the 66 classes.
LABELS = (("v1.2", "v1.2/labels", "released"), ("v1.2", "labels", "released"), ("v2.0", "v2.0/labels", "vistalib"))
VERSIONS = ("v1.2", "v2.0")


class Vistas(StreetDataset):
    """The images and mapped labels of one split, or of both as the released training uses them ("training+validation").

    `version` is "v1.2" or "v2.0"; None takes v1.2, in the newer or the older layout, and v2.0 where there is nothing else.
    `map` is the name of a map (`list_maps()`), a YAML file of your own, or "native" for the 66 or 124 classes themselves:
    then training ids are label values, and what Vistas does not score is ignored. None takes "released" for v1.2 and
    "vistalib" for v2.0.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        version: str | None = None,
        map: str | Path | LabelMap | None = None,
    ) -> None:
        """Checks the folders, the configuration and that every image has a label; `ValueError` says what to mend."""
        root, parts = Path(root), split_names(split, SPLITS, "a Vistas split")
        if version not in (None, *VERSIONS):
            raise ValueError(f"the version must be 'v1.2' or 'v2.0', or None for what is there; got {version!r}")
        layout = "training/, validation/ and a config file"
        images = [need_folder(root, f"{part}/images", layout) for part in parts]
        here = [place for place in LABELS if version in (None, place[0])]
        found = next((place for place in here if (root / parts[0] / place[1]).is_dir()), here[0])
        self.version, below, default = found
        labels = [need_folder(root, f"{part}/{below}", layout) for part in parts]
        config = next((path for path in _configs(root, self.version) if path.is_file()), _configs(root, self.version)[0])
        entries = _classes(config)
        self.map = choose_map(map, native=native_map(entries), default=default)
        how = reading(self.map, {value: name for value, (name, _, _) in enumerate(entries)}, str(config))
        super().__init__(
            [
                pair
                for folder, below_it in zip(images, labels, strict=True)
                for pair in pair_up(
                    files_by_stem(folder, (".jpg", ".jpeg")),
                    files_by_stem(below_it, (".png",)),
                    reading=how,
                    image_folder=folder,
                    label_folder=below_it,
                )
            ],
            classes=self.map.classes,
            colors=self.map.colors,
        )
        show_licence("vistas", root)


def _configs(root: Path, version: str) -> tuple[Path, Path]:
    return root / f"config_{version}.json", root / "config.json"


def _classes(config: Path) -> list[tuple[str, Color, bool]]:
    """Name, colour and whether it is scored of every class, in the order of the label values."""
    content = read_json(config)
    try:
        entries = [_entry(label) for label in content["labels"]]
        if not 0 < len(entries) < UNKNOWN or len({name for name, _, _ in entries}) < len(entries):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(
            f'{config} must be {{"labels": [{{"name": ..., "color": [r, g, b]}}, ...]}} with names that differ, got other '
            "JSON; restore the original file"
        ) from None
    return entries


def _entry(label: dict[str, Any]) -> tuple[str, Color, bool]:
    red, green, blue = label.get("color", (0, 0, 0))
    if not all(type(value) is int and 0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError
    return str(label["name"]), (red, green, blue), bool(label.get("evaluate", True))
