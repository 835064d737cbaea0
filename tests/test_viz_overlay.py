"""Label maps as pictures."""

import numpy as np
import pytest

from vistalib.viz import colorize, overlay, triptych, wrong_pixels

COLORS = np.array([[10, 20, 30], [40, 50, 60], [200, 100, 0]], np.uint8)
IMAGE = np.array([[[100, 100, 100], [0, 50, 255], [7, 8, 9]]], np.uint8)  # (1, 3, 3)


def test_every_label_gets_its_own_color() -> None:
    label = np.array([[2, 0], [1, 2]], np.uint8)
    assert colorize(label, COLORS).tolist() == [[[200, 100, 0], [10, 20, 30]], [[40, 50, 60], [200, 100, 0]]]


@pytest.mark.parametrize("label", [255, 3, -1], ids=["ignored", "beyond the table", "negative"])
def test_labels_outside_the_table_are_black(label: int) -> None:
    assert colorize(np.full((1, 1), label, np.int64), COLORS).tolist() == [[[0, 0, 0]]]


def test_overlay_mixes_by_alpha_and_leaves_ignored_pixels() -> None:
    mixed = overlay(IMAGE, np.array([[0, 2, 255]], np.uint8), COLORS, alpha=0.5)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [[[55, 60, 65], [100, 75, 128], [7, 8, 9]]]


def test_overlay_names_the_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"label must have the height and width .* got \(2, 2\) on \(1, 3\); resize"):
        overlay(IMAGE, np.zeros((2, 2), np.uint8), COLORS)


def test_an_ignored_pixel_is_never_wrong() -> None:
    target, prediction = np.array([[0, 1, 255]], np.uint8), np.array([[1, 1, 0]], np.uint8)
    assert wrong_pixels(target, prediction, num_classes=3).tolist() == [[True, False, False]]


def test_triptych_shows_three_panels_and_only_the_classes_present() -> None:
    target, prediction = np.array([[0, 0, 255]], np.uint8), np.array([[0, 2, 2]], np.uint8)
    figure = triptych(IMAGE, target, prediction, classes=("road", "car", "sky"), colors=COLORS, title="ours")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["image", "truth", "ours"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["road", "sky"]
