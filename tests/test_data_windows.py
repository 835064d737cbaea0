"""Windows have the bytes of the whole: of files of every kind, of labels under a table, of resized images."""

import io
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from data_helpers import pixels, values, write_cityscapes, write_folder, write_label, write_vistas
from PIL import Image, PngImagePlugin

from vistalib.data import Augmentation, AugmentationSettings, Cityscapes, Folder, Vistas, png, resize, resize_label
from vistalib.data.augment import fitted_size
from vistalib.data.decode import read_image, read_label
from vistalib.data.windows import PngFile, Resized, open_image

PHOTO = np.asarray(Image.fromarray(pixels(1)).resize((203, 171), Image.Resampling.BICUBIC))
PHOTO = np.clip(PHOTO + np.random.RandomState(0).normal(0, 12, PHOTO.shape), 0, 255).astype(np.uint8)
WINDOWS = [(0, 1, 0, 1), (0, 40, 10, 203), (17, 90, 5, 77), (100, 171, 0, 203), (160, 500, 100, 500)]


def stored(kind: str, **how) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, kind, **how)
    return file.getvalue()


def resized_window(source: np.ndarray, size: tuple[int, int], box: tuple[slice, slice], interpolation: int) -> None:
    whole = cv2.resize(source, size[::-1], interpolation=interpolation)
    window = Resized(source, size, interpolation)[box]
    np.testing.assert_array_equal(window, whole[box], f"{source.shape} to {size}, {box}, interpolation {interpolation}")


def assert_resized_windows_are_cut_from_the_whole(trials: int, seed: int) -> None:
    rng = np.random.RandomState(seed)
    for trial in range(trials):
        side = (12, 90, 700)[trial % 3]
        source = rng.randint(0, 256, (rng.randint(1, side), rng.randint(1, side), 3), np.uint8)
        kinds = [rng.uniform(0.1, 4, 2), [rng.uniform(0.1, 4)] * 2, [0.5] * 2, [1.0] * 2, [2.0] * 2, [1 + 1 / side] * 2]
        size = tuple(max(1, int(a * b + 0.5)) for a, b in zip(source.shape, kinds[trial % len(kinds)]))
        first = [rng.randint(0, side) for side in size]
        box = tuple(slice(a, a + rng.randint(1, side + 9)) for a, side in zip(first, size))
        resized_window(source, size, box, cv2.INTER_LINEAR)
        resized_window(np.ascontiguousarray(source[..., 0]), size, box, cv2.INTER_NEAREST)


@pytest.mark.parametrize("filters", [cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_FILTER_PAETH, cv2.IMWRITE_PNG_ALL_FILTERS])
@pytest.mark.parametrize("kind", ["a photograph", "palette indices"])
def test_every_decoder_undoes_the_filters_alike(kind, filters, monkeypatch):
    pixels = PHOTO if kind == "a photograph" else values(3, range(60))
    stored_pixels = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2BGR) if kind == "a photograph" else pixels
    written = cv2.imencode(".png", stored_pixels, [cv2.IMWRITE_PNG_FILTER, filters])[1].tobytes()
    found = png.parse(written if kind == "a photograph" else as_palette(written))
    for decoder in (pytest.importorskip("pyspng").load, png._by_opencv):
        monkeypatch.setattr(png, "_decoder", lambda decoder=decoder: decoder)
        np.testing.assert_array_equal(found.rows(5), pixels[:5])
        np.testing.assert_array_equal(found.rows(found.height), pixels)


@pytest.mark.parametrize("library", ["pyspng", "OpenCV"])
def test_rows_under_a_filter_that_does_not_exist_are_refused(library, monkeypatch):
    decoder = pytest.importorskip("pyspng").load if library == "pyspng" else png._by_opencv
    monkeypatch.setattr(png, "_decoder", lambda: decoder)
    whole = png.parse(stored("PNG"))
    rows = bytearray(zlib.decompress(whole.stream))
    rows[0] = 9
    with pytest.raises(ValueError, match="its rows do not decode"):
        replace(whole, stream=zlib.compress(bytes(rows))).rows(3)


@pytest.mark.parametrize("filters", [cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_FILTER_PAETH, cv2.IMWRITE_PNG_ALL_FILTERS])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_window_of_a_png_has_the_bytes_of_the_whole(filters, window, tmp_path):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", PHOTO[..., ::-1], [cv2.IMWRITE_PNG_FILTER, filters])[1].tobytes())
    top, bottom, left, right = window
    opened = open_image(tmp_path / "a.png")
    assert isinstance(opened, PngFile)
    np.testing.assert_array_equal(opened[top:bottom, left:right], PHOTO[top:bottom, left:right])


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return stored("JPEG", exif=exif)


def turned_png() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return stored("PNG", exif=exif)


def of_mode(mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(file, kind)
    return file.getvalue()


UNCOMMON = {
    "JPEG": lambda: stored("JPEG"),
    "progressive JPEG": lambda: stored("JPEG", progressive=True),
    "turned JPEG": turned,
    "turned PNG": turned_png,
    "grey JPEG": lambda: of_mode("L", "JPEG"),
    "four-colour JPEG": lambda: of_mode("CMYK", "JPEG"),
    "grey PNG": lambda: of_mode("L", "PNG"),
    "palette PNG": lambda: of_mode("P", "PNG"),
    "PNG with alpha": lambda: of_mode("RGBA", "PNG"),
    "16-bit PNG": lambda: cv2.imencode(".png", PHOTO.astype(np.uint16) * 200)[1].tobytes(),
}


@pytest.mark.parametrize("kind", UNCOMMON)
def test_an_uncommon_file_is_decoded_as_the_reader_of_whole_images_does(kind, tmp_path):
    path = tmp_path / ("a.jpg" if "JPEG" in kind else "a.png")
    path.write_bytes(UNCOMMON[kind]())
    opened = open_image(path)
    assert isinstance(opened, np.ndarray)
    np.testing.assert_array_equal(opened, read_image(path))


def test_words_in_a_png_keep_nobody_from_windows(tmp_path):
    words = PngImagePlugin.PngInfo()
    words.add_text("Software", "a camera")
    (tmp_path / "a.png").write_bytes(stored("PNG", pnginfo=words))
    assert isinstance(open_image(tmp_path / "a.png"), PngFile)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_file_is_refused_when_it_is_opened(kind, tmp_path):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(stored(kind)[:-200])
    with pytest.raises(ValueError, match=rf"a\.{kind.lower()} must be a whole JPEG or PNG image"):
        open_image(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_damage_anywhere_in_a_png_is_named_when_it_is_opened(share, tmp_path):
    data = bytearray(stored("PNG"))
    data[int(len(data) * share)] ^= 255
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.png must be a whole JPEG or PNG image"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["a photograph", "palette indices"])
def test_a_png_is_inflated_alike_without_isal(kind, monkeypatch):
    label = values(3, range(60))
    data = stored("PNG") if kind == "a photograph" else palette_png(label)
    expected = PHOTO if kind == "a photograph" else label
    for library in (pytest.importorskip("isal.isal_zlib"), zlib):
        monkeypatch.setattr(png, "_zlib", lambda library=library: library)
        found = png.parse(data)
        np.testing.assert_array_equal(found.rows(5), expected[:5])
        np.testing.assert_array_equal(found.rows(found.height), expected)


@pytest.mark.parametrize("filters", [cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_FILTER_PAETH, cv2.IMWRITE_PNG_ALL_FILTERS])
@pytest.mark.parametrize("kind", ["a photograph", "palette indices"])
def test_every_decoder_undoes_the_filters_alike(kind, filters, monkeypatch):
    pixels = PHOTO if kind == "a photograph" else values(3, range(60))
    stored_pixels = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2BGR) if kind == "a photograph" else pixels
    written = cv2.imencode(".png", stored_pixels, [cv2.IMWRITE_PNG_FILTER, filters])[1].tobytes()
    found = png.parse(written if kind == "a photograph" else as_palette(written))
    for decoder in (pytest.importorskip("pyspng").load, png._by_opencv):
        monkeypatch.setattr(png, "_decoder", lambda decoder=decoder: decoder)
        np.testing.assert_array_equal(found.rows(5), pixels[:5])
        np.testing.assert_array_equal(found.rows(found.height), pixels)


@pytest.mark.parametrize("library", ["pyspng", "OpenCV"])
def test_rows_under_a_filter_that_does_not_exist_are_refused(library, monkeypatch):
    decoder = pytest.importorskip("pyspng").load if library == "pyspng" else png._by_opencv
    monkeypatch.setattr(png, "_decoder", lambda: decoder)
    whole = png.parse(stored("PNG"))
    rows = bytearray(zlib.decompress(whole.stream))
    rows[0] = 9
    with pytest.raises(ValueError, match="its rows do not decode"):
        replace(whole, stream=zlib.compress(bytes(rows))).rows(3)


@pytest.mark.parametrize("filters", [cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_FILTER_UP, cv2.IMWRITE_PNG_ALL_FILTERS])
def test_palette_indices_are_read_under_every_filter(filters, tmp_path):
    label = values(1, range(60))
    grey = cv2.imencode(".png", label, [cv2.IMWRITE_PNG_FILTER, filters])[1].tobytes()
    (tmp_path / "label.png").write_bytes(as_palette(grey))
    np.testing.assert_array_equal(read_label(tmp_path / "label.png"), label)


def as_palette(grey: bytes) -> bytes:
    """A grey PNG, whose values become indices."""
    header = b"IHDR" + grey[16:25] + bytes([png.PALETTE, 0, 0, 0])
    colors = b"PLTE" + bytes(range(256)) * 3
    parts = [header, colors]
    begun = b"".join(len(part[4:]).to_bytes(4, "big") + part + zlib.crc32(part).to_bytes(4, "big") for part in parts)
    return grey[:8] + begun + grey[33:]


def palette_png(label: np.ndarray) -> bytes:
    image, file = Image.fromarray(label), io.BytesIO()
    image.putpalette([channel for i in range(256) for channel in (255 - i, i, 7)])
    image.save(file, "PNG")
    return file.getvalue()


def test_resized_windows_are_cut_from_the_whole():
    assert_resized_windows_are_cut_from_the_whole(1500, seed=0)


@pytest.mark.slow
def test_resized_windows_of_many_more_sizes_are_cut_from_the_whole():
    assert_resized_windows_are_cut_from_the_whole(30_000, seed=1)


@pytest.mark.parametrize(
    ("source", "size"), [((9, 1), (10, 1)), ((42, 21), (43, 21)), ((1, 10), (1, 11))], ids=lambda size: "x".join(map(str, size))
)
def test_a_part_that_keeps_its_size_is_resized_all_the_same(source, size):
    picture = np.random.RandomState(0).randint(0, 256, (*source, 3), np.uint8)
    for bottom in range(1, size[0] + 1):
        for right in range(1, size[1] + 1):
            box = slice(bottom - 1, bottom), slice(right - 1, right)
            resized_window(picture, size, box, cv2.INTER_LINEAR)
            resized_window(np.ascontiguousarray(picture[..., 0]), size, box, cv2.INTER_NEAREST)


@pytest.mark.parametrize("size", [(1024, 2048), (3000, 4000), (4032, 3024), (768, 1024)], ids=lambda s: f"{s[1]}x{s[0]}")
def test_resized_windows_of_real_sizes_are_cut_from_the_whole(size):
    rng = np.random.RandomState(sum(size))
    source = rng.randint(0, 256, (*size, 3), np.uint8)
    for ratio in (0.5, 0.7371, 1.0, 1.3913):
        height, width = fitted_size(*size, (int(2048 * ratio), int(1024 * ratio)))[::-1]
        top, left = rng.randint(0, max(1, height - 511)), rng.randint(0, max(1, width - 1023))
        box = slice(top, top + 512), slice(left, left + 1024)
        resized_window(source, (height, width), box, cv2.INTER_LINEAR)
        resized_window(source[..., 0].copy(), (height, width), box, cv2.INTER_NEAREST)


DATASETS = {
    "vistas": lambda root: Vistas(write_vistas(root), "training"),
    "cityscapes": lambda root: Cityscapes(write_cityscapes(root), "train"),
    "folder": lambda root: Folder(write_folder(root), "train"),
}


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_opened_has_the_bytes_of_what_is_read(name, tmp_path):
    dataset = DATASETS[name](tmp_path)
    box = slice(3, 20), slice(7, 33)
    for i in range(len(dataset)):
        for opened, whole in zip(dataset.open(i), dataset.read(i)):
            assert opened.shape == whole.shape
            np.testing.assert_array_equal(opened[box], whole[box])


@pytest.mark.parametrize("name", DATASETS)
def test_an_opened_sample_is_augmented_as_the_whole_one(name, tmp_path):
    dataset = DATASETS[name](tmp_path)
    augmentation = Augmentation(AugmentationSettings(scale=(80, 48), crop=(20, 28)))
    for seed in range(20):
        one = augmentation(*dataset.open(seed % len(dataset)), np.random.RandomState(seed))
        other = augmentation(*dataset.read(seed % len(dataset)), np.random.RandomState(seed))
        assert all((a == b).all() for a, b in zip(one, other))


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_is_cut_from_the_wholly_resized_sample(seed):
    settings = AugmentationSettings(scale=(120, 60), crop=(24, 40), photometric=False, flip=seed % 2)
    label = values(seed, range(5)).repeat(3, 0).repeat(3, 1)
    picture = np.random.RandomState(seed).randint(0, 256, (*label.shape, 3), np.uint8)
    rng, plain = np.random.RandomState(seed), np.random.RandomState(seed)
    crop = Augmentation(settings).crop(picture, label, rng)
    low, high = settings.ratio_range
    ratio = plain.random_sample() * (high - low) + low
    scale = int(120 * ratio), int(60 * ratio)
    whole, target = resize(picture, scale), resize_label(label, scale)
    turn = slice(None, None, -1 if seed % 2 else 1)
    found = [
        (top, left)
        for top in range(max(target.shape[0] - 24, 0) + 1)
        for left in range(max(target.shape[1] - 40, 0) + 1)
        if np.array_equal(target[top : top + 24, left : left + 40][:, turn], crop.label)
        and np.array_equal(whole[top : top + 24, left : left + 40][:, turn], crop.image)
    ]
    assert found


def test_a_value_outside_the_table_is_refused_wherever_it_lies(tmp_path):
    root = write_folder(tmp_path)
    label = np.zeros((24, 40), np.uint8)
    label[-1, -1] = 4
    write_label(root / "labels" / "train" / "00.png", label)
    with pytest.raises(ValueError, match=r"00\.png must hold only .* got 4 at 1 pixels"):
        Folder(root, "train").open(0)
