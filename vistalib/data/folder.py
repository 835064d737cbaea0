"""A dataset of one's own: images, class-index PNGs of the same names, and one small file that names the classes.

Layout: `images/{split}/*.jpg|png`, `labels/{split}/*.png` (8-bit, the value is the position in `classes`), and `classes.json`:
`{"classes": [{"name": "sky", "color": [70, 130, 180]}, ...], "ignore": 11}`. `ignore` is the label value that is neither
trained nor scored, or null; 255 is always ignored. A class at the ignored position is not among the dataset's `classes`.
"""

from pathlib import Path
from typing import Any

from vistalib.data.dataset import StreetDataset, files_by_stem, need_folder, pair_up, reading
from vistalib.data.decode import UNKNOWN
from vistalib.data.labels import IGNORE_INDEX, Color
from vistalib.data.mapping import LabelMap, choose_map, native_map
from vistalib.files import read_json

LAYOUT = "images/, labels/ and classes.json"


class Folder(StreetDataset):
    """The images and labels of one split of a folder of one's own; `map`, a YAML file, maps its classes to others."""

    def __init__(self, root: str | Path, split: str, *, map: str | Path | LabelMap | None = None) -> None:
        """Checks the folders, `classes.json` and that every image has a label; `ValueError` says what to mend."""
        root = Path(root)
        image_folder = need_folder(root, f"images/{split}", LAYOUT)
        label_folder = need_folder(root, f"labels/{split}", LAYOUT)
        config = root / "classes.json"
        entries, ignore = read_classes(config)
        native = native_map((name, color, True) for value, (name, color) in enumerate(entries) if value != ignore)
        self.map = choose_map(map, native=native)
        values: dict[int, str | None] = {value: name for value, (name, _) in enumerate(entries)} | {IGNORE_INDEX: None}
        if ignore is not None:
            values[ignore] = None
        super().__init__(
            pair_up(
                files_by_stem(image_folder, (".jpg", ".jpeg", ".png")),
                files_by_stem(label_folder, (".png",)),
                reading=reading(self.map, values, str(config)),
                image_folder=image_folder,
                label_folder=label_folder,
            ),
            classes=self.map.classes,
            colors=self.map.colors,
        )


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
