"""Figures of a training run and of its evaluation: curves, per-class IoU, confusion, grids of images.

Every function returns a `matplotlib.figure.Figure` and leaves no trace elsewhere. Letters: C classes, H height, W width.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vistalib.viz.overlay import Pixels
from vistalib.viz.style import INK, MUTED, PAPER, RIGHT, RULE, RUN_LINES, WIDTH, WRONG, new_figure, run_color, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LogLine = Mapping[str, Any]


def plot_curves(logs: Mapping[str, Sequence[LogLine]]) -> "Figure":
    """Loss and learning rate over iterations, and mIoU where a run was evaluated on the way.

    `logs` maps the title of a run to the lines of its `log.jsonl`. The loss is drawn as logged, thin, and smoothed over it.
    """
    train = {title: [line for line in lines if line["kind"] == "train"] for title, lines in logs.items()}
    scores = {title: [line for line in lines if line["kind"] == "evaluation"] for title, lines in logs.items()}
    panels = ["loss", "learning rate"] + (["mIoU, %"] if any(scores.values()) else [])
    with styled():
        figure = new_figure(WIDTH, 3.6)
        axes = dict(zip(panels, figure.subplots(1, len(panels)), strict=True))
        for position, title in enumerate(logs):
            look: dict[str, Any] = {"color": run_color(position), "linestyle": RUN_LINES[position % len(RUN_LINES)]}
            steps = [line["iteration"] for line in train[title]]
            loss = np.array([line["loss"] for line in train[title]], float)
            axes["loss"].plot(steps, loss, color=look["color"], alpha=0.28, linewidth=0.8)
            axes["loss"].plot(steps, smooth(loss), label=title, **look)
            axes["learning rate"].plot(steps, [line["lr"] for line in train[title]], **look)
            if scores[title]:
                percent = [100 * line["mean_iou"] for line in scores[title]]
                axes["mIoU, %"].plot([line["iteration"] for line in scores[title]], percent, marker="o", markersize=4, **look)
        for name, panel in axes.items():
            panel.set_title(name)
            panel.set_xlabel("iteration")
            panel.set_ylim(bottom=0)
        axes["learning rate"].yaxis.set_major_formatter(lambda value, _: f"{value:.1e}".replace("e-0", "e-") if value else "0")
        figure.legend(loc="outside upper left", ncols=min(len(logs), 2))
    return figure


def smooth(values: NDArray[np.float64], window: int | None = None) -> NDArray[np.float64]:
    """Exponential moving average over about `window` values, by default a twentieth of them; starts unbiased."""
    window = window or max(1, len(values) // 20)
    keep = 1 - 1 / window
    smoothed, total, weight = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(values):
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed[i] = total / weight
    return smoothed


def plot_iou_bars(
    evaluations: Mapping[str, Mapping[str, Any]], classes: Sequence[str], *, colors: Pixels | None = None
) -> "Figure":
    """Per-class IoU of one or several evaluations: the first as thick bars with figures, the others thin beneath.

    `evaluations` maps a title to `Evaluation.to_json()`. Classes are sorted by the first; those without IoU (absent from truth
    and prediction) come last. `colors` (C, 3) puts the colour of each class beside its name.
    """
    iou = {title: [_percent(evaluation["iou"][name]) for name in classes] for title, evaluation in evaluations.items()}
    first = next(iter(iou.values()))
    order = sorted(range(len(classes)), key=lambda c: (math.isnan(first[c]), -first[c]))
    thin = 0.62 / (len(iou) + 1)  # of a row: the first bar is twice as thick as the others
    with styled():
        figure = new_figure(WIDTH, 1.0 + len(classes) * (0.24 + 0.045 * len(iou)))
        axes = figure.subplots()
        rows = np.arange(len(classes), dtype=float)
        top = rows - 0.31
        for position, (title, values) in enumerate(iou.items()):
            height = thin * (2 if position == 0 else 1)
            label = f"{title}, mIoU {_text(_percent(evaluations[title]['mean_iou']))}"
            axes.barh(top, [values[c] for c in order], height * 0.9, align="edge", color=run_color(position), label=label)
            top = top + height
        for row, c in enumerate(order):
            reach = max((values[c] for values in iou.values() if not math.isnan(values[c])), default=0.0)
            ink = MUTED if math.isnan(first[c]) else INK
            axes.text(reach + 0.8, row, _text(first[c]), va="center", fontsize=9.5, color=ink)
            if colors is not None:
                edge: dict[str, Any] = {"markeredgecolor": MUTED, "markeredgewidth": 0.4}
                axes.plot(-1.4, row, "s", color=colors[c] / 255, markersize=8, clip_on=False, **edge)
        axes.set_yticks(rows, [classes[c] for c in order])
        axes.tick_params(axis="y", length=0, pad=16 if colors is not None else 4, labelcolor=INK)
        axes.set(xlim=(0, 100), ylim=(len(classes) - 0.5, -0.5), xlabel="IoU, %")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=min(len(iou), 2))
    return figure


def plot_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> "Figure":
    """The confusion matrix (C, C), rows truth, columns prediction, each row as percent of its pixels.

    What is right (the diagonal) is blue, full at 100; what is mistaken is red, full at 50. A row without truth says so.
    """
    confusion = np.asarray(confusion, np.float64)
    truth = confusion.sum(1, keepdims=True)
    share = np.divide(100 * confusion, truth, out=np.zeros_like(confusion), where=truth > 0)
    diagonal = np.eye(len(classes), dtype=bool)
    side = 2.4 + 0.4 * len(classes)
    with styled() as seaborn:
        from matplotlib.colors import LinearSegmentedColormap, to_rgba

        figure = new_figure(side, side * 0.94)
        axes: Axes = figure.subplots()
        for hue, most, mask in ((RIGHT, 100, ~diagonal), (WRONG, 50, diagonal)):
            shades = LinearSegmentedColormap.from_list("shades", [to_rgba(hue, 0.0), to_rgba(hue, 1.0)])  # reads on any page
            seaborn.heatmap(share, mask=mask, cmap=shades, vmin=0, vmax=most, square=True, cbar=False, ax=axes, linewidths=0)
        for row, column in zip(*np.nonzero(share >= 0.5), strict=True):
            value = share[row, column]
            text = PAPER if value > (55 if row == column else 27) else INK
            axes.text(column + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center", fontsize=8, color=text)
        for row in np.flatnonzero(truth[:, 0] == 0):
            note = "no such pixel in the truth"
            axes.text(len(classes) / 2, row + 0.5, note, ha="center", va="center", fontsize=8.5, color=MUTED)
        ticks = np.arange(len(classes)) + 0.5
        axes.set_xticks(ticks, classes, rotation=90)
        axes.set_yticks(ticks, classes, rotation=0)
        axes.tick_params(length=0, labelcolor=INK)
        axes.grid(visible=False)
        axes.hlines(range(len(classes) + 1), 0, len(classes), color=RULE, linewidth=0.6)
        axes.vlines(range(len(classes) + 1), 0, len(classes), color=RULE, linewidth=0.6)
        axes.set(xlabel="predicted class", ylabel="true class", title="percent of the true class's pixels")
    return figure


def plot_images(images: Sequence[Pixels], titles: Sequence[str] | None = None, *, columns: int = 3) -> "Figure":
    """A grid of pictures (H, W, 3), `columns` in a row, all in the frame of the first; `titles` head them."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = images[0].shape[:2]
    with styled():
        figure = new_figure(WIDTH, rows * (WIDTH / columns * height / width + (0.3 if titles else 0.05)))
        grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axes in grid:
            axes.set_axis_off()
        for i, (axes, image) in enumerate(zip(grid, images, strict=False)):
            axes.imshow(image, interpolation="none")
            if titles:
                axes.set_title(titles[i])
    return figure


def _percent(fraction: float | None) -> float:
    return math.nan if fraction is None else 100 * fraction


def _text(percent: float) -> str:
    return "undefined" if math.isnan(percent) else f"{percent:.1f}"
