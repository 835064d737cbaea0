"""Where DCNv3 looks: its sampling points for a few pixels of an image, at every level of the network.

A level samples P points for one output pixel (groups x kernel points, of one block or of several). Level by level the points
spread, so each level is shown in a window of its own size around the pixel. Letters: q pixels, P points, H height, W width.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vistalib.viz.overlay import Pixels
from vistalib.viz.style import WIDTH, new_figure, run_color, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float32] | NDArray[np.float64]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def plot_sampling(image: Pixels, query: Floats, locations: Mapping[str, Floats], weights: Mapping[str, Floats]) -> "Figure":
    """The image (H, W, 3) with the pixels `query` (q, 2) marked, and under it a row a pixel, a column a level.

    `locations` maps a level to its points (q, P, 2), `weights` to their weights (q, P); all positions are (x, y) in pixels of
    `image`. A larger, brighter point weighs more. Raises `ValueError` when the shapes do not fit together.
    """
    query = np.asarray(query, np.float64)
    for level, points in locations.items():
        if points.shape != (len(query), points.shape[1], 2) or weights[level].shape != points.shape[:2]:
            raise ValueError(
                f"level {level} must have locations (q, P, 2) and weights (q, P) with q={len(query)}, got {points.shape} and "
                f"{weights[level].shape}; pass one row a pixel"
            )
    levels = list(locations)
    cell = WIDTH / max(len(levels), 3)
    height, width = image.shape[:2]
    wide = WIDTH * height / width
    with styled():
        figure = new_figure(WIDTH, wide + 0.35 + len(query) * cell)
        whole, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[wide, 0.35 + len(query) * cell])[:, 0]
        _draw_whole(whole.subplots(), image, query)
        grid = below.subplots(len(query), len(levels), squeeze=False)
        for column, level in enumerate(levels):
            reach = _reach(locations[level], query)
            for row in range(len(query)):
                axes = grid[row, column]
                _draw_window(axes, image, query[row], reach=reach, color=run_color(row))
                _draw_points(axes, locations[level][row], weights[level][row], reach=reach, center=query[row])
                if row == 0:
                    axes.set_title(f"{level.replace('_', ' ')}: {2 * reach:.0f} pixels wide")
                if column == 0:
                    axes.set_ylabel(LETTERS[row % 26], color=run_color(row), rotation=0, labelpad=14, va="center")
                    axes.yaxis.label.set(fontsize=15, fontweight="bold")
    return figure


def _reach(points: Floats, query: Floats) -> float:
    """Half the width of the window that shows nearly all points of a level around their pixels; even numbers of pixels."""
    distance = np.abs(points - query[:, None]).max(-1)  # (q, P)
    return float(max(8.0, 2 * np.ceil(1.12 * np.quantile(distance, 0.995) / 2)))


def _draw_whole(axes: "Axes", image: Pixels, query: Floats) -> None:
    axes.imshow(image, interpolation="none")
    axes.set_axis_off()
    for row, (x, y) in enumerate(query):
        axes.plot(x, y, "o", markersize=15, markerfacecolor="none", markeredgecolor="white", markeredgewidth=4.5)
        axes.plot(x, y, "o", markersize=15, markerfacecolor="none", markeredgecolor=run_color(row), markeredgewidth=2.5)
        badge = {"boxstyle": "circle,pad=0.28", "facecolor": run_color(row), "edgecolor": "white", "linewidth": 1.2}
        axes.annotate(
            LETTERS[row % 26], (x, y), (0, 21 if y > 40 else -21), textcoords="offset points", ha="center", va="center",
            color="white", fontsize=10, fontweight="bold", bbox=badge,
        )  # fmt: skip


def _draw_window(axes: "Axes", image: Pixels, center: Floats, *, reach: float, color: str) -> None:
    """The square of half-width `reach` around `center`; outside the image it is dark: zeros are read there."""
    height, width = image.shape[:2]
    x, y = center
    left, right = max(0, int(x - reach)), min(width, int(np.ceil(x + reach)) + 1)
    top, bottom = max(0, int(y - reach)), min(height, int(np.ceil(y + reach)) + 1)
    axes.imshow(image[top:bottom, left:right], extent=(left - 0.5, right - 0.5, bottom - 0.5, top - 0.5), interpolation="none")
    axes.set(xlim=(x - reach, x + reach), ylim=(y + reach, y - reach), xticks=[], yticks=[], facecolor="#10141a")
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=1.6)


def _draw_points(axes: "Axes", points: Floats, weights: Floats, *, reach: float, center: Floats) -> None:
    order = np.argsort(weights)  # the heaviest on top
    share = weights[order] / max(float(weights.max()), 1e-12)
    inside = (np.abs(points[order] - center) <= reach).all(-1)
    x, y = points[order][inside].T
    shade: dict[str, Any] = {"c": share[inside], "cmap": "plasma", "vmin": 0, "vmax": 1}
    axes.scatter(x, y, s=6 + 60 * share[inside], edgecolors="white", linewidths=0.6, alpha=0.92, **shade)
    axes.plot(*center, "+", color="black", markersize=15, markeredgewidth=4)
    axes.plot(*center, "+", color="white", markersize=14, markeredgewidth=2)
