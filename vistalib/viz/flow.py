"""The flow of pixels through a map between classes: what becomes what, and what is lost.

Left stand the dataset's own classes, right those that are trained; a band is as high as its share of the pixels, and at least a
line. Every class keeps the height of its name, so that the many small ones stay legible.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vistalib.viz.datasets import spoken
from vistalib.viz.style import INK, MUTED, PAPER, WIDTH, WRONG, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vistalib.data import LabelMap

LINE = 0.155  # inches that a name needs
THIN = 0.014  # inches of the thinnest band
ALL = 5.0  # inches that all pixels together are high
GAP = 0.09  # inches between what becomes one class and what becomes the next
LEFT, RIGHT, BLOCK = 0.30, 0.72, 0.012  # shares of the width: where the blocks stand, and how wide they are


@dataclass(frozen=True)
class _Band:
    """One class of the dataset: its name, its share, and where it stands on the left, in inches from the top."""

    name: str
    share: float
    top: float  # of its slot
    slot: float  # height of the slot
    height: float  # of the band, in the middle of the slot


@dataclass(frozen=True)
class _Group:
    """What becomes one class, None for what is ignored: the bands from the largest down, and how many do not occur."""

    target: str | None
    bands: tuple[_Band, ...]
    absent: int
    top: float
    bottom: float


def plot_map_flow(chosen: "LabelMap", pixels: Mapping[str, int]) -> "Figure":
    """How the pixels of a dataset's own classes flow into the classes of a map, with what is ignored at the bottom, in red.

    `pixels` are counts by class of the dataset, as `source_pixels` gives them; classes without a pixel are counted only.
    Raises `ValueError` when the map lists a class that has no count.
    """
    if lacking := sorted(name for name, target in chosen.targets.items() if target is not None and name not in pixels):
        raise ValueError(
            f"pixels must have a count for every class that the map {chosen.name!r} lists, got none for "
            f"{', '.join(lacking[:3])}; count a dataset that the map is for"
        )
    groups = _groups(chosen, pixels)
    lost = groups[-1]
    ignored = sum(band.share for band in lost.bands)
    colors: dict[str | None, Any] = {None: WRONG}
    colors |= {target: tuple(color / 255) for target, color in zip(chosen.classes, chosen.colors, strict=True)}
    with styled():
        figure = new_figure(WIDTH, lost.bottom + 0.5)
        axes: Axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(lost.bottom, -0.05))
        axes.set_axis_off()
        for group in groups:
            if group.target is not None or group.bands or group.absent:
                _draw_group(axes, group, colors[group.target])
        axes.set_title(
            f"{len(pixels)} classes become {len(chosen.classes)} under the map {chosen.name!r}: "
            f"{len(lost.bands) + lost.absent} classes with {100 * ignored:.1f}% of the pixels are ignored"
        )
    return figure


def _groups(chosen: "LabelMap", pixels: Mapping[str, int]) -> list[_Group]:
    total, top = max(1, sum(pixels.values())), 0.0
    members: dict[str | None, list[str]] = {target: [] for target in (*chosen.classes, None)}
    for name in sorted(pixels, key=lambda name: -pixels[name]):
        members[chosen.targets.get(name)].append(name)
    groups = []
    for target, names in members.items():
        bands, start = [], top
        for name in (name for name in names if pixels[name]):
            height = max(THIN, ALL * pixels[name] / total)
            bands.append(_Band(name, pixels[name] / total, top, max(LINE, height), height))
            top += bands[-1].slot
        absent = len(names) - len(bands)
        top += LINE if absent or not (names or target is None) else 0
        groups.append(_Group(target, tuple(bands), absent, start, top))
        top += GAP
    return groups


def _draw_group(axes: "Axes", group: _Group, color: Any) -> None:
    """One class on the right with the bands that flow into it, level with the middle of where they come from."""
    height = sum(band.height for band in group.bands)
    bottom = group.bands[-1].top + group.bands[-1].slot if group.bands else group.bottom
    start = right = (group.top + bottom - height) / 2
    names = LEFT - BLOCK - 0.008
    for band in group.bands:
        middle = band.top + band.slot / 2
        left = middle - band.height / 2
        _draw_band(axes, left, right, band.height, color)
        axes.barh(left, BLOCK, band.height, left=LEFT - BLOCK, align="edge", color=color)
        text = f"{spoken(band.name)}   {_percent(band.share)}"
        axes.text(names, middle, text, ha="right", va="center", fontsize=8.5, color=INK)
        right += band.height
    if group.absent:
        text = f"{group.absent} {'more, ' if group.bands else ''}without a pixel here"
        axes.text(names, bottom + LINE / 2 if group.bands else group.top + LINE / 2, text, **_QUIET)
    axes.barh(start, BLOCK, height, left=RIGHT, align="edge", color=color)
    look: dict[str, Any] = {"color": INK if group.bands else MUTED, "fontsize": 10}
    if group.target is None:
        look |= {"color": WRONG, "fontweight": "bold"}
    share = sum(band.share for band in group.bands)
    text = f"{group.target or 'ignored'}   {_percent(share)}"
    axes.text(RIGHT + BLOCK + 0.01, start + height / 2, text, va="center", **look)


def _draw_band(axes: "Axes", left: float, right: float, height: float, color: Any) -> None:
    """A band from the left to the right, by an S that starts and ends level."""
    steps = np.linspace(0, 1, 60)
    across = LEFT + (RIGHT - LEFT) * steps
    down = left + (right - left) * (3 * steps**2 - 2 * steps**3)
    axes.fill_between(across, down, down + height, color=color, alpha=0.45, linewidth=0.4, edgecolor=PAPER)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.01 else f"{100 * share:.2g}%" if share else "nowhere"


_QUIET: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8.5, "color": MUTED}
