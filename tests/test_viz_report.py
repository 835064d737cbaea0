"""The report: complete, self-contained, escaped."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from viz_helpers import CLASSES, COLORS, write_demo

from vistalib.viz import write_report


class Page(HTMLParser):
    """A parsed page: its elements with attributes, and its visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("demo")
    record = write_demo(folder)
    return record, write_report(folder)


@pytest.fixture(scope="module")
def html(demo: tuple[dict[str, Any], Path]) -> str:
    return demo[1].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_report_lies_in_the_folder(demo: tuple[dict[str, Any], Path]) -> None:
    assert demo[1].name == "report.html"
    assert [path.name for path in demo[1].parent.glob(".*")] == []


def test_nothing_is_asked_from_outside_the_page(page: Page, html: str) -> None:
    links = [link for name in ("src", "href", "xlink:href", "srcset", "poster", "action") for link in page.all(name)]
    assert links
    assert [link[:60] for link in links if not link.startswith(("data:", "#"))] == []
    assert re.findall(r"url\((?!#)|@import|fetch\(|XMLHttpRequest|import\(", html) == []


def test_every_link_within_the_page_has_its_target(page: Page) -> None:
    targets = {link[1:] for name in ("href", "xlink:href") for link in page.all(name) if link.startswith("#")}
    assert targets <= set(page.all("id"))


def test_no_id_occurs_twice(page: Page) -> None:
    assert [name for name, count in Counter(page.all("id")).items() if count > 1] == []


def test_every_picture_has_an_alternative_text(page: Page) -> None:
    decorative = {"stain"}
    assert [a for tag, a in page.elements if tag == "img" and not a.get("alt") and a.get("class") not in decorative] == []
    assert all(a.get("aria-label") for tag, a in page.elements if tag == "svg")


def test_the_sections_come_in_order(page: Page) -> None:
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["pictures", "curves", "classes", "confusion", "sampling", "check", "facts", "commands"]


def test_the_headline_is_the_gain_over_the_stronger_control(demo: tuple[dict[str, Any], Path], page: Page) -> None:
    score = {run["name"]: round(100 * run["evaluations"][0]["mean_iou"], 1) for run in demo[0]["runs"]}
    assert score["scratch_total"] > score["scratch"]
    assert f"Pretraining adds {score['finetune'] - score['scratch_total']:.1f} points of mIoU" in page.text


def test_every_number_of_the_record_is_on_the_page(demo: tuple[dict[str, Any], Path], page: Page) -> None:
    record = demo[0]
    numbers = [f"{stage['seconds']:.1f} s" for stage in record["stages"]] + [
        "45.2 s",
        "988 MB",
        "12.3",
        "0.543",
        "24, 48",
        "9.8",
    ]
    for run in record["runs"]:
        for found in run["evaluations"]:
            numbers += [f"{100 * found[name]:.2f}" for name in ("mean_iou", "pixel_accuracy", "mean_accuracy")]
        if run["name"] != "pretrain":
            numbers += [f"{100 * value:.2f}" for value in run["evaluations"][0]["iou"].values() if value is not None]
    assert [number for number in numbers if number not in page.text] == []


@pytest.mark.parametrize("tag", ["b", "i", "recipe"])
def test_names_from_the_record_do_not_become_elements(page: Page, tag: str) -> None:
    assert tag not in {name for name, _ in page.elements}


def test_the_script_can_read_the_palette(html: str) -> None:
    (palette,) = re.findall(r'<script type="application/json" id="palette">(.*?)</script>', html)
    assert json.loads(palette) == [[name, *color] for name, color in zip(CLASSES, COLORS.tolist(), strict=True)]


def test_zero_and_undefined_classes_are_explained(page: Page) -> None:
    assert "pole (never predicted, though the truth has it)" in page.text
    assert "train (undefined and left out of the mean: neither truth nor prediction has it)" in page.text


def test_optional_parts_are_left_out(tmp_path: Path) -> None:
    record = write_demo(tmp_path)
    (tmp_path / "sampling.npz").unlink()
    del record["scripts_check"]
    (tmp_path / "demo.json").write_text(json.dumps(record))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert not {"sampling", "check"} & set(page.all("id"))
    assert not {"#sampling", "#check"} & set(page.all("href"))


def test_a_loss_is_said_as_plainly_as_a_gain(tmp_path: Path) -> None:
    record = write_demo(tmp_path)
    runs = {run["name"]: run for run in record["runs"]}
    runs["finetune"]["evaluations"], runs["scratch"]["evaluations"] = (
        runs["scratch"]["evaluations"],
        runs["finetune"]["evaluations"],
    )
    (tmp_path / "demo.json").write_text(json.dumps(record))
    assert "Pretraining costs " in Page(write_report(tmp_path).read_text(encoding="utf-8")).text


@pytest.mark.parametrize("name", ["demo.json", "examples.npz", "runs/scratch/log.jsonl"])
@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_a_missing_or_broken_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    write_demo(tmp_path)
    if damage == "missing":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text("{ not what it should be")
    with pytest.raises(ValueError, match=re.escape(name)):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_demo_without_its_main_run_is_refused(tmp_path: Path) -> None:
    record = write_demo(tmp_path)
    record["runs"] = [run for run in record["runs"] if run["name"] != "finetune"]
    (tmp_path / "demo.json").write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=r"must hold the evaluated runs finetune and scratch, got pretrain, scratch, scratch_total"
    ):
        write_report(tmp_path)
