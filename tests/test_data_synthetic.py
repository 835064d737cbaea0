"""Synthetic streets: folder layouts, label files, classes shown, reproducibility, the shift between the two domains."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from PIL import Image

from vistalib.data.labels import CITYSCAPES, TRAIN_CLASSES
from vistalib.data.synthetic import synthesize
from vistalib.data.synthetic.camera import Camera, Frame, clip_near
from vistalib.data.synthetic.make import MANIFEST
from vistalib.data.synthetic.render import TRAIN_IDS, render_number, visible_classes
from vistalib.data.synthetic.scene import SCHEDULED, schedule
from vistalib.data.vistas_labels import VISTAS_V1_2

SIZE = (96, 192)
COUNT = 11


@pytest.fixture(scope="module")
def vistas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(
        tmp_path_factory.mktemp("streets") / "vistas",
        "vistas",
        num_images={"training": COUNT, "validation": 1},
        size=SIZE,
        workers=1,
    )


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(
        tmp_path_factory.mktemp("streets") / "cityscapes",
        "cityscapes",
        num_images={"train": COUNT, "val": 2},
        size=SIZE,
        workers=1,
    )


def digest(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()
    }


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_vistas_files_lie_where_the_dataset_has_them(vistas: Path) -> None:
    for split, count in (("training", COUNT), ("validation", 1)):
        keys = {p.stem for p in (vistas / split / "images").glob("*.jpg")}
        assert len(keys) == count
        assert {len(key) for key in keys} == {22}
        assert {p.stem for p in (vistas / split / "v1.2" / "labels").glob("*.png")} == keys
        assert {p.stem for p in (vistas / split / "v1.2" / "instances").glob("*.png")} == keys


def test_vistas_configuration_lists_the_classes_in_order(vistas: Path) -> None:
    labels = json.loads((vistas / "config_v1.2.json").read_text())["labels"]
    assert [entry["name"] for entry in labels] == [entry.name for entry in VISTAS_V1_2]
    assert set(labels[0]) == {"name", "readable", "color", "instances", "evaluate"}


def test_vistas_labels_are_palette_files_with_the_official_colours(vistas: Path) -> None:
    for path in (vistas / "training/v1.2/labels").glob("*.png"):
        image = Image.open(path)
        assert image.mode == "P"
        palette = image.getpalette()
        assert palette
        assert palette[: 66 * 3] == [value for entry in VISTAS_V1_2 for value in entry.color]
        assert np.asarray(image).max() < 66


def test_vistas_instances_carry_the_label_in_their_upper_byte(vistas: Path) -> None:
    for path in (vistas / "training/v1.2/instances").glob("*.png"):
        instances = read(path)
        assert instances.dtype == np.uint16
        np.testing.assert_array_equal(instances >> 8, np.asarray(Image.open(path.parent.parent / "labels" / path.name)))


def test_only_countable_vistas_classes_have_instance_numbers(vistas: Path) -> None:
    numbers = np.unique(np.concatenate([read(p).ravel() for p in (vistas / "training/v1.2/instances").glob("*.png")]))
    countable = {value for value, entry in enumerate(VISTAS_V1_2) if entry.instances}
    assert {int(n) >> 8 for n in numbers if n & 255} <= countable
    assert max(int(n) & 255 for n in numbers if n >> 8 == 55) > 1  # several cars in one street


def test_cityscapes_files_lie_where_the_dataset_has_them(cityscapes: Path) -> None:
    for split, count, cities in (("train", COUNT, {"aachen", "bochum"}), ("val", 2, {"frankfurt"})):
        images = sorted((cityscapes / "leftImg8bit" / split).rglob("*_leftImg8bit.png"))
        assert len(images) == count
        assert {p.parent.name for p in images} == cities
        for path in images:
            assert path.name.startswith(path.parent.name + "_")
            for kind in ("labelIds", "instanceIds", "color"):
                assert (
                    cityscapes / "gtFine" / split / path.parent.name / path.name.replace("leftImg8bit", f"gtFine_{kind}")
                ).exists()


def test_cityscapes_files_of_an_image_agree(cityscapes: Path) -> None:
    for path in (cityscapes / "gtFine").rglob("*labelIds.png"):
        ids, instances = read(path), read(Path(str(path).replace("labelIds", "instanceIds")))
        color = read(Path(str(path).replace("labelIds", "color")))[..., 2::-1]
        assert ids.shape == SIZE
        assert (ids.dtype, instances.dtype) == (np.uint8, np.uint16)
        assert set(np.unique(ids).tolist()) <= set(CITYSCAPES.ids)
        np.testing.assert_array_equal(np.where(instances >= 1000, instances // 1000, instances), ids)
        np.testing.assert_array_equal(color, CITYSCAPES.id_colors()[ids])


def test_cityscapes_shows_the_own_car_and_the_rectification_border(cityscapes: Path) -> None:
    ids = read(next((cityscapes / "gtFine/val").rglob("*labelIds.png")))
    assert (ids[:, 0] == 2).all()
    assert ids[-1, SIZE[1] // 2] == 1


def test_all_19_classes_occur_in_11_vistas_images(vistas: Path) -> None:
    table = TRAIN_IDS
    seen = {
        int(v) for p in (vistas / "training/v1.2/labels").glob("*.png") for v in np.unique(table[np.asarray(Image.open(p))])
    }
    assert seen - {255} == set(range(19))


def test_all_19_classes_occur_in_11_cityscapes_images(cityscapes: Path) -> None:
    table = CITYSCAPES.id_to_train_id()
    seen = {int(v) for p in (cityscapes / "gtFine/train").rglob("*labelIds.png") for v in np.unique(table[read(p)])}
    assert seen - {255} == set(range(19))


def test_every_class_is_scheduled_for_a_third_of_the_images() -> None:
    for name in SCHEDULED:
        assert sum(name in schedule(number) for number in range(11)) == 4


def test_a_scheduled_class_shows() -> None:
    for number in range(4):
        rendering = render_number("cityscapes", seed=1, split=0, number=number, size=(256, 512))
        assert schedule(number) <= visible_classes(rendering.label)


@pytest.mark.slow  # each process imports the package first
def test_the_number_of_processes_changes_no_byte(tmp_path: Path) -> None:
    one = synthesize(tmp_path / "one", "vistas", num_images=2, size=(48, 96), workers=1)
    two = synthesize(tmp_path / "two", "vistas", num_images=2, size=(48, 96), workers=2)
    assert digest(one) == digest(two)


@pytest.mark.parametrize("layout", ["vistas", "cityscapes"])
def test_the_same_request_gives_the_same_bytes(tmp_path: Path, layout: Literal["vistas", "cityscapes"]) -> None:
    one, two = (synthesize(tmp_path / name, layout, num_images=1, size=(48, 96), workers=1) for name in ("one", "two"))
    assert digest(one) == digest(two)


def test_another_seed_gives_another_street() -> None:
    one, two = (render_number("vistas", seed=seed, split=0, number=0, size=(48, 96)) for seed in (0, 1))
    assert one.image.shape != two.image.shape or not np.array_equal(one.label, two.label)


def test_training_and_validation_differ() -> None:
    one, two = (render_number("cityscapes", seed=0, split=split, number=0, size=(48, 96)) for split in (0, 1))
    assert not np.array_equal(one.label, two.label)


def test_the_two_domains_differ_in_brightness_and_in_colour(vistas: Path, cityscapes: Path) -> None:
    images = {
        "vistas": [read(p) for p in (vistas / "training/images").glob("*.jpg")],
        "cityscapes": [read(p) for p in (cityscapes / "leftImg8bit/train").rglob("*.png")],
    }
    mean = {name: np.mean([image.mean() for image in group]) for name, group in images.items()}
    vivid = {name: np.mean([np.ptp(image, axis=2).mean() for image in group]) for name, group in images.items()}
    assert mean["vistas"] > mean["cityscapes"] + 15  # measured 108 and 71
    assert vivid["vistas"] > 1.3 * vivid["cityscapes"]
    assert len({image.shape for image in images["vistas"]}) > 5
    assert len({image.shape for image in images["cityscapes"]}) == 1


def test_shares_resemble_real_streets(cityscapes: Path) -> None:
    labels = [CITYSCAPES.id_to_train_id()[read(p)] for p in (cityscapes / "gtFine/train").rglob("*labelIds.png")]
    counts = np.bincount(np.ravel(labels), minlength=256)
    share = dict(zip(TRAIN_CLASSES, counts[:19] / counts.sum(), strict=True))
    assert 0.18 < share["road"] < 0.45
    assert 0.08 < share["building"] < 0.35
    assert 0.04 < share["vegetation"] < 0.3
    assert all(
        share[name] < 0.06 for name in ("person", "rider", "motorcycle", "bicycle", "pole", "traffic light", "traffic sign")
    )


def test_the_same_request_is_reused(vistas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in vistas.rglob("*") if p.is_file()}
    synthesize(vistas, "vistas", num_images={"training": COUNT, "validation": 1}, size=SIZE)
    assert "using them" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in vistas.rglob("*") if p.is_file()} == before


def test_another_request_for_the_same_folder_is_refused(vistas: Path) -> None:
    with pytest.raises(ValueError, match="another synthetic dataset"):
        synthesize(vistas, "vistas", num_images=2, size=SIZE)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="other files"):
        synthesize(tmp_path, num_images=1, size=SIZE)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"could not be written: No space left"):
        synthesize(tmp_path / "data", num_images=1, size=SIZE, workers=1)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="data could not be written"):
        synthesize(tmp_path / "file" / "data", num_images=1, size=SIZE, workers=1)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"layout": "kitti"}, "layout must be one of"),
        ({"num_images": 0}, "num_images must be"),
        ({"num_images": {"train": 3}}, "splits training, validation"),
        ({"size": (8, 16)}, "size must be"),
        ({"workers": 0}, "workers must be"),
    ],
    ids=["layout", "none", "split", "size", "workers"],
)
def test_a_bad_request_is_answered_before_anything_is_written(
    tmp_path: Path, request_: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        synthesize(tmp_path / "data", **request_)  # type: ignore[arg-type]  # on purpose
    assert not list(tmp_path.iterdir())


def test_the_manifest_records_the_request(cityscapes: Path) -> None:
    manifest = json.loads((cityscapes / MANIFEST).read_text())
    assert manifest["num_images"] == {"train": COUNT, "val": 2}
    assert manifest["size"] == list(SIZE)


def test_ground_points_project_below_the_horizon_and_far_ones_onto_it() -> None:
    camera = Camera(200, 100, focal=180, horizon=45, mount=1.5)
    pixels = camera.project(np.array([[0.0, 0, 3], [0.0, 0, 30], [0.0, 0, 1e7]]))
    np.testing.assert_allclose(pixels[:, 1], [45 + 180 * 1.5 / 3, 45 + 180 * 1.5 / 30, 45], atol=1e-4)  # exact but for 1/1e7


def test_the_inverse_depth_plane_gives_every_depth_on_its_plane() -> None:
    camera = Camera(200, 100, focal=180, horizon=45, mount=1.5, roll=0.02)
    wall = Frame(3.0, 0.0, 9.0, heading=0.3).world([(0, 0, -4), (0, 0, 4), (0, 5, 4), (0, 2, 1)])
    a, b, c = camera.inverse_depth_plane(wall)
    u, v = camera.project(wall).T
    np.testing.assert_allclose(a * u + b * v + c, 1 / wall[:, 2], rtol=1e-9)  # worst measured 3e-15


def test_a_polygon_is_cut_where_the_camera_stands() -> None:
    cut = clip_near(np.array([[-1.0, 0, -2], [1.0, 0, -2], [1.0, 0, 4], [-1.0, 0, 4]]), 1.0)
    assert sorted(cut[:, 2]) == [1, 1, 4, 4]
    assert len(clip_near(np.full((3, 3), -1.0))) == 0
