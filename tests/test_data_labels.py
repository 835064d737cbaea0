"""The label tables: sizes, order and the map from Vistas to the 19 training classes."""

import numpy as np
import pytest

from vistalib.data.labels import CITYSCAPES, IGNORE_INDEX, TRAIN_CLASSES, TRAIN_COLORS
from vistalib.data.vistas_labels import VISTAS_NAMES, VISTAS_V1_2, VISTAS_V2_0


def test_vistas_has_66_classes_of_distinct_names_and_colours() -> None:
    assert len(VISTAS_V1_2) == len(set(VISTAS_NAMES)) == len({entry.color for entry in VISTAS_V1_2}) == 66


def test_vistas_counts_instances_in_37_classes() -> None:
    assert sum(entry.instances for entry in VISTAS_V1_2) == 37


def test_vistas_evaluates_all_but_the_unlabelled() -> None:
    assert [entry.name for entry in VISTAS_V1_2 if not entry.evaluate] == ["void--unlabeled"]


def test_vistas_2_has_124_classes_of_distinct_names() -> None:
    assert len(VISTAS_V2_0) == len({entry.name for entry in VISTAS_V2_0}) == 124


def test_vistas_2_has_70_instance_classes_46_others_and_8_that_are_not_scored() -> None:
    # the counts that its publishers give
    scored = [entry.instances for entry in VISTAS_V2_0 if entry.evaluate]
    assert (scored.count(True), scored.count(False), len(VISTAS_V2_0) - len(scored)) == (70, 46, 8)


def test_classes_that_both_versions_have_look_alike() -> None:
    older = {entry.name: (entry.readable, entry.color) for entry in VISTAS_V1_2}
    assert all(older.get(entry.name, (entry.readable, entry.color))[0] == entry.readable for entry in VISTAS_V2_0)
    assert [entry.name for entry in VISTAS_V2_0 if older.get(entry.name, ("", entry.color))[1] != entry.color] == []


def test_cityscapes_maps_its_ids_to_the_training_ids() -> None:
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = np.full(256, IGNORE_INDEX, np.uint8)
    expected[ids] = range(19)
    np.testing.assert_array_equal(CITYSCAPES.id_to_train_id(), expected)


def test_training_ids_go_to_label_ids_and_back() -> None:
    ids = CITYSCAPES.train_id_to_id()[:19]
    np.testing.assert_array_equal(CITYSCAPES.id_to_train_id()[ids], np.arange(19))


def test_ignored_pixels_are_exported_as_unlabeled() -> None:
    assert CITYSCAPES.train_id_to_id()[IGNORE_INDEX] == 0


def test_cityscapes_has_34_ids_and_the_licence_plate() -> None:
    assert CITYSCAPES.ids == (*range(34), -1)


def test_instances_are_counted_for_humans_and_vehicles_only() -> None:
    counted = {label.category for label in CITYSCAPES.labels if label.has_instances}
    assert counted == {"human", "vehicle"}


def test_training_colours_are_those_of_the_labels() -> None:
    for name, color in zip(TRAIN_CLASSES, TRAIN_COLORS, strict=True):
        assert CITYSCAPES[name].color == tuple(color.tolist())


def test_an_unknown_label_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="must be one of unlabeled"):
        CITYSCAPES["raod"]
