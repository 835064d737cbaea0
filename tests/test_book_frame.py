"""The book's frame: what its pages promise about themselves."""

import ast
import importlib
import importlib.util
import json
import re
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
from helpers import ROOT

from vistalib.viz.style import PAGE_COLORS

BOOK, NOTEBOOKS = ROOT / "book", sorted((ROOT / "notebooks").glob("*.ipynb"))
ROOMS = ("data", "ops", "models", "train", "evaluate", "recipes", "viz", "course", "bench")
MOST_LINES = 15  # of a code cell that is not folded


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("book_build", BOOK / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("room", ROOMS)
def test_api_page_describes_every_public_name_once(room: str) -> None:
    described = re.findall(
        r"^\.\. (?:auto\w+|py:data):: (\w+)$", (BOOK / "api" / f"{room}.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(described) == sorted(importlib.import_module(f"vistalib.{room}").__all__)


@pytest.mark.parametrize(("theme", "position"), [("light", 0), ("dark", 1)])
def test_stylesheet_has_the_colours_of_figures(theme: str, position: int) -> None:
    style = (BOOK / "assets" / "book.css").read_text(encoding="utf-8")
    block = style[style.index(f'html[data-theme="{theme}"]') :].partition("}")[0]
    declared = dict(re.findall(r"--([\w-]+): (#\w+);", block))
    assert {name: declared.get(name) for name in PAGE_COLORS} == {
        name: colors[position] for name, colors in PAGE_COLORS.items()
    }


def test_course_map_marks_as_written_what_is_in_the_contents() -> None:
    written = re.findall(r'class="written"><a href="\.\./(notebooks/\w+)\.html"', (BOOK / "map.md").read_text(encoding="utf-8"))
    contents = re.findall(r"file: (notebooks/\w+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert written == contents == [f"notebooks/{path.stem}" for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_cells_are_short(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        folded = "hide-input" in cell["metadata"].get("tags", [])
        assert cell["cell_type"] == "markdown" or folded or len(cell["source"]) <= MOST_LINES, cell["id"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_is_described(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    trees = [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    shown = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "show"]
    assert len(shown) >= 4
    assert all(
        len(call.args) == 2 and isinstance(call.args[1], ast.Constant) and len(call.args[1].value) > 20 for call in shown
    )


FOREIGN = {
    "script": '<script src="https://cdn.example.org/a.js"></script>',
    "style": '<link rel="stylesheet" href="https://cdn.example.org/a.css">',
    "picture": '<img src="//cdn.example.org/a.png">',
    "frame": '<iframe src="http://example.org"></iframe>',
}
OURS = {
    "link to click": '<a href="https://example.org">there</a>',
    "local script": '<script src="../_static/a.js"></script>',
    "inline picture": '<img src="data:image/png;base64,AAAA">',
    "address of the page": '<link rel="canonical" href="https://example.org/a.html">',
}


@pytest.mark.parametrize("markup", FOREIGN.values(), ids=FOREIGN.keys())
def test_loading_from_elsewhere_is_found(build: ModuleType, tmp_path: Path, markup: str) -> None:
    (tmp_path / "page.html").write_text(f"<html><body>{markup}</body></html>")
    assert len(build.foreign(tmp_path)) == 1


@pytest.mark.parametrize("markup", OURS.values(), ids=OURS.keys())
def test_what_stays_here_is_let_through(build: ModuleType, tmp_path: Path, markup: str) -> None:
    (tmp_path / "page.html").write_text(f"<html><body>{markup}</body></html>")
    assert build.foreign(tmp_path) == []


def test_font_from_elsewhere_is_found(build: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text(
        "@font-face { src: url(https://cdn.example.org/a.woff2); } b { background: url(here.png); }"
    )
    assert len(build.foreign(tmp_path)) == 1


def test_only_named_parts_of_an_archive_are_taken(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "package"
    for name in ("es5/a.js", "es5/fonts/b.woff", "es5/c.js", "readme.md"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(source, "package")
    monkeypatch.setattr(build, "VENDOR", tmp_path / "vendor")
    build.unpack(tmp_path / "a.tgz", [("es5", ("a.js", "fonts/"), "there")])
    found = sorted(path.relative_to(tmp_path / "vendor").as_posix() for path in (tmp_path / "vendor").rglob("*.*"))
    assert found == ["there/a.js", "there/fonts/b.woff"]


def test_without_npm_it_says_so(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "VENDOR", tmp_path / "vendor")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not build.vendor()
    assert "CDN" in capsys.readouterr().out
