"""Mapillary Vistas as it unpacks: v1.2 with 66 classes, v2.0 with 124, and the older flat layout with the 66.

Source: Neuhold et al., "The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes", ICCV 2017.
Layout: `{training,validation}/images/*.jpg`; labels in `{training,validation}/v1.2/labels/*.png` with `config_v1.2.json`, in
`.../v2.0/labels/*.png` with `config_v2.0.json`, or, in releases before v1.2, in `{training,validation}/labels/*.png` with
`config.json`. Labels are palette PNGs whose index is the position in the `labels` list of the configuration.
"""

from pathlib import Path
from typing import Any

from vistalib.data.dataset import StreetDataset
from vistalib.data.decode import UNKNOWN
from vistalib.data.labels import Color
from vistalib.data.layout import Part, Place, Reading, need_folders, reading, split_names
from vistalib.data.licences import show_licence
from vistalib.data.mapping import LabelMap, choose_map, native_map
from vistalib.files import read_json

SPLITS = ("training", "validation")
# Where labels lie, in order of preference: version, folder below a split, default map. Both the first two have the 66 classes.
LABELS = (("v1.2", "v1.2/labels", "released"), ("v1.2", "labels", "released"), ("v2.0", "v2.0/labels", "vistalib"))
VERSIONS = ("v1.2", "v2.0")


class VistasLayout:
    """The folders of Vistas for one split, or for several joined by "+"; None takes both that have labels.

    `version` None takes v1.2, in the newer or the older layout, and v2.0 where there is nothing else.
    """

    holds = "training/, validation/ and a config file"

    def __init__(self, root: Path, split: str | None, version: str | None) -> None:
        names = list(SPLITS) if split is None else split_names(split, SPLITS, "a Vistas split")
        if version not in (None, *VERSIONS):
            raise ValueError(f"the version must be 'v1.2' or 'v2.0', or None for what is there; got {version!r}")
        here = [place for place in LABELS if version in (None, place[0])]
        there = (place for place in here if any((root / name / place[1]).is_dir() for name in names))
        self.version, below, self.default_map = next(there, here[0])
        self.parts = [
            Part(name, Place(root, f"{name}/images", (".jpg", ".jpeg")), Place(root, f"{name}/{below}", (".png",)))
            for name in names
        ]
        configs = root / f"config_{self.version}.json", root / "config.json"
        self.config = next((path for path in configs if path.is_file()), configs[0])

    def read(self, chosen: str | Path | LabelMap | None) -> tuple[LabelMap, list[Reading]]:
        """The map that is meant, and the reading of each part; `ValueError` where the configuration does not allow it."""
        entries = _classes(self.config)
        map = choose_map(chosen, native=native_map(entries), default=self.default_map)
        values: dict[int, str | None] = {value: name for value, (name, _, _) in enumerate(entries)}
        how = reading(map, values, str(self.config), {value: color for value, (_, color, _) in enumerate(entries)})
        return map, [how] * len(self.parts)


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
        layout = VistasLayout(Path(root), split, version)
        need_folders(layout)
        self.version = layout.version
        self.map, readings = layout.read(map)
        super().__init__(
            [pair for part, how in zip(layout.parts, readings, strict=True) for pair in part.pairs(how)],
            classes=self.map.classes,
            colors=self.map.colors,
        )
        show_licence("vistas", Path(root))


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
