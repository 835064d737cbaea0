"""The figure of a comparison: what each class gained or lost, and how far to believe it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vistalib.viz.style import INK, MUTED, WIDTH, new_figure, run_color, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEAN = "mIoU"


def plot_comparison(comparison: Mapping[str, Any], *, titles: tuple[str, str] = ("A", "B")) -> "Figure":
    """The difference of mIoU and of every class's IoU with their 95% intervals, B less A, in points; largest gain first.

    `comparison` is `Comparison.to_json()`. Classes that differ by themselves are in the colour of the side that is better,
    the others grey; those without IoU on a side are left out.
    """
    scored = {name: found for name, found in comparison["iou"].items() if found["difference"] is not None}
    order = sorted(scored, key=lambda name: -scored[name]["difference"]["value"])
    mean = comparison["mean_iou"]["difference"]
    rows = [(MEAN, mean, mean["low"] > 0 or mean["high"] < 0)]
    rows += [(name, scored[name]["difference"], scored[name]["distinct"]) for name in order]
    with styled():
        figure = new_figure(WIDTH, 1.2 + 0.27 * len(rows))
        axes = figure.subplots()
        for row, (_, difference, distinct) in enumerate(rows):
            value, low, high = (100 * difference[key] for key in ("value", "low", "high"))
            color = run_color(1 if value > 0 else 0) if distinct else MUTED
            weight = 2.6 if row == 0 else 1.6
            axes.plot([low, high], [row, row], color=color, linewidth=weight, solid_capstyle="butt")
            axes.plot(value, row, "D" if row == 0 else "o", color=color, markersize=7 if row == 0 else 5.5)
            place: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{value:+.1f}", (high, row), fontsize=9, color=color, **place)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.axhline(0.5, color=MUTED, linewidth=0.6)
        axes.set_yticks(np.arange(len(rows)), [name for name, _, _ in rows])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.margins(x=0.09)
        axes.set(ylim=(len(rows) - 0.5, -0.6), xlabel=f"points of IoU, {titles[1]} less {titles[0]}, with 95% intervals")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_title(f"{comparison['images']} images, {comparison['resamples']:,} draws of them")
    return figure
