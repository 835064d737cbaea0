"""Figures of a bench's record: times against the floor, and the roofline.

Everything drawn comes from the record that `vistalib bench op --json` writes.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from vistalib.viz.style import INK, MUTED, WIDTH, new_figure, run_color, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
PANEL = ("crop", "dtype", "offsets", "cache")  # what the panels of a row of the figure have in common
MOST_LEVEL = 5  # names of workloads that fit beside each other
MARKERS = "osD^vPX*"


def plot_bench(record: Mapping[str, Any]) -> "Figure":
    """Times of every implementation, median and quartiles, over the floor of each workload; the roofline below.

    A row of panels for each crop, dtype, distribution of offsets and state of the caches; a panel for each direction.
    """
    rows: Sequence[Row] = record["rows"]
    names = list(dict.fromkeys(_name(row) for row in rows))
    colors = {name: run_color(position) for position, name in enumerate(names)}
    kinds = list(dict.fromkeys(tuple(row[key] for key in PANEL) for row in rows))
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    with styled() as seaborn:
        figure = new_figure(WIDTH, 2.6 * len(kinds) + 4.2)
        parts: Any = figure.subfigures(2, 1, height_ratios=(2.6 * len(kinds), 4.2))
        above, below = parts
        grid = above.subplots(len(kinds), len(directions), squeeze=False, sharey="row")
        for axes, (kind, direction) in zip(grid.flat, product(kinds, directions), strict=True):
            here = [row for row in rows if row["direction"] == direction and tuple(row[key] for key in PANEL) == kind]
            _plot_times(seaborn, axes, here, colors)
            axes.set_title(f"{direction}\n{', '.join(part for part in kind if part)}", fontsize=9.5)
        for axes in grid[:, 0]:
            axes.set_ylabel("ms (line: the floor)")
        _plot_roofline(seaborn, below.subplots(), record, colors)
    return figure


def _plot_times(seaborn: Any, axes: "Axes", rows: Sequence[Row], colors: Mapping[str, str]) -> None:
    """Every sample goes in; seaborn draws the median and the middle half."""
    samples = [(row["name"], 1e3 * second, _name(row)) for row in rows for second in row["seconds"]]
    data = dict(zip(("workload", "ms", "implementation"), zip(*samples, strict=True), strict=True))
    look: dict[str, Any] = {"linestyle": "none", "dodge": 0.5, "markersize": 4, "err_kws": {"linewidth": 1.4}}
    markers = [MARKERS[position % len(MARKERS)] for position in range(len(colors))]
    seaborn.pointplot(
        data,
        x="workload",
        y="ms",
        hue="implementation",
        hue_order=list(colors),
        palette=colors,
        markers=markers,
        estimator="median",
        errorbar=("pi", 50),
        log_scale=(None, 10),
        legend=False,
        ax=axes,
        **look,
    )
    names = list(dict.fromkeys(row["name"] for row in rows))
    axes.tick_params(axis="x", labelrotation=90 if len(names) > MOST_LEVEL else 0)
    for place, name in enumerate(names):
        floor = next(1e3 * row["floor"] for row in rows if row["name"] == name)
        axes.hlines(floor, place - 0.4, place + 0.4, color=INK, linewidth=1.2)
    axes.set(xlabel="", ylabel="")
    axes.yaxis.set_major_formatter("{x:g}")


def _plot_roofline(seaborn: Any, axes: "Axes", record: Mapping[str, Any], colors: Mapping[str, str]) -> None:
    """What the machine allows at each number of operations a byte, and where the calls are."""
    rows = record["rows"]
    speed = record["machine"]["bytes_per_second"]
    intensity = [row["flops"] / row["bytes"] for row in rows]
    span = (min(intensity) / 16, max(intensity) * 16)
    for dtype, most in record["machine"]["flops_per_second"].items():
        ridge = min(max(most / speed, span[0]), span[1])
        corners = (span[0], ridge, span[1])
        axes.plot(corners, [min(most, speed * x) / 1e9 for x in corners], color=INK, linewidth=1.2)
        note = f"copy {speed / 1e9:.0f} GB/s, multiply {most / 1e9:.0f} GFLOP/s in {dtype}"
        axes.annotate(
            note, (ridge, min(most, speed * ridge) / 1e9), (0, 5), textcoords="offset points", color=MUTED, fontsize=9
        )
    data = {
        "intensity": intensity,
        "achieved": [row["flops"] / row["time"]["median"] / 1e9 for row in rows],
        "implementation": [_name(row) for row in rows],
        "direction": [row["direction"] for row in rows],
    }
    seaborn.scatterplot(
        data,
        x="intensity",
        y="achieved",
        hue="implementation",
        hue_order=list(colors),
        palette=colors,
        style="direction",
        ax=axes,
        s=34,
    )
    axes.set(xscale="log", yscale="log", xlim=span, xlabel="operations a byte", ylabel="GFLOP/s", title="roofline")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _name(row: Row) -> str:
    return str(row["implementation"]) if row["mode"] == "eager" else f"{row['implementation']}, {row['mode']}"
