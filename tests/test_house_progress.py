"""Progress where standard error is no terminal: plain lines, few of them."""

import re

import pytest

from vistalib.progress import progress


def test_the_first_item_and_the_end_are_told_and_what_is_quick_between_them_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    told = list[str]()
    for _ in progress(range(5), "drawing"):
        told.append(capsys.readouterr().err)
    assert [re.sub(r"\d+ s", "T s", line) for line in told] == ["", "drawing: 1/5, T s\n", "", "", ""]
    assert re.fullmatch(r"drawing: 5/5, \d+ s\n", capsys.readouterr().err)
