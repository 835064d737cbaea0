"""The legend that lies beneath a picture."""

import numpy as np
import pytest

from vistalib.viz import beneath, legend

CLASSES = ("road", "sidewalk", "a class whose name is longer than the picture is wide")
COLORS = np.array([[128, 64, 128], [244, 35, 232], [0, 0, 142]], np.uint8)


def swatches(card: np.ndarray, color: np.ndarray) -> int:
    """Pixels of the card in exactly this colour."""
    return int((card == color).all(axis=2).sum())


def test_every_class_has_a_swatch_of_its_color() -> None:
    card = legend(CLASSES, COLORS, size=(300, 900))
    sizes = [swatches(card, color) for color in COLORS]
    assert min(sizes) == max(sizes) > 100


@pytest.mark.parametrize("size", [(3000, 4000), (300, 900), (900, 300), (1, 1)], ids=str)
def test_the_card_is_as_wide_as_the_picture_unless_an_entry_is_wider(size: tuple[int, int]) -> None:
    card = legend(CLASSES[:2], COLORS, size=size, notes=["12.3%", "0.0%"])
    assert card.shape[1] == size[1] if size[1] >= 300 else card.shape[1] < 300
    assert swatches(card, COLORS[1]) > 100


def test_a_longer_name_or_note_makes_the_card_wider() -> None:
    widths = [
        legend(CLASSES[:1], COLORS, size=(9, 9)).shape[1],
        legend(CLASSES[:1], COLORS, size=(9, 9), notes=["100.0%"]).shape[1],
        legend(CLASSES[2:], COLORS, size=(9, 9)).shape[1],
    ]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def test_the_letters_grow_with_the_picture() -> None:
    assert swatches(legend(CLASSES, COLORS, size=(3000, 4000)), COLORS[0]) > 4 * swatches(
        legend(CLASSES, COLORS, size=(300, 400)), COLORS[0]
    )


def test_the_picture_lies_unchanged_above_its_card() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    card = legend(CLASSES, COLORS, size=(20, 30))
    together = beneath(picture, card)
    np.testing.assert_array_equal(together[:20, :30], picture)
    np.testing.assert_array_equal(together[20:], card)
