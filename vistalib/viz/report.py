"""The report of a demo: one HTML page that carries its pictures, figures and style with it and asks the network for nothing.

It reads `demo.json`, `examples.npz`, the runs' `log.jsonl` and, where there is one, `sampling.npz`. Every number on the page
comes from those files. What the page looks like is in `page/` (template, style sheet, a little script) and in `style`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from vistalib.files import read_json, write_text
from vistalib.viz import sections
from vistalib.viz.embed import page_variables
from vistalib.viz.overlay import Pixels

ORDER = ("finetune", "scratch", "scratch_total", "pretrain")


@dataclass(frozen=True)
class Demo:
    """The demo's folder, read: the JSON record, the arrays, and the lines of every run's log."""

    record: Mapping[str, Any]
    runs: Mapping[str, Mapping[str, Any]]  # by name, in the order of the page
    logs: Mapping[str, Sequence[Mapping[str, Any]]]  # by the run's name
    examples: Mapping[str, np.ndarray[Any, Any]]
    sampling: Mapping[str, np.ndarray[Any, Any]] | None

    @property
    def colors(self) -> Pixels:
        return np.asarray(self.record["colors"], np.uint8)

    @property
    def controls(self) -> list[Mapping[str, Any]]:
        return [run for name, run in self.runs.items() if name.startswith("scratch")]


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's `log.jsonl`; a `ValueError` names the file and line that cannot be read."""
    lines = []
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} must be a readable log, got: {error}; train the run first or check the folder") from error
    for number, line in enumerate(text.splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} of {path} must be JSON, got: {error}; remove the line") from error
    return lines


def read_demo(folder: str | Path) -> Demo:
    """Read the folder that `vistalib demo` wrote; a `ValueError` names the file that is missing or unreadable."""
    folder = Path(folder)
    record = read_json(folder / "demo.json")
    found = {run["name"]: run for run in record["runs"]}
    runs = {name: found[name] for name in ORDER if name in found}
    if not {"finetune", "scratch"} <= set(runs):
        raise ValueError(f"demo.json must hold the runs finetune and scratch, got {', '.join(found) or 'none'}; run the demo to its end")
    return Demo(
        record=record,
        runs=runs,
        logs={name: read_log(folder / run["folder"] / "log.jsonl") for name, run in runs.items()},
        examples=_arrays(folder / "examples.npz"),
        sampling=_arrays(folder / "sampling.npz") if (folder / "sampling.npz").exists() else None,
    )


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into the demo's `folder` and return its path.

    `sampling.npz` and the record's `scripts_check` may be missing; their sections are then left out. Raises `ValueError` naming
    the file when another one is missing or unreadable.
    """
    demo = read_demo(folder)
    parts = [
        sections.pictures(demo),
        sections.curves(demo),
        sections.scores(demo),
        sections.confusion(demo),
        sections.sampling(demo) if demo.sampling else None,
        sections.check(demo) if demo.record.get("scripts_check") else None,
        sections.facts(demo),
        sections.commands(demo),
    ]
    shown = [part for part in parts if part is not None]
    names = [[name, *color] for name, color in zip(demo.record["classes"], demo.record["colors"], strict=True)]
    headline, lead = sections.answer(demo)
    page = Template(_asset("report.html")).substitute(
        title=escape(headline),
        lead=lead,
        kicker=sections.kicker(demo),
        tiles=sections.tiles(demo),
        hero=sections.hero(demo),
        navigation="".join(f'<a href="#{part.anchor}">{escape(part.short)}</a>' for part in shown),
        sections="\n".join(part.html for part in shown),
        light=page_variables(dark=False),
        dark=page_variables(dark=True),
        style=_asset("report.css"),
        script=_asset("report.js"),
        classes=json.dumps(names).replace("<", "\\u003c"),
    )
    path = Path(folder) / "report.html"
    write_text(path, page)
    return path


def _arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be a readable .npz file, got: {error}; run the demo again") from error


def _asset(name: str) -> str:
    return resources.files("vistalib.viz").joinpath("page", name).read_text(encoding="utf-8")
