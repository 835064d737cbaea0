"""The one place for the look: theme, colours, figure sizes.

Figures have dark ink on a white card, which reads on any page and in print. A page of our own can do better: it places a
figure as inline SVG whose colours are CSS variables (`vistalib.viz.embed`), so one figure follows light and dark pages.
`PAGE_COLORS` holds both values of every such variable; the light ones are the colours the figures are drawn in.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vistalib.extras import missing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_COLORS = {  # variable: (light page, dark page); light values are unique, since figures are recoloured by them
    "paper": ("#fefefe", "#171b21"),
    "ink": ("#1d2430", "#e7eaef"),
    "muted": ("#5d6878", "#9aa5b4"),
    "rule": ("#dde2e8", "#2d343e"),
    "run-0": ("#0f6cbd", "#5cb3f7"),  # blue, orange, green, purple: told apart by every common colour vision,
    "run-1": ("#c86400", "#f5a54a"),  # and at least 3 to 1 against their page
    "run-2": ("#0b8a63", "#3ccb9b"),
    "run-3": ("#a8509a", "#e695d4"),
    "run-4": ("#7a6a1f", "#d3c25a"),
    "wrong": ("#d1341f", "#ff6a52"),
}
PAPER, INK, MUTED, RULE = (PAGE_COLORS[name][0] for name in ("paper", "ink", "muted", "rule"))
RIGHT, WRONG = PAGE_COLORS["run-0"][0], PAGE_COLORS["wrong"][0]
RUN_COLORS = tuple(light for name, (light, _) in PAGE_COLORS.items() if name.startswith("run-"))
RUN_LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)))  # a second way to tell runs apart
WIDTH = 10.0  # inches: the width of a figure that fills the column


@contextmanager
def styled() -> Iterator[Any]:
    """Draw in the house style inside the `with` block; yields the seaborn module.

    Nothing outside the block changes. Raises `ModuleNotFoundError`, with the command to run, where seaborn or matplotlib is
    missing.
    """
    try:
        import matplotlib
        import seaborn
    except ModuleNotFoundError as error:
        raise missing("seaborn", "draw the figures") from error
    if "ipykernel" in sys.modules:
        import matplotlib_inline.backend_inline  # noqa: F401  # its import teaches notebooks to show a returned figure
    settings = seaborn.plotting_context("notebook", font_scale=0.9) | seaborn.axes_style("ticks") | _SETTINGS
    with matplotlib.rc_context(settings):
        yield seaborn


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of `width` x `height` inches that no global list holds on to; call inside `styled`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def run_color(position: int) -> str:
    """The colour of the run at `position` in a comparison; the first is the one the page is about."""
    return RUN_COLORS[position % len(RUN_COLORS)]


_SETTINGS = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.0,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.8,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.fontsize": 10.0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.9,
    "patch.linewidth": 0.0,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelsize": 9.5,
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.8,
    "ytick.color": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 9.5,
    "ytick.major.size": 3.0,
    "ytick.major.width": 0.8,
}
