"""Exercises of the notebooks: the unsolved form fails its checker, the folded solution passes it."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT

from vistalib import course
from vistalib.course import Verdict, check_believable, check_flattering, check_gain, check_iou, check_losers, check_mean_iou

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHECKERS = {name: getattr(course, name) for name in course.__all__ if name.startswith("check_")}


def _street() -> np.ndarray[Any, Any]:
    """A label map with four large classes, many small ones, and ignored pixels below."""
    target = np.repeat(np.array([10, 2, 8, 0], np.uint8), 16)[:, None] * np.ones((1, 64), np.uint8)
    for place, class_id in enumerate((5, 6, 7, 11, 12, 13, 17, 18)):
        target[30:34, 8 * place : 8 * place + 3] = class_id
    target[-6:] = 255
    return target


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _exercises() -> list[Any]:
    found = []
    for path in NOTEBOOKS:
        cells = _cells(path)
        for cell, after in pairwise(cells):
            if "exercise" in cell["metadata"].get("tags", []):
                found.append(pytest.param(_source(cell), _source(after), id=f"{path.stem}:{cell['id']}"))
    return found


def _verdict(cell: str, function: str) -> Verdict:
    """The value of the exercise's cell, with `function` in place of the reader's."""
    call = cell.rstrip().splitlines()[-1]
    names: dict[str, Any] = {"np": np, "truths": [_street()], **CHECKERS}
    exec(function, names)
    verdict = eval(call, names)
    assert isinstance(verdict, Verdict)
    return verdict


@pytest.mark.parametrize(("cell", "solution"), _exercises())
def test_unsolved_exercise_fails(cell: str, solution: str) -> None:
    assert not _verdict(cell, "\n".join(cell.rstrip().splitlines()[:-1]))


@pytest.mark.parametrize(("cell", "solution"), _exercises())
def test_folded_solution_passes(cell: str, solution: str) -> None:
    code = re.search(r"```python\n(.*?)```", solution, re.DOTALL)
    assert code, "the cell after an exercise must hold its solution"
    verdict = _verdict(cell, code[1])
    assert verdict, verdict.message


def test_every_notebook_with_a_checker_has_tagged_exercises() -> None:
    for path in NOTEBOOKS:
        cells = _cells(path)
        calls = [
            cell for cell in cells if re.search(r"^check_\w+\(", _source(cell), re.MULTILINE) and cell["cell_type"] == "code"
        ]
        assert all("exercise" in cell["metadata"].get("tags", []) for cell in calls), path


def _iou(target: np.ndarray[Any, Any], prediction: np.ndarray[Any, Any], class_id: int, *, mistake: str) -> float:
    counted = target != 255
    there, said = (target == class_id) & counted, (prediction == class_id) & (counted | (mistake == "counts ignored"))
    union = (there | said).sum()
    if mistake == "adds twice":
        union = there.sum() + said.sum()
    return (there & said).sum() / union if union else (0.0 if mistake == "absent is 0" else float("nan"))


@pytest.mark.parametrize("mistake", ["counts ignored", "adds twice", "absent is 0"])
def test_iou_checker_catches(mistake: str) -> None:
    assert not check_iou(lambda target, prediction, class_id: _iou(target, prediction, class_id, mistake=mistake))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda m: np.nan_to_num(_ratio(m)).mean(), id="absent counted 0"),
        pytest.param(lambda m: np.nan_to_num(_ratio(m), nan=1).mean(), id="absent counted 1"),
        pytest.param(lambda m: _ratio(m)[m.sum(1) > 0].mean(), id="invented left out"),
        pytest.param(lambda m: m.trace() / m.sum(), id="pixel accuracy"),
        pytest.param(lambda m: "0.7", id="another number"),
        pytest.param(lambda m: m.nothing, id="raises"),
    ],
)
def test_mean_iou_checker_catches(function: Any) -> None:
    assert not check_mean_iou(function)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda t: t + 100, id="outside the classes"),
        pytest.param(lambda t: np.where(t == 255, 0, t), id="the truth"),
        pytest.param(lambda t: np.zeros_like(t), id="too much wrong"),
        pytest.param(lambda t: t[1:], id="another shape"),
        pytest.param(lambda t: t / 2, id="no integers"),
    ],
)
def test_flattering_checker_catches(function: Any) -> None:
    assert not check_flattering(function, _street())


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda s: 100 * (s["finetune"] - s["scratch_total"]), id="always the longer control"),
        pytest.param(lambda s: 100 * (s["finetune"] - min(s["scratch"], s["scratch_total"])), id="the weaker control"),
        pytest.param(lambda s: s["finetune"] - max(s["scratch"], s["scratch_total"]), id="a fraction"),
        pytest.param(lambda s: max(0, 100 * (s["finetune"] - max(s["scratch"], s["scratch_total"]))), id="hides a loss"),
    ],
)
def test_gain_checker_catches(function: Any) -> None:
    assert not check_gain(function)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda a, b: np.mean(a) > np.mean(b), id="no spread"),
        pytest.param(lambda a, b: abs(np.mean(a) - np.mean(b)) > max(np.ptp(a), np.ptp(b)), id="either way round"),
        pytest.param(lambda a, b: np.mean(a) - np.mean(b) > np.ptp(a), id="own spread only"),
        pytest.param(lambda a, b: np.mean(a) - np.mean(b) > np.ptp(b), id="the control's spread only"),
        pytest.param(lambda a, b: False, id="never"),
    ],
)
def test_believable_checker_catches(function: Any) -> None:
    assert not check_believable(function)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda a, b: [c for c in a if a[c] and b[c] and a[c] < b[c]], id="not sorted"),
        pytest.param(lambda a, b: sorted(a, key=lambda c: (a[c] or 0) - (b[c] or 0)), id="all classes"),
        pytest.param(lambda a, b: [c for c in a if a[c] < b[c]], id="trips over None"),
    ],
)
def test_losers_checker_catches(function: Any) -> None:
    assert not check_losers(function)


def test_verdict_is_escaped_in_a_page() -> None:
    assert "<b>" not in Verdict(False, "<b>")._repr_html_()


def _ratio(matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(invalid="ignore"):
        return matrix.diagonal() / (matrix.sum(0) + matrix.sum(1) - matrix.diagonal())


def test_notebooks_hold_no_outputs() -> None:
    for path in NOTEBOOKS:
        cells = _cells(path)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name
