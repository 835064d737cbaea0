"""Figures of a dataset: how its pixels fall to the classes, how large its images are, where in them a class lives, and what
training sees of one of them.

What is drawn comes from `StreetDataset.index()` and `class_places`.
Letters: N images, C classes, Y, X rows and columns of a grid.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vistalib.viz.overlay import Pixels, overlay
from vistalib.viz.style import INK, MUTED, PAPER, RIGHT, RULE, WIDTH, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vistalib.data import Augmentation

LEAST = 1e-4  # percent: where the axis of pixels begins at the latest
COLUMNS = 4  # of the grid of places
MOST_LISTED = 8  # names of classes that nowhere occur
SHADES = ("#bcdcf5", RIGHT)  # between the paper and the ink
EDGE: dict[str, Any] = {"markeredgecolor": MUTED, "markeredgewidth": 0.4}


def plot_class_balance(histograms: ArrayLike, classes: Sequence[str], *, colors: Pixels | None = None) -> "Figure":
    """How common each class is: its share of the labelled pixels, and of the images that show it at all.

    `histograms` (N, C + 1) are pixel counts as the index has them, the last column of ignored pixels. Classes are sorted by
    pixels; one that nowhere occurs says so. `colors` (C, 3) puts the colour of each class beside its name.
    """
    counts = np.asarray(histograms, np.float64)
    pixels = 100 * counts[:, :-1].sum(0) / max(1.0, counts[:, :-1].sum())  # (C,) percent
    images = 100 * (counts[:, :-1] > 0).mean(0)
    order = np.argsort(-pixels, kind="stable")
    rows = np.arange(len(classes))
    seen = pixels[order] > 0
    with styled():
        figure = new_figure(WIDTH, 1.2 + 0.25 * len(classes))
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        least = 10 ** np.floor(np.log10(max(LEAST, pixels[pixels > 0].min(initial=100)) / 2))
        left.hlines(rows[seen], least, pixels[order][seen], color=RULE, linewidth=5, zorder=1)
        left.plot(pixels[order][seen], rows[seen], "o", color=RIGHT, markersize=6, zorder=2)
        right.barh(rows, images[order], 0.62, color=RIGHT)
        for row, c in enumerate(order):
            text, place = (_percent(pixels[c]), pixels[c]) if pixels[c] > 0 else ("nowhere", least)
            left.annotate(text, (place, row), (8, 0), textcoords="offset points", va="center", fontsize=9.5, color=INK)
            if colors is not None:
                place = left.get_yaxis_transform()  # across by share of the width, along by row
                left.plot(-0.025, row, "s", color=colors[c] / 255, markersize=8, clip_on=False, transform=place, **EDGE)
        left.set(xscale="log", xlim=(least, 200), xlabel="of the labelled pixels, % (logarithmic)")
        left.xaxis.set_major_formatter("{x:g}")
        left.set_yticks(rows, [spoken(classes[c]) for c in order])
        right.set(xlim=(0, 100), xlabel="of the images, %")
        left.set_ylim(len(classes) - 0.4, -0.6)
        for axes in (left, right):
            axes.tick_params(axis="y", length=0, labelcolor=INK, pad=16 if colors is not None and axes is left else 4)
            axes.grid(visible=False, axis="y")
            axes.spines["left"].set_visible(False)
        left.set_title("How many pixels a class has")
        right.set_title("How many images show it")
    return figure


def plot_image_sizes(widths: ArrayLike, heights: ArrayLike) -> "Figure":
    """Width and height of the N images as bubbles, a larger one for more images of that size, and their megapixels beside."""
    sizes, counts = np.unique(np.stack([np.asarray(widths), np.asarray(heights)], 1), axis=0, return_counts=True)  # (S, 2)
    mega = np.asarray(widths, np.float64) * np.asarray(heights) / 1e6
    with styled() as seaborn:
        figure = new_figure(WIDTH, 4.2)
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        reach = 1.08 * sizes.max(0)
        for share, name in ((4 / 3, "4:3"), (16 / 9, "16:9"), (2, "2:1"), (3 / 4, "3:4")):
            end = min(reach[0], share * reach[1])
            left.plot((0, end), (0, end / share), color=RULE, linewidth=1, zorder=1)
            left.annotate(name, (end, end / share), (-3, -9), textcoords="offset points", ha="right", color=MUTED, fontsize=9)
        area = 30 + 400 * counts / counts.max()
        left.scatter(*sizes.T, s=area, color=RIGHT, alpha=0.55, edgecolor=PAPER, linewidth=0.8, zorder=2)
        left.set(xlim=(0, reach[0]), ylim=(0, reach[1]), xlabel="width, pixels", ylabel="height, pixels")
        left.set_title(f"{len(mega):,} images of {len(sizes):,} size{'s' * (len(sizes) > 1)}")
        bins: Any = min(24, math.ceil(math.sqrt(len(mega)))) if np.ptp(mega) > 0 else [0.9 * mega[0], 1.1 * mega[0]]
        seaborn.histplot(x=mega, bins=bins, color=RIGHT, alpha=0.85, ax=right)
        right.set(xlabel=f"megapixels (median {np.median(mega):.3g})", ylabel="images", title="Megapixels")
        right.yaxis.get_major_locator().set_params(integer=True)
        right.grid(visible=False, axis="x")
    return figure


def plot_class_places(places: NDArray[np.float64], classes: Sequence[str], *, colors: Pixels | None = None) -> "Figure":
    """Where in the image each class lives: a small map for each, from never (white) to as often as anywhere (dark).

    `places` (C, Y, X) is the share of a cell's pixels that are of the class, as `class_places` gives it; the number above a map
    is its darkest cell's. Every image lies under the whole map, whatever its size. Classes that nowhere occur stand below.
    """
    most = places.max((1, 2))  # (C,)
    shown: list[int] = np.flatnonzero(most).tolist()
    rows = max(1, -(-len(shown) // COLUMNS))
    with styled() as seaborn:
        figure = new_figure(WIDTH, rows * (WIDTH / COLUMNS / 2 + 0.28) + 0.3)
        shades = seaborn.blend_palette([PAPER, *SHADES, INK], as_cmap=True)
        grid = np.atleast_1d(figure.subplots(rows, COLUMNS)).ravel()
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        for c, axes in zip(shown, grid, strict=False):
            axes.imshow(places[c], cmap=shades, vmin=0, vmax=most[c], extent=(0, 2, 0, 1), interpolation="bilinear")
            name = spoken(classes[c])
            axes.set_title(name, fontsize=10 if len(name) < 18 else 8, pad=5, x=0.0 if colors is None else 0.075)
            darkest = {"fontsize": 9, "loc": "right", "color": MUTED, "fontweight": "normal"}
            axes.set_title(_percent(100 * most[c]), **darkest)
            if colors is not None:
                place = axes.transAxes
                axes.plot(0.03, 1.12, "s", color=colors[c] / 255, markersize=7, clip_on=False, transform=place, **EDGE)
            axes.set(xticks=[], yticks=[], xlim=(0, 2), ylim=(0, 1))
            axes.grid(visible=False)
            for spine in axes.spines.values():
                spine.set(visible=True, color=RULE)
        absent = [spoken(name) for c, name in enumerate(classes) if not most[c]]
        if absent:
            listed = ", ".join(absent) if len(absent) <= MOST_LISTED else f"{len(absent)} of {len(classes)} classes"
            figure.supxlabel(f"Nowhere: {listed}", fontsize=9.5, color=MUTED, x=0.005, ha="left")
    return figure


def plot_augmentations(
    image: Pixels, label: Pixels, augmentation: "Augmentation", *, colors: Pixels, draws: int = 12, seed: int = 0
) -> "Figure":
    """One sample and `draws` of what training sees of it: scale, crop, mirror and colours change, and labels go along.

    `image` (H, W, 3) and `label` (H, W) are a sample as a dataset reads it. Draw d uses the random numbers of `seed` + d. The
    labels, in their classes' `colors` (C, 3), lie over the right half of a draw, so that both are seen.
    """
    from vistalib.data.colors import MEAN, STD

    rows = -(-draws // COLUMNS)
    high = WIDTH * image.shape[0] / image.shape[1] / 2
    crop = augmentation.settings.crop
    cell = WIDTH / COLUMNS * crop[0] / crop[1]
    with styled():
        figure = new_figure(WIDTH, high + 0.42 + rows * (cell + 0.08))
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[high + 0.42, rows * (cell + 0.08)])[:, 0]
        for axes, picture, title in zip(above.subplots(1, 2), (image, overlay(image, label, colors)), ("image", "labels")):
            axes.imshow(picture)
            axes.set_title(title)
            axes.set_axis_off()
        for d, axes in enumerate(np.atleast_1d(below.subplots(rows, COLUMNS)).ravel()):
            axes.set_axis_off()
            if d < draws:
                pixels, target = augmentation(image, label, np.random.RandomState(seed + d))
                picture = np.rint(pixels.permute(1, 2, 0).numpy() * STD + MEAN).clip(0, 255).astype(np.uint8)  # (h, w, 3)
                painted = overlay(picture, target.numpy(), colors)
                half = picture.shape[1] // 2
                axes.imshow(np.concatenate([picture[:, :half], painted[:, half:]], 1))
    return figure


def spoken(name: str) -> str:
    """A class's name as a figure has room for it: construction--flat--bike-lane is "flat: bike lane"."""
    return ": ".join(part.replace("-", " ") for part in name.split("--")[-2:])


def _percent(value: float) -> str:
    """A percentage with two digits that count."""
    return f"{value:.0f}%" if value >= 10 else f"{value:.2g}%" if value >= 0.001 else "<0.001%"
