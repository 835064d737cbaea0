"""A dataset of one's own: images, class-index PNGs of the same names, and one small file that names the classes.

Layout: `images/{split}/*.jpg|png`, `labels/{split}/*.png` (8-bit, the value is the position in `classes`), and `classes.json`:
`{"classes": [{"name": "sky", "color": [70, 130, 180]}, ...], "ignore": 11}`. `ignore` is the label value that is neither
trained nor scored, or null; 255 is always ignored. A class at the ignored position is not among the dataset's `classes`.
"""

from pathlib import Path
from typing import Any

from vistalib.data.dataset import StreetDataset
from vistalib.data.decode import UNKNOWN
from vistalib.data.labels import IGNORE_INDEX, Color
from vistalib.data.layout import Part, Place, Reading, need_folders, reading
from vistalib.data.mapping import LabelMap, choose_map, native_map
from vistalib.files import read_json


class FolderLayout:
    """The folders of one split of a folder of one's own; None takes all that there are."""

    holds = "images/, labels/ and classes.json"

    def __init__(self, root: Path, split: str | None) -> None:
        there = sorted({path.name for kind in ("images", "labels") for path in root.glob(f"{kind}/*/")})
        self.parts = [
            Part(name, Place(root, f"images/{name}", (".jpg", ".jpeg", ".png")), Place(root, f"labels/{name}", (".png",)))
            for name in ((there or ["train"]) if split is None else [split])
        ]
        self.config = root / "classes.json"

    def read(self, chosen: str | Path | LabelMap | None) -> tuple[LabelMap, list[Reading]]:
        """The map that is meant, and the reading of each part; `ValueError` where `classes.json` does not allow it."""
        entries, ignore = read_classes(self.config)
        native = native_map((name, color, True) for value, (name, color) in enumerate(entries) if value != ignore)
        map = choose_map(chosen, native=native)
        values: dict[int, str | None] = {value: name for value, (name, _) in enumerate(entries)} | {IGNORE_INDEX: None}
        if ignore is not None:
            values[ignore] = None
        how = reading(map, values, str(self.config), {value: color for value, (_, color) in enumerate(entries)})
        return map, [how] * len(self.parts)


class Folder(StreetDataset):
    """The images and labels of one split of a folder of one's own; `map`, a YAML file, maps its classes to others."""

    def __init__(self, root: str | Path, split: str, *, map: str | Path | LabelMap | None = None) -> None:
        """Checks the folders, `classes.json` and that every image has a label; `ValueError` says what to mend."""
        layout = FolderLayout(Path(root), split)
        need_folders(layout)
        self.map, readings = layout.read(map)
        super().__init__(layout.parts[0].pairs(readings[0]), classes=self.map.classes, colors=self.map.colors)


def read_classes(config: Path) -> tuple[list[tuple[str, Color]], int | None]:
    """The (name, colour) of every class and the ignored value; `ValueError` shows the form that the file must have."""
    content = read_json(config)
    try:
        entries = [_entry(item) for item in content["classes"]]
        ignore = content.get("ignore")
        if not (ignore is None or (type(ignore) is int and 0 <= ignore <= IGNORE_INDEX)):
            raise ValueError(f"ignore is {ignore!r}")
        if not 0 < len(entries) < UNKNOWN:
            raise ValueError(f"there are {len(entries)} classes, and there must be 1 to {UNKNOWN - 1}")
        if len({name for name, _ in entries}) < len(entries):
            raise ValueError("two classes share a name")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{config} must be {{"classes": [{{"name": "sky", "color": [70, 130, 180]}}, ...], "ignore": 0 to 255 or null}}, '
            f"got something else ({type(error).__name__}: {error}); write it so"
        ) from None
    return entries, ignore


def _entry(item: dict[str, Any]) -> tuple[str, Color]:
    name, color = item["name"], item["color"]
    if not isinstance(name, str) or len(color) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in color):
        raise ValueError(f"name {name!r} with color {color!r}")
    red, green, blue = color
    return name, (red, green, blue)
