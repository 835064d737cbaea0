"""The index: true numbers, made once, made again when something changed."""

import os

import numpy as np
import pytest
from data_helpers import SIZE, write_folder, write_label

from vistalib.data import Folder, StreetDataset, class_pixels
from vistalib.data.index import histogram


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Folder:
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    return Folder(write_folder(tmp_path / "own"), "train")


def test_the_index_tells_paths_and_sizes(dataset):
    row = dataset.index()[1]
    assert (row["name"], row["image"], row["label"]) == ("01", str(dataset.image_path(1)), str(dataset.label_path(1)))
    assert (row["height"], row["width"]) == SIZE


def test_the_histogram_counts_classes_and_ignored_pixels(dataset):
    label = dataset.read(3)[1]
    expected = [(label == value).sum() for value in (0, 1, 2, 255)]
    assert dataset.index()[3]["histogram"] == expected


def test_a_histogram_of_a_class_that_is_not_there_is_zero():
    assert histogram(np.array([[1, 1], [255, 3]], np.uint8), 5) == [0, 2, 0, 1, 0, 1]


def test_class_pixels_are_the_sums_without_ignored_ones(dataset):
    labels = np.stack([dataset.read(i)[1] for i in range(len(dataset))])
    assert class_pixels(dataset) == [(labels == value).sum() for value in range(3)]


def test_the_index_is_made_once(dataset, monkeypatch):
    dataset.index()
    monkeypatch.setattr(StreetDataset, "read_label", lambda *_: pytest.fail("the labels were read again"))
    assert len(dataset.index()) == len(dataset)


def test_a_changed_label_makes_a_new_index(dataset):
    dataset.index()
    write_label(dataset.label_path(0), np.ones(SIZE, np.uint8))
    os.utime(dataset.label_path(0), ns=(1, 1))
    assert dataset.index()[0]["histogram"] == [0, SIZE[0] * SIZE[1], 0, 0]


def test_a_damaged_label_leaves_no_half_index(dataset, tmp_path):
    dataset.label_path(4).write_bytes(b"")
    with pytest.raises(ValueError, match=r"04\.png"):
        dataset.index()
    assert not list(tmp_path.glob("cache/**/*.arrow"))
