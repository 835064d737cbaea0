"""The folder that a demo leaves behind, read for its report.

`demo.json` (facts, settings, runs, evaluations), `examples.npz` (image (n, H, W, 3), target and prediction_<run> (n, H, W)),
every run's `log.jsonl`, and perhaps `sampling.npz` (image (H, W, 3), query (q, 2), location_<level> (q, P, 2), weight_<level>).
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistalib.files import read_json

ORDER = ("finetune", "scratch", "scratch_total", "pretrain")  # of the page; what the page is about comes first
SINGLE = "single scale"
Record = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Demo:
    """What a demo recorded; `runs` and `logs` are keyed by the run's name and in the order of the page."""

    record: Record
    runs: Mapping[str, Record]
    logs: Mapping[str, Sequence[Record]]
    examples: Arrays
    sampling: Arrays | None

    @property
    def classes(self) -> Sequence[str]:
        """The names of the C classes."""
        return self.record["classes"]  # type: ignore[no-any-return]  # JSON

    @property
    def colors(self) -> NDArray[np.uint8]:
        """Their colours, (C, 3) uint8."""
        return np.asarray(self.record["colors"], np.uint8)

    @property
    def finetuned(self) -> Record:
        """The run that the page is about."""
        return self.runs["finetune"]

    @property
    def controls(self) -> list[Record]:
        """The runs from scratch."""
        return [run for name, run in self.runs.items() if name.startswith("scratch")]


def evaluation(run: Record) -> Record:
    """The run's single-scale evaluation, or its first where there is no such."""
    return next((found for found in run["evaluations"] if found["mode"] == SINGLE), run["evaluations"][0])


def read_demo(folder: str | Path) -> Demo:
    """Read the folder that the demo wrote; a `ValueError` names the file that is missing, unreadable or incomplete."""
    folder = Path(folder)
    record = read_json(folder / "demo.json")
    found = {run["name"]: run for run in record["runs"] if run["evaluations"]}
    if not {"finetune", "scratch"} <= set(found):
        names = ", ".join(found) or "none"
        raise ValueError(
            f"{folder / 'demo.json'} must hold the evaluated runs finetune and scratch, got {names}; run the demo to its end"
        )
    runs = {name: found[name] for name in ORDER if name in found}
    return Demo(
        record=record,
        runs=runs,
        logs={name: read_log(folder / run["folder"] / "log.jsonl") for name, run in runs.items()},
        examples=_read_arrays(folder / "examples.npz"),
        sampling=_read_arrays(folder / "sampling.npz") if (folder / "sampling.npz").exists() else None,
    )


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's `log.jsonl`; a `ValueError` names the file and the line that cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} must be a readable log, got: {error}; train the run first or check the folder") from error
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} of {path} must be JSON, got: {error}; remove the line") from error
    return lines


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be a readable .npz file, got: {error}; run the demo again") from error
