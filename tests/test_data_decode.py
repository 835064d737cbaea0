"""Damaged files: each is refused by name, with what to do, and never passed on half."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from broken_files import claim_to_be_huge
from data_helpers import SIZE, pixels, values, write_cityscapes, write_folder, write_label, write_vistas
from PIL import Image

from vistalib.data import Cityscapes, Folder, Vistas
from vistalib.data.decode import read_image, read_label


def encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels(0))
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")
    extra = {"exif": b"Exif\0\0" + thumbnail.getvalue(), "progressive": True} if suffix == ".jpg" else {}
    image.save(buffer, "JPEG" if suffix == ".jpg" else "PNG", **extra)
    return buffer.getvalue()


def read_image_of(data: bytes, folder: Path) -> np.ndarray:
    (folder / "plain.jpg").write_bytes(data)
    return read_image(folder / "plain.jpg")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.0, 0.4, 0.9, 0.999], ids=lambda kept: f"{kept:.1%} kept")
def test_a_cut_image_is_refused(kept, suffix, tmp_path):
    path = tmp_path / f"cut{suffix}"
    data = encoded(suffix)
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} must be a whole JPEG or PNG image"):
        read_image(path)


def test_a_jpeg_with_a_thumbnail_and_bytes_behind_its_end_is_read(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(".jpg") + b"a camera's own data")
    assert read_image(path).shape == (*SIZE, 3)


def test_a_jpeg_with_fill_bytes_before_its_markers_is_read(tmp_path):
    path = tmp_path / "photo.jpg"
    data = encoded(".jpg")
    path.write_bytes(data[:2] + b"\xff" * 5 + data[2:])
    np.testing.assert_array_equal(read_image(path), read_image_of(data, tmp_path))


def test_a_jpeg_whose_only_end_mark_is_its_thumbnails_is_refused_before_decoding(tmp_path, monkeypatch):
    data = encoded(".jpg")
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[:-2])
    assert b"\xff\xd9" in data[:-2]  # the thumbnail's
    monkeypatch.setattr("cv2.imdecode", lambda *_: pixels(0))  # what older OpenCV does: the part that is there, in silence
    with pytest.raises(ValueError, match="must be a whole JPEG"):
        read_image(path)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.jpg must be a readable file, got: No such file"):
        read_image(tmp_path / "gone.jpg")


def test_a_text_file_is_no_image(tmp_path):
    (tmp_path / "photo.jpg").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"photo\.jpg must be a whole JPEG or PNG"):
        read_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize("colors", [2, 4, 16, 256])
def test_palette_indices_are_read_at_any_bit_depth(colors, tmp_path):
    label = values(0, range(colors))
    image = Image.fromarray(label)
    image.putpalette([channel for i in range(colors) for channel in (255 - i, i, 7)])
    image.save(tmp_path / "label.png", bits=(colors - 1).bit_length())
    np.testing.assert_array_equal(read_label(tmp_path / "label.png"), label)


@pytest.mark.parametrize(
    ("mode", "got"),
    [
        ("RGB", "8-bit colour (RGB)"),
        ("RGBA", "8-bit colour with alpha"),
        ("LA", "8-bit grey with alpha"),
        ("I;16", "16-bit grey"),
        ("1", "1-bit grey"),
    ],
)
def test_a_label_of_another_kind_is_refused(mode, got, tmp_path):
    path = tmp_path / "label.png"
    Image.new(mode, SIZE).save(path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} must store one class index a pixel .* got {re.escape(got)}"):
        read_label(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95], ids=lambda kept: f"{kept:.0%} kept")
def test_a_cut_label_is_refused(kept, tmp_path):
    path = tmp_path / "label.png"
    write_label(path, np.random.RandomState(0).randint(0, 60, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} must be a whole PNG"):
        read_label(path)


@pytest.mark.parametrize("reader", [read_image, read_label], ids=["image", "label"])
def test_a_header_that_asks_for_more_than_memory_is_refused(reader, tmp_path):
    path = tmp_path / "huge.png"
    write_label(path, values(0, range(4)))
    claim_to_be_huge(path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} must be a whole"):
        reader(path)


def test_a_label_that_is_no_png_is_refused(tmp_path):
    Image.fromarray(pixels(0)).save(tmp_path / "label.png", "JPEG")
    with pytest.raises(ValueError, match=r"label\.png must be a PNG that stores class indices"):
        read_label(tmp_path / "label.png")


@pytest.mark.parametrize(
    ("make", "writer", "pattern", "value", "source"),
    [
        (Vistas, write_vistas, "training/v1.2/labels/photo000.png", 66, r"config_v1\.2\.json"),
        (Cityscapes, write_cityscapes, "gtFine/train/aachen/aachen_000000_000072_gtFine_labelIds.png", 34, "label ids"),
        (Folder, write_folder, "labels/train/00.png", 4, r"classes\.json"),
    ],
    ids=["vistas", "cityscapes", "folder"],
)
def test_a_value_outside_the_table_is_refused(make, writer, pattern, value, source, tmp_path):
    root = writer(tmp_path)
    label = np.zeros(SIZE, np.uint8)
    label[:2, :3] = value
    write_label(root / pattern, label)
    dataset = make(root, "training" if make is Vistas else "train")
    with pytest.raises(ValueError, match=rf"{re.escape(pattern)} must hold only .*{source}.* names, got {value} at 6 pixels"):
        dataset.read(0)


def test_a_label_of_another_size_than_its_image_is_refused(tmp_path):
    root = write_folder(tmp_path)
    write_label(root / "labels" / "train" / "00.png", np.zeros((10, 12), np.uint8))
    with pytest.raises(
        ValueError, match=r"00\.png must have the size of its image, got a label of 12x10 for an image of 40x24"
    ):
        Folder(root, "train").read(0)
