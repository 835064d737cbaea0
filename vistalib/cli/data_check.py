"""`vistalib data check`: the doctor's report on a terminal."""

import math
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from vistalib.cli.parts import Given, UsageError
from vistalib.files import check_writable, write_json

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.data import Checkup, Finding
    from vistalib.recipes import Dataset

SHOWN = 5  # files of a kind
ENOUGH = 10_000_000  # bytes that tell how fast a disk is


def data_check(
    dataset: Given,
    *,
    quick: bool = False,
    images_per_second: float | None = None,
    workers: int = 2,
    json: Path | None = None,
) -> None:
    """Look for everything that is wrong with a dataset, and say how to repair it; exit status 1 where there are errors.

    Args:
        dataset: The one dataset to check, by default all its splits.
        quick: Look at folders and names, and leave the files unread.
        images_per_second: What your GPU trains (an A100 4 with UperNet-L): try whether the loader keeps it busy.
        workers: Processes that decode images for it.
        json: File for all that was found.
    """
    from vistalib.data import check

    if images_per_second is not None and not images_per_second > 0:
        raise UsageError(f"--images-per-second must be above 0, got {images_per_second}")
    if json is not None:
        check_writable(json)
    source = dataset.source("")
    done = check(
        source.kind,
        getattr(dataset, source.kind),
        source.split or None,
        map=source.map,
        version=source.version,
        labels=source.labels,
        min_probability=source.min_probability,
        quick=quick,
    )
    print(f"{done.title} in {done.root}\n\n{_table(done)}")
    for heading, findings in (
        ("ERRORS: training would fail, or learn from wrong labels", [x for x in done.findings if x.is_error]),
        ("WARNINGS: training would run; see whether it is meant so", [x for x in done.findings if not x.is_error]),
    ):
        if findings:
            print(f"\n{heading}\n{_listed(findings, done.root, json)}")
    print(f"\n{_summary(done)}")
    speed = None
    if images_per_second is not None and not done.errors:
        speed = _loader_speed(dataset.open(training=True), workers)
        print(_busy(speed, images_per_second, workers))
    if json is not None:
        write_json(json, done.to_json() | {"loader_images_per_second": speed})
    if done.errors:
        raise ValueError(f"{done.root} has {_number(done.errors, 'error')}; mend what is said above, then check again")


def _loader_speed(data: "Dataset", workers: int) -> float:
    """Images a second that the loader hands out, under the augmentation that was released for the dataset."""
    from vistalib.data import Augmentation, AugmentationSettings, TrainLoader, Vistas, loader_speed

    settings = AugmentationSettings(ratio_range=(0.5, 1.0) if isinstance(data, Vistas) else (0.5, 2.0))
    return loader_speed(TrainLoader(data, Augmentation(settings), batch_size=2, num_workers=workers))


def _busy(speed: float, wanted: float, workers: int) -> str:
    hands_out = f"loader: {speed:.1f} images a second with --workers {workers}"
    if speed >= wanted:
        return f"{hands_out}: a GPU that trains {wanted:g} is kept busy"
    more = math.ceil(max(1, workers) * wanted / speed)
    return (
        f"{hands_out}: a GPU that trains {wanted:g} would wait {1 - speed / wanted:.0%} of the time; it might not with "
        f"--workers {more} on as many processors, with copies of `vistalib data prepare`, or with `train --device-colors`"
    )


def _table(done: "Checkup") -> str:
    """Images, labels and pairs of each split beside the number of images there should be."""
    rows = [["split", "images", "labels", "pairs", "expected"]]
    for row in done.splits:
        numbers = (row.images, row.labels, row.pairs, row.expected)
        rows.append([row.split, *("-" if number is None else f"{number:,}" for number in numbers)])
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{row[0]:{width}}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows)


def _listed(findings: "list[Finding]", root: Path, json: Path | None) -> str:
    """The findings by kind, a few files of each, and below them what to do."""
    from vistalib.data.findings import KINDS

    lines: list[str] = []
    for kind, found in ((kind, list(group)) for kind, group in groupby(findings, lambda finding: finding.kind)):
        lines.append(f"\n{KINDS[kind]}: {len(found):,} ({kind})")
        lines += [f"  {_below(finding.path, root)} {finding.found.replace(f'{root}/', '')}" for finding in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"  and {len(found) - SHOWN:,} more ({f'all in {json}' if json else '--json FILE has all'})")
        lines += [f"  -> {repair.replace(f'{root}/', '')}" for repair in dict.fromkeys(x.repair for x in found[:SHOWN])]
    return "\n".join(lines)


def _below(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) and path != root else path


def _summary(done: "Checkup") -> str:
    """What was looked at and how long it took, how fast the disk is, and how it ended."""
    lines = [f"{done.files:,} files read in {done.seconds:.1f} s" if done.files else f"names checked in {done.seconds:.1f} s"]
    if (disk := done.disk) is not None and disk.bytes > ENOUGH:
        asked = "; the system was asked to drop them from memory first, and may not have" if disk.asked_to_forget else ""
        size = f"{disk.files:,} files, {disk.bytes / 1e6:,.0f} MB"
        lines.append(f"disk: {disk.bytes / disk.seconds / 1e6:,.0f} MB/s ({size}{asked or ', perhaps from memory'})")
    warnings = len(done.findings) - done.errors
    lines.append(f"{_number(done.errors, 'error')}, {_number(warnings, 'warning')}")
    return "\n".join(lines)


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}" if count else f"no {what}s"
