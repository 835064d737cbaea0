"""Maps from the classes of a dataset to the classes that are trained, as data: one YAML file a map, by class name.

The maps that come along lie in `vistalib/data/maps/`; one of your own has the same form and is given by its path:

    classes: cityscapes                      # the 19; or a list of your own: {drivable: [128, 64, 128], other: [0, 0, 0]}
    map:
      construction--flat--road: road         # class of the dataset: class to train
      construction--flat--driveway: ignore   # neither trained nor scored, like everything that is not listed

A map becomes one look-up table of 256 entries, so that it costs the same whatever it says.
Letters: C classes that are trained.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from vistalib.data.decode import UNKNOWN
from vistalib.data.labels import IGNORE_INDEX, TRAIN_CLASSES, TRAIN_COLORS, Color

FOLDER = Path(__file__).parent / "maps"
NATIVE = "native"
IGNORE = "ignore"
KEYS = {"about", "source", "labels", "classes", "map"}


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Which class of a dataset is trained as which; made by `label_map` or `native_map`.

    `targets` maps each listed class of the dataset to one of `classes`, or to None for a class that is ignored; a class that is
    not listed is ignored. `labels` names the version of Vistas that the map is for, where it is for one.
    """

    name: str
    classes: tuple[str, ...]
    colors: npt.NDArray[np.uint8]  # (C, 3) RGB
    targets: Mapping[str, str | None]
    about: str = ""
    source: str = ""
    labels: str = ""

    def table(self, values: Mapping[int, str | None], names: str) -> npt.NDArray[np.uint8]:
        """(256,) look-up table: stored value -> training id, `IGNORE_INDEX` for ignored ones, `UNKNOWN` for unnamed ones.

        `values` names the stored values, None for one that is always ignored; `names` says where these names come from. Raises
        `ValueError` when the map lists a class that the dataset does not have: it is for another one, or misspelt.
        """
        lacking = sorted(self.targets.keys() - set(values.values()))
        if lacking:
            near = difflib.get_close_matches(lacking[0], [name for name in values.values() if name], n=1)
            raise ValueError(
                f"{names} must name every class that the map {self.name!r} lists, got none called {', '.join(lacking[:3])}"
                f"{' and others' if len(lacking) > 3 else ''}{f' (perhaps {near[0]})' if near else ''}; restore the original "
                f"file, or give a map for these labels ({', '.join(list_maps())}, {NATIVE}, or a YAML file)"
            )
        table = np.full(256, UNKNOWN, np.uint8)
        for value, name in values.items():
            target = self.targets.get(name) if name else None
            table[value] = IGNORE_INDEX if target is None else self.classes.index(target)
        return table

    def sources(self, target: str | None) -> list[str]:
        """The listed classes of the dataset that become `target`; None asks for the ignored ones."""
        return [name for name, given in self.targets.items() if given == target]


def list_maps() -> list[str]:
    """Names of the maps that come along; "released" first, which is what Vistas v1.2 uses unless told otherwise."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=lambda name: (name != "released", name))


def label_map(which: str | Path) -> LabelMap:
    """The map of that name, or the one in that YAML file; a `ValueError` says which there are, or what is wrong in the file."""
    return _read(FOLDER / f"{which}.yaml" if which in list_maps() else Path(which))


def native_map(entries: Iterable[tuple[str, Color, bool]]) -> LabelMap:
    """A dataset's own classes, from (name, colour, whether it is scored): the training id is the place in `entries`.

    A class that is not scored keeps its place, so that ids are label values, and its pixels are ignored.
    """
    entries = list(entries)
    return LabelMap(
        name=NATIVE,
        classes=tuple(name for name, _, _ in entries),
        colors=np.array([color for _, color, _ in entries], np.uint8).reshape(-1, 3),
        targets={name: name if scored else None for name, _, scored in entries},
        about="the classes of the dataset itself",
    )


def choose_map(chosen: str | Path | LabelMap | None, *, native: LabelMap, default: str = NATIVE) -> LabelMap:
    """The map that a dataset was asked for: a map, the name of one, "native", or None for the dataset's `default`."""
    chosen = default if chosen is None else chosen
    if isinstance(chosen, LabelMap):
        return chosen
    return native if chosen == NATIVE else label_map(chosen)


def _read(path: Path) -> LabelMap:
    try:
        content = _load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(str(path), list_maps(), n=1)
        raise ValueError(
            f"a map must be {', '.join(list_maps())}, {NATIVE}, or a YAML file, got {str(path)!r}, which is no file"
            + (f"; did you mean {near[0]}?" if near else "; check the path")
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"the map {path} must be a readable YAML file, got: {error}; see vistalib/data/maps/") from None
    try:
        return _checked(path, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the map {path} must hold `classes: cityscapes` (or names with their [r, g, b]) and `map:` with a line "
            f"`class of the dataset: class to train` for each, got something else ({_short(error)}); mend that line"
        ) from None


def _checked(path: Path, content: dict[str, Any]) -> LabelMap:
    if unknown := content.keys() - KEYS:
        raise ValueError(f"unknown key {sorted(map(str, unknown))[0]!r}")
    if content["classes"] == "cityscapes":
        classes, colors = TRAIN_CLASSES, TRAIN_COLORS
    else:
        classes = tuple(content["classes"])
        colors = np.array([_color(name, color) for name, color in content["classes"].items()], np.uint8)
    if not 0 < len(classes) < UNKNOWN or IGNORE in classes:
        raise ValueError(f"there must be 1 to {UNKNOWN - 1} classes, none called {IGNORE!r}")
    for name, target in content["map"].items():
        if target != IGNORE and target not in classes:
            raise ValueError(f"{name}: {target!r} is no class; it must be {IGNORE!r} or one of {', '.join(classes)}")
    return LabelMap(
        name=path.stem if path.parent == FOLDER else str(path),
        classes=classes,
        colors=colors,
        targets={str(name): None if target == IGNORE else target for name, target in content["map"].items()},
        **{key: str(content.get(key, "")) for key in ("about", "source", "labels")},
    )


def _color(name: Any, color: Any) -> list[int]:
    if not isinstance(name, str) or len(color) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in color):
        raise ValueError(f"class {name!r} with colour {color!r}")
    return list(color)


def _short(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _load(text: str) -> Any:
    """The content of a YAML file in which a key that stands twice is a mistake; plain YAML lets the last line win."""
    open_nodes = [yaml.compose(text, yaml.SafeLoader)]
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            if len(set(keys)) < len(keys):
                raise yaml.YAMLError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
            open_nodes += [value for _, value in node.value]
    return yaml.safe_load(text)


VISTAS_TO_CITYSCAPES: Mapping[str, str] = {name: target for name, target in label_map("released").targets.items() if target}
