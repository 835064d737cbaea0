"""Prepared datasets: the same bytes where that is promised, made once, gone on with, refused where they do not fit."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import SIZE, pixels, write_cityscapes, write_folder, write_image, write_label, write_vistas

from vistalib.cli import main
from vistalib.data import (
    Augmentation,
    AugmentationSettings,
    Cityscapes,
    Folder,
    InMemory,
    Prepared,
    TrainLoader,
    Vistas,
    prepare,
    prepared,
    resize,
    resize_label,
)

AUGMENTATION = Augmentation(AugmentationSettings(scale=(80, 48), crop=(16, 20)))


@pytest.fixture
def dataset(tmp_path: Path) -> Folder:
    return Folder(write_folder(tmp_path / "own"), "train")


def batches(data, steps: int = 4) -> list[dict[str, torch.Tensor]]:
    return [batch for _, batch in zip(range(steps), TrainLoader(data, AUGMENTATION, batch_size=3).batches())]


@pytest.mark.parametrize(
    "make",
    [
        lambda root: Vistas(write_vistas(root), "training+validation"),
        lambda root: Cityscapes(write_cityscapes(root), "train"),
        lambda root: Folder(write_folder(root), "train"),
    ],
    ids=["vistas", "cityscapes", "folder"],
)
def test_raw_copies_give_the_samples_that_the_files_give(make, tmp_path):
    data = make(tmp_path / "data")
    assert prepare(data, tmp_path / "cache", "raw").exact
    cached = Prepared(data, tmp_path / "cache")
    assert cached.exact
    for one, other in zip(batches(data), batches(cached), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_raw_copies_read_only_the_pages_of_a_window(dataset, tmp_path):
    prepare(dataset, tmp_path / "cache", "raw")
    image, label = Prepared(dataset, tmp_path / "cache").open(0)
    assert isinstance(image.base, np.memmap)
    assert isinstance(label.base, np.memmap)


def test_jpeg_copies_have_the_labels_and_nearly_the_pixels(dataset, tmp_path):
    assert not prepare(dataset, tmp_path / "cache", "jpeg").exact
    cached = Prepared(dataset, tmp_path / "cache")
    assert not cached.exact
    for i in range(len(dataset)):
        (image, label), (near, same) = dataset.read(i), cached.read(i)
        np.testing.assert_array_equal(label, same)
        assert np.abs(image.astype(int) - near).mean() < 3  # measured 1.2: these are tiny and colourful


@pytest.mark.parametrize("size", [(1100, 1200), (1200, 1100), (600, 2100)], ids=lambda size: f"{size[1]}x{size[0]}")
def test_larger_images_are_resized_into_the_box_and_said_to_differ(size, tmp_path):
    root = write_folder(tmp_path / "own")
    photo = pixels(0).repeat(-(-size[0] // SIZE[0]), 0).repeat(-(-size[1] // SIZE[1]), 1)[: size[0], : size[1]]
    write_image(root / "images" / "train" / "00.png", photo)
    (root / "images" / "train" / "00.jpg").unlink()
    write_label(root / "labels" / "train" / "00.png", photo[..., 0] % 3)
    data = Folder(root, "train")
    assert not prepare(data, tmp_path / "cache", "raw").exact
    image, label = Prepared(data, tmp_path / "cache").read(0)
    np.testing.assert_array_equal(image, resize(photo, (2048, 1024)))
    np.testing.assert_array_equal(label, resize_label(data.read(0)[1], (2048, 1024)))


def test_a_split_is_read_from_the_copies_of_several(tmp_path):
    root = write_vistas(tmp_path / "vistas")
    prepare(Vistas(root, "training+validation"), tmp_path / "cache", "raw")
    part = Vistas(root, "validation")
    cached = Prepared(part, tmp_path / "cache")
    for i in range(len(part)):
        assert all((a == b).all() for a, b in zip(part.read(i), cached.read(i)))


def test_a_stopped_preparation_goes_on_where_it_was(dataset, tmp_path, monkeypatch):
    written, real = [], prepared._write

    def stopping(data, i, folder, kind):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(i)
        return real(data, i, folder, kind)

    monkeypatch.setattr(prepared, "_write", stopping)
    monkeypatch.setattr(prepared, "PROBE", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, tmp_path / "cache", "raw")
    with pytest.raises(ValueError, match="must be finished, got one that was stopped"):
        Prepared(dataset, tmp_path / "cache")
    (tmp_path / "cache" / "images" / ".000004.half.npy").write_bytes(b"half")
    monkeypatch.setattr(prepared, "_write", lambda data, i, *rest: written.append(i) or real(data, i, *rest))
    prepare(dataset, tmp_path / "cache", "raw")
    assert sorted(written) == list(range(len(dataset)))
    assert sorted(path.name for path in (tmp_path / "cache" / "images").iterdir()) == [f"{i:06}.npy" for i in range(5)]
    assert len(Prepared(dataset, tmp_path / "cache")) == len(dataset)


def test_what_is_to_be_written_is_foretold(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "PROBE", 2)
    told = []
    prepare(dataset, tmp_path / "cache", "raw", foretell=told.append)
    assert (told[0].images, told[0].total) == (3, 5)
    assert told[0].bytes == 3 * (4 * SIZE[0] * SIZE[1] + 2 * 128)


def test_a_full_disk_is_told_before_it_is_full(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match=r"must have room for .* GB more, got 0\.0 GB free; make room"):
        prepare(dataset, tmp_path / "cache", "raw")


def test_changed_files_are_refused(dataset, tmp_path):
    prepare(dataset, tmp_path / "cache", "raw")
    write_label(dataset.label_path(2), np.zeros(SIZE, np.uint8))
    os.utime(dataset.label_path(2), ns=(1, 1))
    with pytest.raises(ValueError, match=r"02\.jpg, which has changed since; prepare it again, in a new folder"):
        Prepared(dataset, tmp_path / "cache")
    with pytest.raises(ValueError, match="first other one 02"):
        prepare(dataset, tmp_path / "cache", "raw")


def test_another_map_is_refused(tmp_path):
    root = write_vistas(tmp_path / "vistas")
    prepare(Vistas(root, "training"), tmp_path / "cache", "raw")
    with pytest.raises(ValueError, match=r"must be prepared with the map .* got other classes, tables"):
        Prepared(Vistas(root, "training", map="native"), tmp_path / "cache")


def test_images_that_were_not_prepared_are_named(tmp_path):
    root = write_vistas(tmp_path / "vistas")
    prepare(Vistas(root, "training"), tmp_path / "cache", "raw")
    with pytest.raises(ValueError, match=r"photo100\.jpg, which is not there"):
        Prepared(Vistas(root, "validation"), tmp_path / "cache")


def test_another_kind_needs_another_folder(dataset, tmp_path):
    prepare(dataset, tmp_path / "cache", "raw")
    with pytest.raises(ValueError, match="got raw of 5 images for jpeg of 5"):
        prepare(dataset, tmp_path / "cache", "jpeg")


def test_a_folder_with_other_files_is_left_alone(dataset, tmp_path):
    with pytest.raises(ValueError, match="must be prepared in a new or empty folder"):
        prepare(dataset, tmp_path / "own", "raw")


def test_a_damaged_file_is_named(dataset, tmp_path):
    dataset.image_path(4).write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"04\.jpg must be a whole JPEG"):
        prepare(dataset, tmp_path / "cache", "raw")


def test_copies_can_be_kept_in_memory(dataset, tmp_path):
    prepare(dataset, tmp_path / "cache", "raw")
    kept = InMemory(Prepared(dataset, tmp_path / "cache"))
    assert all((a == b).all() for a, b in zip(kept.read(1), dataset.read(1)))


def test_the_command_says_what_it_will_take_and_how_to_use_it(tmp_path, capsys):
    root = write_folder(tmp_path / "own")
    assert main(["data", "prepare", str(tmp_path / "cache"), "--folder", str(root), "--cache", "jpeg"]) == 0
    said = capsys.readouterr().out
    assert "training will see pixels that differ a little" in said
    assert f"add --cache {tmp_path / 'cache'} to `vistalib train`" in said
    assert json.loads((tmp_path / "cache" / "cache.json").read_text())["finished"]
