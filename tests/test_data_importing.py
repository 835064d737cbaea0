"""Imports: colour pictures and COCO files become a folder dataset that says the same."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_helpers import SIZE, pixels, values, write_image
from PIL import Image

from vistalib.data import Folder, import_coco, import_colors
from vistalib.files import NotWritten

COLORS = np.array([[70, 130, 180], [128, 64, 128], [0, 0, 0], [0, 0, 142]], np.uint8)
CLASSES = {
    "classes": [{"name": name, "color": color.tolist()} for name, color in zip(("sky", "road", "void", "car"), COLORS)],
    "ignore": 2,
}


@pytest.fixture
def painted(tmp_path) -> Path:
    """Two photographs and their label pictures, one of them a palette PNG."""
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    for i in range(2):
        write_image(tmp_path / "images" / f"{i}.png", pixels(i))
    write_image(tmp_path / "colors" / "0_color.png", COLORS[values(0, range(4))])
    palette = Image.fromarray(values(1, range(4)))
    palette.putpalette(COLORS.ravel().tolist())
    palette.save(tmp_path / "colors" / "1_color.png")
    return tmp_path


def by_colors(folder: Path, split: str = "train"):
    return import_colors(folder / "images", folder / "colors", folder / "classes.json", folder / "own", split=split)


def test_colours_become_classes(painted):
    done = by_colors(painted)
    dataset = Folder(done.root, "train")
    assert (done.images, done.left_out, dataset.classes) == (2, 0, ("sky", "road", "car"))
    for i in range(2):
        image, label = dataset.read(i)
        np.testing.assert_array_equal(image, pixels(i))
        np.testing.assert_array_equal(label, np.array([0, 1, 255, 2])[values(i, range(4))])


def test_an_image_without_label_is_left_out_and_counted(painted):
    write_image(painted / "images" / "9.png", pixels(9))
    assert by_colors(painted).left_out == 1


def test_a_second_split_joins_the_first(painted):
    by_colors(painted)
    by_colors(painted, "val")
    assert len(Folder(painted / "own", "val")) == len(Folder(painted / "own", "train")) == 2


def test_a_split_of_other_classes_is_refused(painted):
    by_colors(painted)
    (painted / "classes.json").write_text(json.dumps({**CLASSES, "ignore": None}))
    with pytest.raises(ValueError, match=r"every split of a folder must have the same classes, got others in .*own"):
        by_colors(painted, "val")


def test_an_unknown_colour_is_named_with_its_file(painted):
    picture = COLORS[values(0, range(4))]
    picture[:2, :3] = (1, 2, 3)
    write_image(painted / "colors" / "0_color.png", picture)
    with pytest.raises(ValueError, match=r"0_color\.png must hold only the colours of .*, got \(1, 2, 3\) at 6 pixels"):
        by_colors(painted)


def test_two_classes_of_one_colour_are_refused(painted):
    same = [{"name": name, "color": [1, 2, 3]} for name in ("a", "b")]
    (painted / "classes.json").write_text(json.dumps({"classes": same}))
    with pytest.raises(ValueError, match=r"a colour of its own, got \(1, 2, 3\) twice"):
        by_colors(painted)


def test_folders_without_a_pair_are_told_apart(painted):
    with pytest.raises(ValueError, match=r"files of the same names, got 2 images in .* and 0 PNGs in"):
        import_colors(painted / "images", painted / "nowhere", painted / "classes.json", painted / "own", split="train")
    assert not (painted / "own").exists()


def linked(folder: Path, how: str) -> None:
    """Let the photographs in `folder/images` be links to where they are moved."""
    images, blobs = folder / "images", folder / "blobs"
    images.rename(blobs)
    if how == "folder":
        images.symlink_to("blobs")
        return
    images.mkdir()
    for path in blobs.iterdir():
        link = images / path.name
        match how:
            case "relative":
                link.symlink_to(Path("..") / "blobs" / path.name)
            case "absolute":
                link.symlink_to(path)
            case "chain":
                (folder / f"to {path.name}").symlink_to(Path("blobs") / path.name)
                link.symlink_to(Path("..") / f"to {path.name}")
            case "hard":
                os.link(path, link)
            case "folder below":
                (images / "city").symlink_to(blobs, target_is_directory=True)
                return


@pytest.mark.parametrize("how", ["relative", "absolute", "chain", "hard", "folder", "folder below"])
def test_photographs_that_are_links_become_files_that_stay_when_what_they_led_to_goes(how, painted):
    linked(painted, how)
    done = by_colors(painted)
    shutil.rmtree(painted / "blobs")
    for i in range(2):
        assert not (painted / "own" / "images" / "train" / f"{i}.png").is_symlink()
        np.testing.assert_array_equal(Folder(done.root, "train").read(i)[0], pixels(i))


def test_photographs_on_another_disk_are_copied(painted, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    linked(painted, "relative")
    monkeypatch.setattr(os, "link", refuse)
    by_colors(painted)
    shutil.rmtree(painted / "blobs")
    np.testing.assert_array_equal(Folder(painted / "own", "train").read(1)[0], pixels(1))


def test_photographs_that_lie_in_their_place_already_stay_there(painted):
    shutil.move(painted / "images", painted / "own" / "images" / "train")
    import_colors(
        painted / "own" / "images" / "train", painted / "colors", painted / "classes.json", painted / "own", split="train"
    )
    np.testing.assert_array_equal(Folder(painted / "own", "train").read(0)[0], pixels(0))
    assert sorted(path.name for path in (painted / "own").iterdir()) == ["classes.json", "images", "labels"]


def to_dead_link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("moved away")


def turn(path: Path) -> None:
    """Let the photograph be stored on its side, as a telephone does: its pixels stay, and viewers turn it."""
    with Image.open(path) as image:
        orientation = image.getexif()
        orientation[0x0112] = 6
        image.save(path, exif=orientation)


SPOILT = {
    "dead photograph": ("images/1.png", to_dead_link, r"images/1\.png .*a link to moved away, which is not there; restore"),
    "dead label": ("colors/1_color.png", to_dead_link, r"1_color\.png .*a link to moved away, which is not there; restore"),
    "dead folder": ("images/city", to_dead_link, r"images/city .*a link to moved away, which is not there; restore"),
    "folder": ("images/1.png", lambda path: (path.unlink(), path.mkdir()), r"images/1\.png must be a readable file, got: Is a"),
    "cut photograph": ("images/1.png", lambda path: path.write_bytes(path.read_bytes()[:-9]), r"images/1\.png must be a whole"),
    "cut label": ("colors/1_color.png", lambda path: path.write_bytes(path.read_bytes()[:-9]), r"1_color\.png must be a whole"),
    "size": ("images/1.png", lambda path: write_image(path, pixels(1)[:-2]), r"1_color\.png must have the size of its image"),
    "turn": (
        "images/1.png",
        turn,
        r"1_color\.png must have .*a label of 40x24 for an image of 24x40, so one is turned, .*EXIF",
    ),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_cannot_be_imported_is_named_and_nothing_is_written(spoilt, painted):
    name, spoil, said = SPOILT[spoilt]
    spoil(painted / name)
    with pytest.raises(ValueError, match=said):
        by_colors(painted)
    assert not (painted / "own").exists()


def test_links_that_lead_nowhere_are_counted(painted):
    linked(painted, "relative")
    shutil.rmtree(painted / "blobs")
    with pytest.raises(ValueError, match=r"2 files cannot be read, and nothing was imported; the first: .*images/0\.png"):
        by_colors(painted)


def test_a_split_that_fails_leaves_the_others_as_they_were(painted):
    by_colors(painted)
    before = {path: path.read_bytes() for path in (painted / "own").rglob("*.*")}
    write_image(painted / "colors" / "1_color.png", np.full((*SIZE, 3), 7, np.uint8))
    for split in ("train", "val"):
        with pytest.raises(ValueError, match="must hold only the colours"):
            by_colors(painted, split)
    assert {path: path.read_bytes() for path in (painted / "own").rglob("*.*")} == before
    assert not (painted / "own" / "images" / "val").exists()


def test_what_a_killed_import_left_is_cleared_away(painted):
    write_image(painted / "own" / ".train.unfinished" / "images" / "train" / "9.png", pixels(9))
    by_colors(painted)
    assert len(Folder(painted / "own", "train")) == 2
    assert not (painted / "own" / ".train.unfinished").exists()


def test_a_folder_that_cannot_be_written_is_named(painted):
    (painted / "own").write_text("")
    with pytest.raises(NotWritten, match="own could not be written"):
        by_colors(painted)


CATEGORIES = [{"id": 7, "name": "car"}, {"id": 3, "name": "road"}]  # by rising id: road, car
SQUARE = [4, 2, 12, 2, 12, 10, 4, 10]  # x, y: columns 4 to 11, rows 2 to 9
WHOLE = {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}


def coco(folder: Path, annotations: list[dict], categories=CATEGORIES) -> Path:
    images = [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(2)]
    for i in range(2):
        write_image(folder / "images" / f"{i}.png", pixels(i))
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def annotation(segmentation, category: int = 7, image: int = 0, number: int = 1) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation}


def square(value: int, around: int) -> np.ndarray:
    label = np.full(SIZE, around, np.uint8)
    label[2:10, 4:12] = value
    return label


@pytest.mark.parametrize("order", [1, -1], ids=["large first", "small first"])
def test_what_lies_on_top_stays_visible(order, tmp_path):
    pytest.importorskip("pycocotools")
    path = coco(tmp_path, [annotation(WHOLE, 3), annotation([SQUARE], 7)][::order])
    done = import_coco(path, tmp_path / "images", tmp_path / "own", split="train")
    dataset = Folder(done.root, "train")
    assert (done.images, done.left_out, dataset.classes) == (1, 1, ("road", "car"))
    np.testing.assert_array_equal(dataset.read(0)[1], square(1, 0))


@pytest.mark.parametrize("packed", [False, True], ids=["counts", "packed"])
def test_polygons_and_run_lengths_say_the_same(packed, tmp_path):
    mask = pytest.importorskip("pycocotools.mask")
    runs = mask.encode(np.asfortranarray(square(1, 0)))
    if packed:
        shape = {"size": runs["size"], "counts": runs["counts"].decode()}
    else:
        flat = square(1, 0).T.ravel()
        edges = np.flatnonzero(np.diff(flat)) + 1
        shape = {"size": list(SIZE), "counts": np.diff([0, *edges, flat.size]).tolist()}
    path = coco(tmp_path, [annotation(shape, image=0), annotation([SQUARE], image=1, number=2)])
    import_coco(path, tmp_path / "images", tmp_path / "own", split="train")
    dataset = Folder(tmp_path / "own", "train")
    np.testing.assert_array_equal(dataset.read_label(0), square(1, 255))
    np.testing.assert_array_equal(dataset.read_label(1), dataset.read_label(0))


def test_panoptic_pictures_are_read_by_their_segments(tmp_path):
    ids = np.where(square(1, 0) == 1, 300, 70_000)
    ids[0] = 0
    write_image(tmp_path / "panoptic" / "0.png", np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8))
    segments = [{"id": 300, "category_id": 7}, {"id": 70_000, "category_id": 3}]
    path = coco(tmp_path, [{"image_id": 0, "file_name": "0.png", "segments_info": segments}])
    import_coco(path, tmp_path / "images", tmp_path / "own", split="val", panoptic=tmp_path / "panoptic")
    expected = square(1, 0)
    expected[0] = 255
    np.testing.assert_array_equal(Folder(tmp_path / "own", "val").read_label(0), expected)


def test_a_segment_that_is_not_listed_is_named(tmp_path):
    write_image(tmp_path / "panoptic" / "0.png", np.full((*SIZE, 3), 1, np.uint8))
    path = coco(tmp_path, [{"image_id": 0, "file_name": "0.png", "segments_info": []}])
    with pytest.raises(ValueError, match=r"0\.png must hold only the segments .* got segment 65793"):
        import_coco(path, tmp_path / "images", tmp_path / "own", split="val", panoptic=tmp_path / "panoptic")


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (annotation([SQUARE], 99), r"annotation 1: category 99 is not among the categories"),
        (annotation([[1, 2]]), r"annotation 1: the segmentation must be polygons or run lengths of 40x24 pixels"),
        (annotation({"size": [5, 5], "counts": [0, 25]}), r"got something else \(ValueError: a mask of 5x5\)"),
        ({"id": 1, "image_id": 0, "category_id": 7}, "annotation 1: the segmentation must be"),
        ({"id": 1, "image_id": 0, "segments_info": []}, "is a panoptic file; give the folder of its PNGs"),
    ],
    ids=["category", "polygon", "size", "nothing", "panoptic"],
)
def test_a_wrong_annotation_is_named(bad, rule, tmp_path):
    pytest.importorskip("pycocotools")
    with pytest.raises(ValueError, match=rule):
        import_coco(coco(tmp_path, [bad]), tmp_path / "images", tmp_path / "own", split="train")


@pytest.mark.parametrize(
    ("lacking", "rule"),
    [("category_id", "image 0: it or its annotation lacks 'category_id'"), ("image_id", r"something else \(KeyError")],
)
def test_an_annotation_that_lacks_something_is_named(lacking, rule, tmp_path):
    pytest.importorskip("pycocotools")
    bad = annotation([SQUARE])
    del bad[lacking]
    with pytest.raises(ValueError, match=rf"instances\.json.*{rule}"):
        import_coco(coco(tmp_path, [bad]), tmp_path / "images", tmp_path / "own", split="train")


def test_an_annotation_of_an_image_that_is_not_listed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="annotations of images that it does not list, the first 7"):
        import_coco(coco(tmp_path, [annotation([SQUARE], image=7)]), tmp_path / "images", tmp_path / "own", split="train")


def test_an_instance_file_with_panoptic_pictures_is_refused(tmp_path):
    path = coco(tmp_path, [annotation([SQUARE])])
    with pytest.raises(ValueError, match="image 0: it or its annotation lacks 'file_name'"):
        import_coco(path, tmp_path / "images", tmp_path / "own", split="val", panoptic=tmp_path)


def test_a_file_that_is_not_coco_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"x\.json must be a COCO file"):
        import_coco(tmp_path / "x.json", tmp_path, tmp_path / "own", split="train")


def test_a_missing_image_is_named(tmp_path):
    pytest.importorskip("pycocotools")
    path = coco(tmp_path, [annotation([SQUARE])])
    (tmp_path / "images" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"every label must have its image, got no file .*0\.png"):
        import_coco(path, tmp_path / "images", tmp_path / "own", split="train")
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (to_dead_link, r"0\.png must be a readable file, got a link to moved away, which is not there; restore"),
        (
            lambda path: write_image(path, pixels(0)[:-2]),
            r"instances\.json, image 0 must have the size of its image, got a label",
        ),
        (turn, r"instances\.json, image 0 must have .* so one is turned, perhaps the image by its EXIF orientation"),
    ],
    ids=["dead link", "size", "turn"],
)
def test_an_image_that_does_not_fit_its_annotations_is_named_and_nothing_is_written(spoil, said, tmp_path):
    pytest.importorskip("pycocotools")
    path = coco(tmp_path, [annotation([SQUARE])])
    spoil(tmp_path / "images" / "0.png")
    with pytest.raises(ValueError, match=said):
        import_coco(path, tmp_path / "images", tmp_path / "own", split="train")
    assert not (tmp_path / "own").exists()


def test_a_panoptic_picture_of_another_size_is_named_and_nothing_is_written(tmp_path):
    write_image(tmp_path / "panoptic" / "0.png", np.zeros((SIZE[0], SIZE[1] - 1, 3), np.uint8))
    path = coco(tmp_path, [{"image_id": 0, "file_name": "0.png", "segments_info": []}])
    with pytest.raises(ValueError, match=r"panoptic/0\.png must have the size of its image, got a label of 39x24"):
        import_coco(path, tmp_path / "images", tmp_path / "own", split="val", panoptic=tmp_path / "panoptic")
    assert not (tmp_path / "own").exists()
