"""The index: true numbers, made once, made again when something changed."""

import os

import numpy as np
import pytest
from data_helpers import SIZE, write_auto, write_cityscapes, write_folder, write_label, write_vistas

from vistalib.data import Cityscapes, Folder, StreetDataset, Vistas, class_pixels, class_places, source_pixels


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


def test_a_class_that_is_not_there_counts_zero(dataset):
    write_label(dataset.label_path(0), np.where(np.arange(SIZE[1]) < 10, 1, 2)[None].repeat(SIZE[0], 0).astype(np.uint8))
    assert dataset.index()[0]["histogram"] == [0, 10 * SIZE[0], 0, 30 * SIZE[0]]


def test_class_pixels_are_the_sums_without_ignored_ones(dataset):
    labels = np.stack([dataset.read(i)[1] for i in range(len(dataset))])
    assert class_pixels(dataset) == [(labels == value).sum() for value in range(3)]


def test_the_index_is_made_once(dataset, monkeypatch):
    dataset.index()
    monkeypatch.setattr(StreetDataset, "read_values", lambda *_: pytest.fail("the labels were read again"))
    assert len(dataset.index()) == len(dataset)


def test_another_map_reads_no_label_again(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    root = write_vistas(tmp_path / "vistas")
    native = Vistas(root, "training", map="native")
    expected = class_pixels(native)
    monkeypatch.setattr(StreetDataset, "read_values", lambda *_: pytest.fail("the labels were read again"))
    mapped = Vistas(root, "training")
    sky = native.classes.index("nature--sky")
    assert class_pixels(mapped)[mapped.classes.index("sky")] == expected[sky]
    assert len(mapped.index()[0]["histogram"]) == 20


def test_no_image_is_read(dataset):
    for i in range(len(dataset)):
        dataset.image_path(i).write_bytes(b"")
    assert len(dataset.index()) == len(dataset)


def test_a_value_without_a_name_is_told_with_its_file(dataset):
    write_label(dataset.label_path(3), np.full(SIZE, 4, np.uint8))
    with pytest.raises(ValueError, match=rf"03\.png must hold only the values .* got 4 at {SIZE[0] * SIZE[1]} pixels"):
        dataset.index()


def test_labels_of_two_namings_are_counted_alike(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    write_auto(write_cityscapes(tmp_path), ending="_gtFine_labelTrainIds", classes=range(19))
    dataset = Cityscapes(tmp_path, "train+train_extra", labels="auto")
    labels = [dataset.read_label(i) for i in range(len(dataset))]
    assert class_pixels(dataset) == [sum(int((label == value).sum()) for label in labels) for value in range(19)]


def test_another_threshold_makes_another_index(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    root = write_auto(tmp_path)
    least = [Cityscapes(root, "train_extra", "auto", min_probability=p).index()[0]["histogram"][-1] for p in (0.0, 0.5, 0.9)]
    assert least == sorted(set(least))


def test_the_classes_of_the_files_are_counted_whatever_the_map(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    dataset = Vistas(write_vistas(tmp_path / "vistas"), "training+validation")
    counts = np.bincount(np.stack([dataset.read_values(i) for i in range(len(dataset))]).ravel(), minlength=66)
    assert list(source_pixels(dataset).values()) == counts.tolist()


def test_places_say_where_a_class_lives(dataset):
    for i in range(len(dataset)):
        write_label(dataset.label_path(i), np.repeat(np.array([[0], [1]], np.uint8), SIZE[0] // 2, 0).repeat(SIZE[1], 1))
    sky, road, car = class_places(dataset)
    rows = np.arange(len(sky)) < len(sky) // 2
    np.testing.assert_array_equal(sky.max(1), rows)
    np.testing.assert_array_equal(road.max(1), ~rows)
    assert not car.any()


def test_the_index_saves_and_loads_like_any_dataset(dataset, tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset.index().save_to_disk(tmp_path / "saved")
    assert datasets.load_from_disk(tmp_path / "saved")[:] == dataset.index()[:]


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
