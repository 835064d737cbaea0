"""Recorded results: the JSON files of `book/results`, from which pages and notebooks take every measured number.

A path into a record is keys joined by dots. In a list, a key is a position or the `name`, `mode` or `seed` of an entry:
`runs.finetune.evaluations.single scale.mean_iou`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vistalib.files import read_json

NAMING = ("name", "mode", "seed")  # what an entry of a list may be found by


def results_folder() -> Path:
    """`book/results` of the checkout around the working directory, or of the one this package runs from.

    Raises `ValueError` where neither is in a checkout.
    """
    here = Path.cwd()
    for root in (here, *here.parents, Path(__file__).resolve().parents[2]):
        folder = root / "book" / "results"
        if folder.is_dir():
            return folder
    raise ValueError(f"recorded results lie in book/results of a checkout, got {here} outside of one; start in the checkout")


def read_record(name: str) -> Any:
    """The record `name`, without its suffix: `read_record("demo")` reads `book/results/demo.json`."""
    return read_json(results_folder() / f"{name}.json")


def look_up(record: Any, path: str) -> Any:
    """The value at `path` in a record; `ValueError` names the key that is not there and those that are."""
    value = record
    for key in path.split("."):
        choices = _choices(value)
        if key not in choices:
            raise ValueError(f"no {key!r} on the way to {path!r}; there is {', '.join(choices) or 'nothing below'}")
        value = choices[key]
    return value


def quote(record: Any, path: str, form: str = "") -> str:
    """The value at `path` as text in a Python format: `quote(record, "seconds", ".0f")`; ".1%" shows a fraction in percent.

    `ValueError` for a path that is not there, for a value that is no number or text, and for a format that does not fit.
    """
    value = look_up(record, path)
    if not isinstance(value, str | int | float):
        raise ValueError(f"a quoted value must be a number or a text, got {type(value).__name__} at {path!r}")
    return format(value, form)


def recorded_on(record: Mapping[str, Any]) -> str:
    """One sentence on where a record comes from: date, machine, versions and commit, from its `facts`."""
    facts = record["facts"]
    threads = "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    machine = facts["gpu"] or f"{facts['cpu']}, {threads}"
    code = f"vistalib {facts['vistalib']}" + (f", commit {facts['commit']}" if facts["commit"] else "")
    return f"Recorded on {facts['when'][:10]} ({machine}; torch {facts['versions']['torch']}, {code})."


def _choices(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        numbered = {str(position): entry for position, entry in enumerate(value)}
        entries = [entry for entry in value if isinstance(entry, Mapping)]
        named = {str(entry[key]): entry for key in NAMING for entry in entries if isinstance(entry.get(key), str | int)}
        return named or numbered
    return {}
