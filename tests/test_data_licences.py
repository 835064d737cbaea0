"""The terms of the datasets: said once, to the user, and never about streets that were drawn."""

import pytest
from data_helpers import write_cityscapes, write_vistas

from vistalib.data import Cityscapes, Vistas


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))


def test_terms_are_said_at_first_use_and_not_again(tmp_path, capsys):
    root = write_vistas(tmp_path / "vistas")
    Vistas(root, "training")
    said = capsys.readouterr()
    assert "Mapillary Vistas has terms of its own" in said.err
    assert said.out == ""
    Vistas(root, "validation")
    assert capsys.readouterr().err == ""


def test_each_dataset_has_its_own_terms(tmp_path, capsys):
    Vistas(write_vistas(tmp_path / "vistas"), "training")
    Cityscapes(write_cityscapes(tmp_path / "cityscapes"), "train")
    said = capsys.readouterr().err
    assert said.count("terms of its own") == 2
    assert "cityscapes-dataset.com/license" in said


def test_drawn_streets_need_no_terms(tmp_path, capsys):
    root = write_vistas(tmp_path / "vistas")
    (root / "synthetic.json").write_text("{}")
    Vistas(root, "training")
    assert capsys.readouterr().err == ""


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the cache should be")
    root = write_vistas(tmp_path / "vistas")
    for _ in range(2):
        Vistas(root, "training")
        assert "terms" in capsys.readouterr().err
