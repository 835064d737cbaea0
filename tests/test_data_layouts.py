"""The three on-disk layouts: read back what was written, and answer every wrong folder with a sentence that repairs it."""

import json
import re

import numpy as np
import pytest
from data_helpers import (
    PROBABILITY,
    SIZE,
    VISTAS,
    pixels,
    values,
    write_auto,
    write_cityscapes,
    write_folder,
    write_image,
    write_label,
    write_vistas,
)

from vistalib.data import CITYSCAPES, TRAIN_CLASSES, VISTAS_TO_CITYSCAPES, VISTAS_V1_2, Cityscapes, Folder, InMemory, Vistas


def test_vistas_maps_by_name_to_the_19_classes(tmp_path):
    _, label = Vistas(write_vistas(tmp_path), "training").read(1)
    names = [VISTAS_TO_CITYSCAPES.get(entry.name) for entry in VISTAS_V1_2]
    table = np.array([255 if name is None else TRAIN_CLASSES.index(name) for name in names])
    np.testing.assert_array_equal(label, table[values(1, range(66))])


def test_vistas_follows_the_order_of_its_own_configuration(tmp_path):
    config = write_vistas(tmp_path) / "config_v1.2.json"
    labels = json.loads(config.read_text())["labels"]
    labels[13], labels[27] = labels[27], labels[13]  # road and sky change places
    config.write_text(json.dumps({"labels": labels}))
    halves = np.repeat(np.array([[13], [27]], np.uint8), SIZE[0] // 2, 0).repeat(SIZE[1], 1)
    write_label(tmp_path / "training" / "v1.2" / "labels" / "photo000.png", halves)
    _, label = Vistas(tmp_path, "training").read(0)
    assert label[0, 0] == TRAIN_CLASSES.index("sky")
    assert label[-1, 0] == TRAIN_CLASSES.index("road")


def test_vistas_joins_both_splits_as_the_released_training_does(tmp_path):
    both = Vistas(write_vistas(tmp_path, training=3, validation=2), "training+validation")
    assert [both.name(i) for i in range(len(both))] == ["photo000", "photo001", "photo002", "photo100", "photo101"]


def test_vistas_images_are_rgb(tmp_path):
    image, _ = Vistas(write_vistas(tmp_path), "training").read(2)
    # JPEG at quality 95: measured mean difference 1.6 grey levels; BGR would give 60 and more
    assert np.abs(image.astype(int) - pixels(2)).mean() < 6


@pytest.mark.parametrize("layout", ["v1.2", "v2.0", "flat"])
def test_vistas_is_recognised_by_its_folders(layout, tmp_path):
    dataset = Vistas(write_vistas(tmp_path, layout), "training+validation")
    assert len(dataset) == 5
    assert dataset.version == ("v2.0" if layout == "v2.0" else "v1.2")
    assert dataset.map.name == ("vistalib" if layout == "v2.0" else "released")


@pytest.mark.parametrize(("version", "classes"), [("v1.2", 66), ("v2.0", 124)])
def test_native_classes_keep_their_label_values_less_what_is_not_scored(version, classes, tmp_path):
    dataset = Vistas(write_vistas(tmp_path, version), "training", map="native")
    label = values(0, range(classes))
    unscored = [i for i, entry in enumerate(VISTAS[version][0]) if not entry.evaluate]
    assert len(dataset.classes) == len(dataset.colors) == classes
    np.testing.assert_array_equal(dataset.read_label(0), np.where(np.isin(label, unscored), 255, label))


def test_vistas_with_both_versions_reads_the_one_that_is_asked_for(tmp_path):
    write_vistas(write_vistas(tmp_path, "v1.2"), "v2.0")
    assert Vistas(tmp_path, "training").version == "v1.2"
    newer = Vistas(tmp_path, "training", version="v2.0")
    table = newer.map.table({i: entry.name for i, entry in enumerate(VISTAS["v2.0"][0])}, "")
    np.testing.assert_array_equal(newer.read_label(2), table[values(2, range(124))])


def test_vistas_2_labels_read_as_v1_2_are_refused(tmp_path):
    # the released code takes every value above 65 for road
    write_vistas(tmp_path, "v1.2")
    write_vistas(tmp_path / "new", "v2.0")
    for path in (tmp_path / "new/training/v2.0/labels").iterdir():
        path.replace(tmp_path / "training/v1.2/labels" / path.name)
    with pytest.raises(ValueError, match=r"photo000\.png must hold only the values that .*config_v1\.2\.json names, got 6"):
        Vistas(tmp_path, "training").read(0)


def test_a_version_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected the folder .*v2\.0/labels, got .*training with images, v1\.2"):
        Vistas(write_vistas(tmp_path), "training", version="v2.0")


@pytest.mark.parametrize("split", ["train+val", "val"])
def test_cityscapes_joins_splits(split, tmp_path):
    for part in ("train", "val"):
        write_cityscapes(tmp_path, split=part)
    assert len(Cityscapes(tmp_path, split)) == (8 if "+" in split else 4) - (2 if "+" in split else 1)


@pytest.mark.parametrize(
    ("ending", "classes", "table"),
    [
        ("_leftImg8bit", range(34), CITYSCAPES.id_to_train_id()),
        ("_gtFine_labelTrainIds", range(19), np.arange(256)),
    ],
    ids=["as published", "as the released configuration names them"],
)
def test_automatic_labels_of_both_namings_are_read(ending, classes, table, tmp_path):
    dataset = Cityscapes(write_auto(tmp_path, ending=ending, classes=classes), "train_extra", labels="auto")
    assert len(dataset) == 3  # less the bad image, and no probability file taken for a label
    np.testing.assert_array_equal(dataset.read_label(1), table[values(1, classes)])


@pytest.mark.parametrize("wrap", [lambda dataset: dataset, InMemory], ids=["from files", "in memory"])
def test_unsure_pixels_of_automatic_labels_are_ignored(wrap, tmp_path):
    dataset = wrap(Cityscapes(write_auto(tmp_path), "train_extra", labels="auto", min_probability=0.5))
    expected = np.where(PROBABILITY < 127.5, 255, CITYSCAPES.id_to_train_id()[values(0, range(34))])
    np.testing.assert_array_equal(dataset.read_label(0), expected)
    np.testing.assert_array_equal(dataset.read(0)[1], expected)


def test_fine_and_automatic_labels_are_joined_as_the_released_training_reads_them(tmp_path):
    write_auto(write_cityscapes(tmp_path), ending="_gtFine_labelTrainIds", classes=range(19))
    dataset = Cityscapes(tmp_path, "train+train_extra", labels="auto")
    np.testing.assert_array_equal(dataset.read_label(0), CITYSCAPES.id_to_train_id()[values(0, range(34))])
    np.testing.assert_array_equal(dataset.read_label(len(dataset) - 1), values(0, range(19)))


def test_a_threshold_without_probabilities_is_refused(tmp_path):
    root = write_auto(tmp_path, probability=False)
    with pytest.raises(ValueError, match=r"got none at .*aachen_000000_000072_leftImg8bit_prob\.png"):
        Cityscapes(root, "train_extra", labels="auto", min_probability=0.5)


def test_a_probability_of_another_size_is_refused(tmp_path):
    root = write_auto(tmp_path)
    name = "aachen/aachen_000000_000072_leftImg8bit_prob.png"
    write_label(root / "refinement_final/train_extra" / name, np.zeros((4, 4), np.uint8))
    dataset = Cityscapes(root, "train_extra", labels="auto", min_probability=0.5)
    with pytest.raises(ValueError, match=r"_prob\.png must be an 8-bit grey PNG of the size of its label, 40x24, got uint8"):
        dataset.read(0)


@pytest.mark.parametrize(("given", "labels"), [(1.5, "auto"), (0.5, "fine")], ids=["range", "not automatic"])
def test_a_threshold_that_makes_no_sense_is_refused(given, labels, tmp_path):
    with pytest.raises(ValueError, match="min_probability must lie in"):
        Cityscapes(tmp_path, "train", labels=labels, min_probability=given)


def test_cityscapes_maps_label_ids_to_training_ids(tmp_path):
    dataset = Cityscapes(write_cityscapes(tmp_path), "train")
    _, label = dataset.read(0)
    np.testing.assert_array_equal(label, CITYSCAPES.id_to_train_id()[values(0, range(34))])


def test_cityscapes_images_are_rgb(tmp_path):
    np.testing.assert_array_equal(Cityscapes(write_cityscapes(tmp_path), "train").read(1)[0], pixels(1))


def test_cityscapes_leaves_out_the_bad_image(tmp_path):
    dataset = Cityscapes(write_cityscapes(tmp_path, split="train_extra", kind="gtCoarse"), "train_extra", labels="coarse")
    names = [dataset.name(i) for i in range(len(dataset))]
    assert names == ["aachen_000000_000072", "aachen_000000_000073", "troisdorf_000000_000072"]


def test_folder_numbers_its_classes_without_the_ignored_one(tmp_path):
    dataset = Folder(write_folder(tmp_path, ignore=2), "train")
    assert dataset.classes == ("sky", "road", "car")
    np.testing.assert_array_equal(dataset.read(0)[1], np.array([0, 1, 255, 2])[values(0, range(4))])


def test_folder_always_ignores_255(tmp_path):
    root = write_folder(tmp_path, ignore=None)
    write_label(root / "labels" / "train" / "00.png", np.full(SIZE, 255, np.uint8))
    assert (Folder(root, "train").read(0)[1] == 255).all()


@pytest.mark.parametrize("make", [Vistas, Cityscapes, Folder], ids=lambda make: make.__name__)
def test_a_root_that_does_not_exist_is_named(make, tmp_path):
    with pytest.raises(
        ValueError, match=rf"got no folder {re.escape(str(tmp_path / 'nowhere'))}; .*give as root the folder that"
    ):
        make(tmp_path / "nowhere", "train" if make is not Vistas else "training")


@pytest.mark.parametrize("given", ["vistas/training", "."], ids=["too deep", "too high"])
def test_a_root_one_level_off_gets_the_right_one_proposed(given, tmp_path):
    right = write_vistas(tmp_path / "vistas")
    with pytest.raises(ValueError, match=rf"\(perhaps {re.escape(str(right))}\)"):
        Vistas(tmp_path / given, "training")


@pytest.mark.parametrize(
    ("make", "writer", "missing"),
    [
        (Vistas, write_vistas, "photo001.png"),
        (Cityscapes, write_cityscapes, "*_000072_*_labelIds.png"),
        (Folder, write_folder, "03.png"),
    ],
    ids=["vistas", "cityscapes", "folder"],
)
def test_an_image_without_label_is_named(make, writer, missing, tmp_path):
    root = writer(tmp_path)
    gone = [path for path in root.rglob(missing) if path.parent.name != "images" and "images" not in path.parts]
    gone[0].unlink()
    with pytest.raises(
        ValueError, match=r"every image must have a label, got 1 of \d without one, first .*(photo001|000072|03)"
    ):
        make(root, "training" if make is Vistas else "train")


def test_an_empty_split_is_refused(tmp_path):
    root = write_folder(tmp_path, count=0)
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"expected images in .*, got none"):
        Folder(root, "train")


def test_two_images_of_one_name_are_refused(tmp_path):
    root = write_folder(tmp_path)
    write_image(root / "images" / "train" / "00.png", pixels(0))
    with pytest.raises(ValueError, match=r"a name of its own, got .*00\.jpg and .*00\.png"):
        Folder(root, "train")


def test_a_vistas_configuration_without_a_mapped_class_is_refused(tmp_path):
    config = write_vistas(tmp_path) / "config_v1.2.json"
    config.write_text(json.dumps({"labels": [{"name": "animal--bird"}]}))
    with pytest.raises(ValueError, match=r"config_v1\.2\.json must name every class .* and others"):
        Vistas(tmp_path, "training")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"labels": [1]}',
        '{"labels": []}',
        '{"labels": [{"name": "a"}, {"name": "a"}]}',
        '{"labels": [{"name": "a", "color": [0, 0, 300]}]}',
        '{"labels": [{"name": "a", "color": [0, 0]}]}',
    ],
    ids=["list", "numbers", "none", "twice", "colour range", "colour length"],
)
def test_a_vistas_configuration_of_another_form_is_refused(text, tmp_path):
    (write_vistas(tmp_path) / "config_v1.2.json").write_text(text)
    with pytest.raises(ValueError, match="restore the original"):
        Vistas(tmp_path, "training")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"classes": []}',
        '{"classes": [{"name": "sky"}]}',
        '{"classes": [{"name": "sky", "color": [0, 0, 256]}]}',
        '{"classes": [{"name": "sky", "color": [0, 0, 25]}], "ignore": "void"}',
    ],
    ids=["text", "list", "empty", "no color", "color range", "ignore name"],
)
def test_a_wrong_classes_file_is_refused(text, tmp_path):
    (write_folder(tmp_path) / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=r"classes\.json must be"):
        Folder(tmp_path, "train")


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda root: Vistas(root, "train"), "split must be one of training, validation"),
        (lambda root: Vistas(root, "training", version="v3"), r"version must be 'v1\.2'"),
        (lambda root: Cityscapes(root, "training"), "must be one of train, val; got 'training'"),
        (lambda root: Cityscapes(root, "train", labels="thick"), "'fine' or 'coarse'"),
    ],
    ids=["vistas split", "vistas version", "cityscapes split", "cityscapes labels"],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(make, rule, tmp_path):
    with pytest.raises(ValueError, match=rule):
        make(tmp_path)


def test_a_dataset_in_memory_reads_the_same(tmp_path):
    dataset = Folder(write_folder(tmp_path), "train")
    kept = InMemory(dataset)
    for i in range(len(dataset)):
        for got, expected in zip(kept.read(i), dataset.read(i)):
            np.testing.assert_array_equal(got, expected)


def test_a_dataset_in_memory_needs_its_files_no_more(tmp_path):
    kept = InMemory(Folder(write_folder(tmp_path), "train"))
    kept.image_path(0).unlink()
    assert kept.read(0)[0].shape == (*SIZE, 3)
