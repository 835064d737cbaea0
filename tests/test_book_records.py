"""Numbers in the prose: looked up in records, formatted, and an error where they are not there."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import ROOT

from vistalib.course import look_up, quote, read_record, recorded_on, results_folder
from vistalib.data import Cityscapes, synthesize
from vistalib.evaluate import evaluate_dataset
from vistalib.recipes import open_model

RECORD = {
    "seconds": 12.34,
    "runs": [
        {"name": "finetune", "evaluations": [{"mode": "single scale", "mean_iou": 0.4567}, {"mode": "multi-scale + flip"}]},
        {"name": "scratch", "evaluations": []},
    ],
    "seeds": [{"seed": 0, "score": 1}, {"seed": 7, "score": 2}],
    "sizes": [512, 256],
}


@pytest.mark.parametrize(
    ("path", "form", "text"),
    [
        ("seconds", "", "12.34"),
        ("seconds", ".0f", "12"),
        ("runs.finetune.evaluations.single scale.mean_iou", ".1%", "45.7%"),
        ("seeds.7.score", "", "2"),
        ("sizes.1", "", "256"),
        ("runs.scratch.name", "", "scratch"),
    ],
)
def test_quote(path: str, form: str, text: str) -> None:
    assert quote(RECORD, path, form) == text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("minutes", "no 'minutes' on the way to 'minutes'; there is seconds, runs, seeds, sizes"),
        ("runs.finetuned.name", "there is finetune, scratch"),
        ("runs.scratch.evaluations.0", "there is nothing below"),
        ("seconds.0", "there is nothing below"),
    ],
)
def test_a_path_that_is_not_there_names_what_is(path: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        look_up(RECORD, path)


@pytest.mark.parametrize(("path", "form"), [("runs", ""), ("seconds", ".1q"), ("runs.scratch.name", ".1%")])
def test_a_value_or_format_that_does_not_fit_is_refused(path: str, form: str) -> None:
    with pytest.raises(ValueError, match=r"must be a number or a text|ormat"):
        quote(RECORD, path, form)


def test_records_are_found_from_below_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "notebooks")
    assert results_folder() == ROOT / "book" / "results"


def test_a_missing_record_names_its_file() -> None:
    with pytest.raises(ValueError, match=r"nothing\.json does not exist"):
        read_record("nothing")


@pytest.mark.parametrize("gpu", [None, "NVIDIA H100"])
def test_recorded_on_names_the_machine(gpu: str | None) -> None:
    versions = {"torch": "2.13.0"}
    facts = {"when": "2026-01-02T03:04:05+00:00", "gpu": gpu, "cpu": "a processor", "threads": 2, "versions": versions}
    said = recorded_on({"facts": facts | {"vistalib": "0.1.0", "commit": "abc"}})
    assert "2026-01-02" in said
    assert (gpu or "a processor, 2 threads") in said
    assert "commit abc" in said


def test_role_quotes_a_number_and_warns_of_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx")
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    (tmp_path / "book" / "results").mkdir(parents=True)
    (tmp_path / "book" / "results" / "kept.json").write_text(json.dumps(RECORD))
    (tmp_path / "index.rst").write_text("Book\n====\n\nIt took :record:`kept:seconds|.0f` s, or :record:`kept:hours` h.\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    warnings = (tmp_path / "warnings.txt").open("w+")
    with docutils_namespace(), warnings:
        out = str(tmp_path / "out")
        app = Sphinx(
            str(tmp_path), None, out, out, "text", confoverrides={"extensions": ["records"]}, status=None, warning=warnings
        )
        app.build()
        warnings.seek(0)
        assert "no 'hours' on the way" in warnings.read()
    assert "It took 12 s" in (tmp_path / "out" / "index.txt").read_text()


def _demo(seed: int, commit: str = "abc", **scores: float) -> dict[str, Any]:
    runs = [
        {"name": name, "evaluations": [{"mode": "single scale", "mean_iou": score, "iou": {"sky": score}}]}
        for name, score in scores.items()
    ]
    return {"facts": {"commit": commit}, "settings": {"seed": seed}, "runs": runs}


SCORES = {"pretrain": 0.25, "finetune": 0.5, "scratch": 0.0, "scratch_total": 0.375}


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    return importlib.import_module("keep")


def test_every_seed_is_compared_with_its_stronger_control(keep: ModuleType) -> None:
    other = {"pretrain": 0.25, "finetune": 0.75, "scratch": 0.5, "scratch_total": 0.25}
    found = keep.compare_seeds([_demo(0, **SCORES), _demo(1, **other)])
    assert found["gains"] == [0.125, 0.25]
    assert found["mean_gain"] == 0.1875
    assert [seed["iou"]["finetune"]["sky"] for seed in found["seeds"]] == [0.5, 0.75]
    assert found["spread"] == {"pretrain": 0.0, "finetune": 0.25, "scratch": 0.5, "scratch_total": 0.125}


@pytest.mark.parametrize(
    "other",
    [pytest.param(_demo(3, **SCORES), id="the same seed"), pytest.param(_demo(4, commit="def", **SCORES), id="another commit")],
)
def test_demos_that_cannot_be_compared_are_refused(keep: ModuleType, other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a seed of its own|of one commit"):
        keep.compare_seeds([_demo(3, **SCORES), other])


def test_the_kept_model_labels_streets_that_it_has_not_seen(tmp_path: Path) -> None:
    synthesize(tmp_path / "streets", "cityscapes", num_images={"val": 2}, seed=9)
    trained = open_model(results_folder() / "streets", device="cpu")
    found = evaluate_dataset(trained.model, Cityscapes(tmp_path / "streets", "val"), scale=trained.scale)
    assert found.pixel_accuracy > 0.6  # measured: 0.83
