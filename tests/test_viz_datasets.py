"""Figures of a dataset and of a map: the right numbers in the right places."""

import numpy as np
import pytest

from vistalib.data import Augmentation, AugmentationSettings, label_map
from vistalib.data.mapping import LabelMap
from vistalib.viz import plot_augmentations, plot_class_balance, plot_class_places, plot_image_sizes, plot_map_flow

CLASSES = ("road", "sky", "train")
COLORS = np.array([[128, 64, 128], [70, 130, 180], [0, 80, 100]], np.uint8)
HISTOGRAMS = [[90, 0, 0, 10], [10, 100, 0, 0]]  # the last column is ignored


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_balance_sorts_by_pixels_and_leaves_ignored_ones_out() -> None:
    left, right = plot_class_balance(HISTOGRAMS, CLASSES, colors=COLORS).axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["road", "sky", "train"]
    assert texts(left) == ["50%", "50%", "nowhere"]
    assert [patch.get_width() for patch in right.patches] == [100, 50, 0]


def test_balance_of_nothing_is_drawn() -> None:
    left, _ = plot_class_balance([[0, 0, 0, 7]], CLASSES).axes
    assert texts(left) == ["nowhere"] * 3


def test_sizes_are_bubbles_by_number() -> None:
    left, right = plot_image_sizes([40, 40, 80], [20, 20, 60]).axes
    (bubbles,) = left.collections
    assert bubbles.get_offsets().tolist() == [[40, 20], [80, 60]]
    assert bubbles.get_sizes()[0] > bubbles.get_sizes()[1]
    assert left.get_title(loc="left") == "3 images of 2 sizes"
    assert sum(patch.get_height() for patch in right.patches) == 3


def test_images_of_one_size_make_one_bar() -> None:
    left, right = plot_image_sizes([2048] * 5, [1024] * 5).axes
    assert left.get_title(loc="left") == "5 images of 1 size"
    assert [patch.get_height() for patch in right.patches] == [5]


def test_places_have_a_map_for_each_class_and_say_its_most() -> None:
    places = np.zeros((3, 4, 8))
    places[0, 2:], places[1, :2] = 0.25, 1.0
    figure = plot_class_places(places, CLASSES, colors=COLORS)
    axes = [panel for panel in figure.axes if panel.images]
    assert [panel.get_title(loc="left") for panel in axes] == ["road", "sky"]
    assert [panel.get_title(loc="right") for panel in axes] == ["25%", "100%"]
    assert figure.get_supxlabel() == "Nowhere: train"
    np.testing.assert_array_equal(axes[0].images[0].get_array(), places[0])


def test_many_classes_that_nowhere_occur_are_counted() -> None:
    figure = plot_class_places(np.zeros((20, 4, 8)), [f"class {i}" for i in range(20)])
    assert figure.get_supxlabel() == "Nowhere: 20 of 20 classes"


OWN = LabelMap("own", ("ground", "sky"), COLORS[:2], {"road": "ground", "kerb": "ground", "sky": "sky", "bench": None})


def test_the_flow_names_every_class_with_its_share_and_counts_what_is_lost() -> None:
    (axes,) = plot_map_flow(OWN, {"road": 60, "kerb": 10, "sky": 20, "bench": 5, "cat": 5, "dog": 0}).axes
    assert (
        axes.get_title(loc="left") == "6 classes become 2 under the map 'own': 3 classes with 10.0% of the pixels are ignored"
    )
    assert texts(axes) == [
        *("road   60.0%", "kerb   10.0%", "ground   70.0%", "sky   20.0%", "sky   20.0%"),
        *("bench   5.0%", "cat   5.0%", "1 more, without a pixel here", "ignored   10.0%"),
    ]
    assert len(axes.collections) == 5  # a band each


def test_bands_keep_their_share_of_the_height() -> None:
    (axes,) = plot_map_flow(OWN, {"road": 75, "kerb": 0, "sky": 25, "bench": 0}).axes
    heights = {round(patch.get_height(), 6) for patch in axes.patches if patch.get_height()}
    assert max(heights) == pytest.approx(3 * min(heights))


def test_a_flow_of_another_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="a count for every class that the map 'released' lists, got none for construction"):
        plot_map_flow(label_map("released"), {"road": 1})


@pytest.mark.parametrize("draws", [12, 5])
def test_augmentations_show_the_sample_and_every_draw(draws: int) -> None:
    image, label = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8), np.zeros((32, 64), np.uint8)
    label[:, 32:] = 1
    augmentation = Augmentation(AugmentationSettings(scale=(64, 32), crop=(16, 32)))
    figure = plot_augmentations(image, label, augmentation, colors=COLORS, draws=draws)
    assert sum(bool(axes.images) for axes in figure.axes) == 2 + draws
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image)


def test_a_draw_without_change_shows_the_image_itself() -> None:
    image, label = np.random.default_rng(0).integers(0, 255, (16, 32, 3), np.uint8), np.full((16, 32), 255, np.uint8)
    still = AugmentationSettings(scale=(32, 16), ratio_range=None, crop=(16, 32), flip=0.0, photometric=False)
    figure = plot_augmentations(image, label, Augmentation(still), colors=COLORS, draws=1)
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), image)
