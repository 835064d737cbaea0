"""The README keeps its word: its Python runs and prints what it says, its commands exist, its links lead somewhere."""

import re

import pytest
from helpers import ROOT, run_with_torch

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=[f"block {number}" for number in range(1, len(BLOCKS) + 1)])
def test_a_python_block_prints_what_its_comments_say(code: str) -> None:
    said = run_with_torch(code).splitlines()
    promised = re.findall(r"print.*#.*?(torch\.Size\(.*\))$", code, re.MULTILINE)
    assert promised
    assert said[: len(promised)] == promised


def test_every_make_target_it_names_exists() -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert named
    assert named <= targets


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_path_of_the_map_exists() -> None:
    paths = re.findall(r"`([a-z.]+(?:/[a-z_.]+)*)`", README.partition("## Where things are")[2].partition("##")[0])
    paths = [path for path in paths if path != "vistalib" and not path.startswith("vistalib-")]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
