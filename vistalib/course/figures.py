"""Figures for notebook pages: drawn once, right on light and dark pages, and with words for those who cannot see them."""

from typing import TYPE_CHECKING

from vistalib.viz import figure_svg
from vistalib.viz.style import INK, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Shown:
    """A figure as the last value of a notebook cell: inline SVG on a page, its description anywhere else."""

    def __init__(self, figure: "Figure", description: str) -> None:
        self.figure = figure
        self.description = description

    def __repr__(self) -> str:
        return f"[figure: {self.description}]"

    def _repr_html_(self) -> str:
        frame = f"background: var(--paper, {PAPER}); color: var(--ink, {INK})"
        return f'<figure class="drawn" style="{frame}">{figure_svg(self.figure, self.description)}</figure>'


def show(figure: "Figure", description: str) -> Shown:
    """Show `figure` as the value of a cell; `description` says in a sentence what there is to see."""
    return Shown(figure, description)
