"""Maps between classes: what the published ones say, what ours decides, and every mistake a map of one's own can hold."""

from pathlib import Path

import numpy as np
import pytest
from data_helpers import values, write_cityscapes, write_folder, write_vistas

from vistalib.data import (
    IGNORE_INDEX,
    TRAIN_CLASSES,
    VISTAS_TO_CITYSCAPES,
    VISTAS_V1_2,
    VISTAS_V2_0,
    Cityscapes,
    Folder,
    Vistas,
    label_map,
    list_maps,
)
from vistalib.data.decode import UNKNOWN

NAMES = [entry.name for entry in VISTAS_V1_2]
# Positions in the v1.2 configuration, by training id, as the sources have them.
COMMON = [
    [], [], [17], [6], [3], [45, 47], [48], [50], [30], [29], [27], [19], [20, 21, 22], [55], [61], [54], [58], [57], [52],
]  # fmt: skip
PUBLISHED = {
    "released": {0: [13, 24, 41], 1: [2, 15]},
    "cvrn": {0: [7, 8, 10, 13, 14, 23, 24], 1: [2, 9, 11, 15], 7: [49, 50]},
    "ocr": {0: [7, 8, 10, 13, 14, 23, 24], 1: [2, 9, 11, 15], 5: [44, 45, 47], 7: [46, 49, 50]},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_map_gives_the_published_ids(name: str) -> None:
    expected = np.full(256, UNKNOWN, np.uint8)
    expected[: len(NAMES)] = IGNORE_INDEX
    for train_id, positions in enumerate(COMMON):
        expected[PUBLISHED[name].get(train_id, positions)] = train_id
    np.testing.assert_array_equal(label_map(name).table(dict(enumerate(NAMES)), "v1.2"), expected)


def test_a_map_goes_by_name_not_by_position() -> None:
    shuffled = dict(enumerate(reversed(NAMES)))
    table = label_map("released").table(shuffled, "another order")
    assert [table[value] for value, name in shuffled.items() if name in ("nature--sky", "object--vehicle--car")] == [13, 10]


def test_the_map_for_vistas_2_decides_every_class() -> None:
    assert set(label_map("vistalib").targets) == {entry.name for entry in VISTAS_V2_0}


def test_the_map_for_vistas_2_agrees_with_the_released_one_where_that_maps_a_class_that_both_have() -> None:
    ours = label_map("vistalib").targets
    assert {name: ours[name] for name in VISTAS_TO_CITYSCAPES if name in ours} == {
        name: target for name, target in VISTAS_TO_CITYSCAPES.items() if name in ours
    }


@pytest.mark.parametrize("name", list_maps())
def test_a_map_that_comes_along_reaches_all_19_classes_and_says_where_it_is_from(name: str) -> None:
    chosen = label_map(name)
    assert set(chosen.targets.values()) - {None} == set(chosen.classes) == set(TRAIN_CLASSES)
    assert chosen.about
    assert chosen.source
    assert chosen.labels in ("v1.2", "v2.0")


OWN = """
classes: {drivable: [128, 64, 128], sky: [70, 130, 180]}
map:
  construction--flat--road: drivable
  marking--general: drivable
  nature--sky: sky
  nature--water: ignore
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text)
    return path


def test_a_map_of_ones_own_trains_its_own_classes(tmp_path) -> None:
    dataset = Vistas(write_vistas(tmp_path / "vistas"), "training", map=write(tmp_path, OWN))
    assert dataset.classes == ("drivable", "sky")
    assert dataset.colors.tolist() == [[128, 64, 128], [70, 130, 180]]
    expected = {13: 0, 24: 0, 27: 1}
    np.testing.assert_array_equal(
        dataset.read_label(0), np.vectorize(lambda value: expected.get(value, 255))(values(0, range(66)))
    )


def test_a_map_of_ones_own_may_be_for_cityscapes(tmp_path) -> None:
    path = write(tmp_path, "classes: {ground: [1, 2, 3]}\nmap: {road: ground, parking: ground}\n")
    label = Cityscapes(write_cityscapes(tmp_path / "cityscapes"), "train", map=path).read_label(0)
    np.testing.assert_array_equal(label == 0, np.isin(values(0, range(34)), [7, 9]))


def test_a_folder_of_ones_own_can_be_mapped_to_cityscapes(tmp_path) -> None:
    path = write(tmp_path, "classes: cityscapes\nmap: {sky: sky, road: road}\n")
    dataset = Folder(write_folder(tmp_path / "own"), "train", map=path)
    assert dataset.classes == TRAIN_CLASSES
    np.testing.assert_array_equal(dataset.read_label(0), np.array([10, 0, 255, 255])[values(0, range(4))])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("map: [", "must be a readable YAML file"),
        ("classes: cityscapes", r"\(no 'map'\)"),
        ("classes: cityscapes\nmaps: {}\nmap: {}", "unknown key 'maps'"),
        ("[1]", "got something else"),
        ("classes: cityscapes\nmap: {a: raod}", "a: 'raod' is no class; it must be 'ignore' or one of road, sidewalk"),
        ("classes: cityscapes\nmap: {a: road, b: sky, a: sky}", "'a' stands there twice"),
        ("classes: {ignore: [0, 0, 0]}\nmap: {}", "none called 'ignore'"),
        ("classes: {car: [0, 0, 256]}\nmap: {}", "class 'car' with colour"),
        ("classes: {}\nmap: {}", "1 to 253 classes"),
    ],
    ids=["no yaml", "no map", "unknown key", "a list", "no such target", "twice", "reserved", "colour", "no classes"],
)
def test_a_wrong_map_is_refused_by_its_file(text: str, rule: str, tmp_path) -> None:
    with pytest.raises(ValueError, match=rf"own\.yaml.*{rule}"):
        label_map(write(tmp_path, text))


def test_a_misspelt_class_is_named_with_the_one_it_may_mean(tmp_path) -> None:
    root = write_vistas(tmp_path / "vistas")
    with pytest.raises(ValueError, match=r"got none called nature--sly \(perhaps nature--sky\)"):
        Vistas(root, "training", map=write(tmp_path, OWN.replace("nature--sky", "nature--sly")))


def test_a_map_that_was_mended_is_read_again(tmp_path) -> None:
    path = write(tmp_path, OWN.replace("nature--water: ignore", "nature--water: sky"))
    assert label_map(path).targets["nature--water"] == "sky"
    assert label_map(write(tmp_path, OWN)).targets["nature--water"] is None


def test_an_unknown_map_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"released, cvrn, ocr, vistalib, native, .*; did you mean released\?"):
        label_map("relased")


def test_a_map_for_other_labels_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"config_v2\.0\.json must name every class that the map 'released' lists"):
        Vistas(write_vistas(tmp_path, "v2.0"), "training", map="released")
