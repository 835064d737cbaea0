"""The run's diary, `log.jsonl`: one JSON object a line, whole lines only, cut back to the checkpoint when a run is resumed.

Lines are `{"kind": "train", "iteration", "lr", "loss", ..., "grad_norm", "seconds", "data_seconds", "memory_mb"}` and
`{"kind": "evaluation", "iteration", "mean_iou", ..., "seconds"}`. `iteration` counts finished iterations, `lr` is the rate of
the last of them, losses and `grad_norm` are means over the iterations since the line before; times are seconds an iteration.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from vistalib.files import write_text
from vistalib.train.distributed import mean_over_ranks

NAME = "log.jsonl"
Line = dict[str, Any]


class JsonLog:
    """Appends lines to `folder/log.jsonl`; lines past iteration `until`, and a half-written last one, are cut first.

    A log that ends without a single line is not left behind. Without `writes` (ranks beyond the first) it only remembers.

    Raises `OSError` with what to do when the file cannot be written.
    """

    def __init__(self, folder: str | Path, *, until: int, writes: bool = True) -> None:
        self.path = Path(folder) / NAME
        self.lines = [line for line in _whole_lines(self.path) if line["iteration"] <= until]
        if writes:
            write_text(self.path, "".join(_text(line) for line in self.lines))
        self._file = self.path.open("a", encoding="utf-8") if writes else None

    def __enter__(self) -> "JsonLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            if not self.lines:
                self.path.unlink(missing_ok=True)

    def write(self, line: Line) -> None:
        """Append one line and hand it to the operating system."""
        try:
            if self._file is not None:
                self._file.write(_text(line))
                self._file.flush()
        except OSError as error:
            raise OSError(
                f"{self.path} could not be written: {error.strerror or error}; make room or mend the folder, then resume"
            ) from error
        self.lines.append(line)

    def evaluations(self) -> list[Line]:
        """The evaluation lines so far, oldest first."""
        return [line for line in self.lines if line["kind"] == "evaluation"]

    def has_evaluation(self, iteration: int) -> bool:
        """Whether the weights after `iteration` iterations were evaluated."""
        return any(line["iteration"] == iteration for line in self.evaluations())

    def sync(self) -> None:
        """Return once the lines so far lie on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())


def read_log(folder: str | Path) -> list[Line]:
    """The lines of a run's log, oldest first, without a half-written last one. Raises `ValueError` where there is no log."""
    path = Path(folder) / NAME
    if not path.is_file():
        raise ValueError(f"{folder} must be the folder of a run, it has no {NAME}; give the folder that fit() wrote")
    return _whole_lines(path)


class Window:
    """Sums of what each iteration measured since the last line of the log, kept on the device: adding never waits for it.

    In float64 sums of float32 are exact, so that a run resumed amid a window, from the mean over the ranks, logs the same.
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self._names: list[str] = list(state["sums"]) if state else []
        self._sums: Tensor | None = (
            torch.tensor(list(state["sums"].values()), dtype=torch.float64) if state and state["sums"] else None
        )
        self.steps: int = state["steps"] if state else 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one iteration's scalars; their names must be those of the iterations before."""
        row = torch.stack([value.detach() for value in values.values()]).double()  # (names,)
        self._sums = row if self._sums is None else self._sums.to(row) + row
        self._names = list(values)
        self.steps += 1

    def state(self) -> dict[str, Any]:
        """Plain JSON values from which a resumed run goes on, means over the ranks; waits for the device."""
        sums = [] if self._sums is None else mean_over_ranks(self._sums).tolist()
        return {"sums": dict(zip(self._names, sums, strict=True)), "steps": self.steps}

    def means(self) -> dict[str, float]:
        """The means over the window; waits for the device."""
        return {name: total / self.steps for name, total in self.state()["sums"].items()}


def _text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _whole_lines(path: Path) -> list[Line]:
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number} must be a JSON object, got {text[:60]!r}; remove that line") from error
    return lines
