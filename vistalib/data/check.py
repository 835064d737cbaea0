"""The doctor of the datasets: everything that is wrong with one on a disk, where a dataset itself stops at the first thing.

Looked at are the folders and the configuration, the names of all files, which images and labels pair, how many there are and
what is there twice (`check_names`), and then every file by itself, as training would read it (`check_files`).
"""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistalib.data.check_files import examine, strays
from vistalib.data.check_names import (
    Found,
    count_findings,
    find,
    find_unlabelled,
    missing_folders,
    name_findings,
    places,
    twice,
)
from vistalib.data.cityscapes import CityscapesLayout, check_threshold
from vistalib.data.disk import Disk, disk_speed
from vistalib.data.findings import KINDS, Finding
from vistalib.data.folder import FolderLayout
from vistalib.data.labels import IGNORE_INDEX
from vistalib.data.layout import Kind, Layout, Reading
from vistalib.data.mapping import NATIVE, LabelMap, label_map
from vistalib.data.published import CLASSES, promised
from vistalib.data.vistas import VistasLayout
from vistalib.progress import progress

MOST_NAMED = 12  # classes in a sentence


@dataclass(frozen=True)
class SplitCount:
    """What a split holds: images, labels and pairs (None where labels are not handed out), and the images it should have."""

    split: str
    images: int
    labels: int | None
    pairs: int | None
    expected: int | None


@dataclass(frozen=True)
class Checkup:
    """All that the doctor has to say, errors first. `files` were read; `disk` is None where none were."""

    title: str
    root: Path
    splits: tuple[SplitCount, ...]
    findings: tuple[Finding, ...]
    files: int
    disk: Disk | None
    seconds: float

    @property
    def errors(self) -> int:
        return sum(finding.is_error for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        findings = [
            {"severity": "error" if finding.is_error else "warning", **dataclasses.asdict(finding), "path": str(finding.path)}
            for finding in self.findings
        ]
        return dataclasses.asdict(self) | {"root": str(self.root), "findings": findings}


def check(
    kind: Kind,
    root: str | Path,
    split: str | None = None,
    *,
    map: str | Path | LabelMap | None = None,
    version: str | None = None,
    labels: str = "fine",
    min_probability: float = 0.0,
    quick: bool = False,
) -> Checkup:
    """Look for everything that is wrong with a dataset in `root`, and say how to repair it.

    The choices are those of `Vistas`, `Cityscapes` and `Folder`; `split` None takes all splits. What says how sure automatic
    labels are is looked at where `min_probability` asks for it. `quick` goes by names and opens nothing but images of equal
    size in bytes. Raises `ValueError` for a choice that does not exist, never for what lies in the folder.
    """
    began = time.perf_counter()
    root = Path(root)
    check_threshold(min_probability, labels)
    if map is not None and not isinstance(map, LabelMap) and map != NATIVE:
        map = label_map(map)
    layout, title = _layout(kind, root, split, version, labels)
    findings = missing_folders(layout)
    chosen, readings, wrong = _configuration(layout, map)
    if any(place.folder.is_dir() for place in places(layout)):  # otherwise it lies elsewhere too
        findings += wrong
    splits = [
        find(part, how, with_probability=part.automatic and min_probability > 0)
        for part, how in zip(layout.parts, readings, strict=True)
    ]
    splits += find_unlabelled(kind, layout) if split is None else []
    expected, size = promised(kind, root)
    for found in splits:
        findings += name_findings(kind, found)
        findings += count_findings(found, expected.get(found.split))
        for place in (found.images_at, found.labels_at):
            findings += strays(place) if place is not None and place.folder.is_dir() else []
    findings += twice(kind, splits)
    paths = [] if quick else [path for found in splits for path in found.paths()]
    disk = disk_speed(paths) if paths else None
    for found in splits if paths else []:
        findings += _content_findings(found, size, chosen)
    order = list(KINDS)
    findings.sort(key=lambda finding: (order.index(finding.kind), finding.path))
    counts = tuple(_count(found, expected.get(found.split)) for found in splits)
    return Checkup(title, root, counts, tuple(findings), len(paths), disk, time.perf_counter() - began)


def _layout(kind: Kind, root: Path, split: str | None, version: str | None, labels: str) -> tuple[Layout, str]:
    """The layout that is meant, and what it is called."""
    match kind:
        case "vistas":
            vistas = VistasLayout(root, split, version)
            return vistas, f"Mapillary Vistas {vistas.version}"
        case "cityscapes":
            return CityscapesLayout(root, split, labels), f"Cityscapes with {labels} labels"
        case "folder":
            return FolderLayout(root, split), "Own data"


def _configuration(
    layout: Layout, map: str | Path | LabelMap | None
) -> tuple[LabelMap | None, Sequence[Reading | None], list[Finding]]:
    """The map and the reading of each part; None, and what is wrong, where the classes are not certain."""
    unknown = [None] * len(layout.parts)
    try:
        chosen, readings = layout.read(map)
    except ValueError as error:
        return None, unknown, [Finding.of("configuration", layout.config or Path(), error)]
    if isinstance(layout, VistasLayout) and len(readings[0].values) != CLASSES[layout.version]:
        found = f"names {len(readings[0].values)} classes, and {layout.version} has {CLASSES[layout.version]}"
        return None, unknown, [Finding("configuration", layout.config, found, "restore the original file")]
    return chosen, readings, []


def _count(found: Found, expected: int | None) -> SplitCount:
    labels, pairs = (None, None) if found.labels_at is None else (len(found.labels), found.pairs)
    return SplitCount(found.split, len(found.images), labels, pairs, expected)


def _content_findings(found: Found, size: tuple[int, int] | None, chosen: LabelMap | None) -> Iterator[Finding]:
    """What is wrong with the files of a split, each by itself and all together."""
    samples = list(found.samples())
    seen = np.zeros(256, np.bool_)
    sizes: list[tuple[Path, tuple[int, int]]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding leaves the interpreter to others
        results = progress(pool.map(examine, samples), f"reading {found.split}", total=len(samples))
        for sample, done in zip(samples, results, strict=True):
            yield from done.findings
            seen |= done.seen
            if sample.image is not None and done.size not in (None, size):
                sizes.append((sample.image, done.size))
    if size is not None and sizes:
        (first, (height, width)), others = sizes[0], f", as {len(sizes) - 1} others are not" if len(sizes) > 1 else ""
        found_there = f"is {width}x{height}, not {size[1]}x{size[0]}{others}"
        yield Finding("image-size", first, found_there, "take the original images, unless these were made smaller on purpose")
    if chosen is not None and found.reading is not None and seen.any():
        yield from _unseen(found, found.reading, seen, chosen)


def _unseen(found: Found, how: Reading, seen: NDArray[np.bool_], chosen: LabelMap) -> Iterator[Finding]:
    """One finding for all the classes that a split should teach and does not show."""
    possible = {int(train_id) for train_id in how.table[list(how.values)]} - {IGNORE_INDEX}
    absent = [chosen.classes[train_id] for train_id in sorted(possible - set(how.table[seen].tolist()))]
    if absent and found.labels_at is not None:
        names = ", ".join(absent[:MOST_NAMED]) + (f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else "")
        repair = "nothing is learnt or scored of them; take more images, or a map without these classes"
        shown = f"shows {len(possible) - len(absent)} of {len(possible)} classes, no {names}"
        yield Finding("unseen-class", found.labels_at.folder, shown, repair)
