"""A legend as pixels, drawn by Pillow alone, for pictures that leave the program as files: photographs and frames of a video.

Images are RGB uint8 (H, W, 3).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vistalib.viz.style import INK, MUTED, PAPER

Pixels = NDArray[np.uint8]


def legend(classes: Sequence[str], colors: Pixels, *, size: tuple[int, int], notes: Sequence[str] | None = None) -> Pixels:
    """A card with the color (C, 3) and the name of each class, in rows, to lie under a picture of `size` (H, W).

    `notes` are a few muted letters behind each name, such as a share. The letters grow with the picture; the card is as
    wide as the picture, or as its widest entry where that is more.
    """
    from PIL import Image, ImageDraw, ImageFont

    letter = max(13, round((size[0] * size[1]) ** 0.5 / 42))  # pixels: readable when the picture fills a screen
    font = ImageFont.load_default(letter)
    texts = list(zip(classes, notes or [""] * len(classes), strict=True))
    named = [font.getlength(f"{name} ") for name, _ in texts]
    column = round(max(width + font.getlength(note) for width, (_, note) in zip(named, texts, strict=True)) + 2.4 * letter)
    width = max(size[1], column + letter)
    columns = (width - letter) // column
    line = round(1.6 * letter)
    card = Image.new("RGB", (width, line * -(-len(texts) // columns) + letter), PAPER)
    draw = ImageDraw.Draw(card)
    for i, (name, note) in enumerate(texts):
        left, top = letter + i % columns * column, letter // 2 + i // columns * line
        swatch = (left, top + line // 2 - letter // 2, left + letter, top + line // 2 + letter // 2)
        draw.rectangle(swatch, fill=tuple(map(int, colors[i])), outline=MUTED)
        draw.text((left + 1.5 * letter, top + line / 2), name, INK, font, anchor="lm")
        draw.text((left + 1.5 * letter + named[i], top + line / 2), note, MUTED, font, anchor="lm")
    return np.asarray(card)


def beneath(picture: Pixels, card: Pixels) -> Pixels:
    """`picture` (H, W, 3) on top of a `card` (h, w, 3) at least as wide: (H + h, w, 3)."""
    beside = np.broadcast_to(card[0, 0], (picture.shape[0], card.shape[1] - picture.shape[1], 3))
    return np.vstack([np.hstack([picture, beside]), card])
