"""The label tables: sizes, order and the map from Vistas to the 19 training classes."""

import numpy as np
import pytest

from vistalib.data.labels import (
    CITYSCAPES,
    IGNORE_INDEX,
    TRAIN_CLASSES,
    TRAIN_COLORS,
    VISTAS_NAMES,
    VISTAS_TO_CITYSCAPES,
    VISTAS_V1_2,
    vistas_to_train_id,
)

# The released map: positions in the v1.2 configuration, by training id.
RELEASED = [
    [13, 24, 41], [2, 15], [17], [6], [3], [45, 47], [48], [50], [30], [29], [27], [19], [20, 21, 22],
    [55], [61], [54], [58], [57], [52],
]  # fmt: skip


def test_vistas_maps_to_the_training_ids_as_released() -> None:
    expected = np.full(256, IGNORE_INDEX, np.uint8)
    for train_id, positions in enumerate(RELEASED):
        expected[positions] = train_id
    np.testing.assert_array_equal(vistas_to_train_id(), expected)


def test_the_vistas_map_follows_names_not_positions() -> None:
    table = vistas_to_train_id(("nature--sky", "object--vehicle--car", "unheard-of"))
    assert table[:3].tolist() == [10, 13, IGNORE_INDEX]


def test_vistas_has_66_classes_of_distinct_names_and_colours() -> None:
    assert len(VISTAS_V1_2) == len(set(VISTAS_NAMES)) == len({entry.color for entry in VISTAS_V1_2}) == 66


def test_vistas_counts_instances_in_37_classes() -> None:
    assert sum(entry.instances for entry in VISTAS_V1_2) == 37


def test_vistas_evaluates_all_but_the_unlabelled() -> None:
    assert [entry.name for entry in VISTAS_V1_2 if not entry.evaluate] == ["void--unlabeled"]


def test_every_mapped_class_exists_on_both_sides() -> None:
    assert set(VISTAS_TO_CITYSCAPES) <= set(VISTAS_NAMES)
    assert set(VISTAS_TO_CITYSCAPES.values()) == set(TRAIN_CLASSES)


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
