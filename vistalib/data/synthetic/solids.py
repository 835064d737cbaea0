"""Solids that the vehicles are made of: a side profile drawn out across a width, painted from its far faces to its near ones.

Local axes of a solid: side to the right, up, along its direction. Letters: E edges of the profile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vistalib.data.synthetic.camera import Frame, Points
from vistalib.data.synthetic.draw import Canvas
from vistalib.data.synthetic.light import Normal, Rgb

Detail = Callable[["Panel"], None]


@dataclass(frozen=True)
class Panel:
    """A flat quadrilateral on a solid; (u, v) run from its lower left (0, 0) to its upper right (1, 1) as seen from outside."""

    canvas: Canvas
    corners: Points  # (4, 3): lower left, lower right, upper right, upper left
    normal: Normal

    def at(self, u: float, v: float) -> Points:
        a, b, c, d = self.corners
        point: Points = (a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v
        return point

    def patch(self, u0: float, u1: float, v0: float, v1: float, color: Rgb, *, shines: bool = False) -> None:
        """Paint a part of the panel."""
        points = np.stack((self.at(u0, v0), self.at(u1, v0), self.at(u1, v1), self.at(u0, v1)))
        self.canvas.face(points, color, None if shines else self.normal)


@dataclass(frozen=True)
class Edge:
    """A face of the solid across its width: from (along, up) to the next edge's start."""

    along: float
    up: float
    color: Rgb
    detail: Detail | None = None


@dataclass(frozen=True)
class Side:
    """The visible side of a solid: a plane on which `polygon` draws in (along, up) coordinates."""

    canvas: Canvas
    frame: Frame
    sign: float
    width_at: Callable[[float], float]

    @property
    def normal(self) -> Normal:
        return self.frame.direction(self.sign, 0.0, 0.0)

    def points(self, outline: Sequence[tuple[float, float]]) -> Points:
        return self.frame.world([(self.sign * (self.width_at(up) + 0.004), up, along) for along, up in outline])

    def polygon(self, outline: Sequence[tuple[float, float]], color: Rgb, *, shines: bool = False) -> None:
        self.canvas.face(self.points(outline), color, None if shines else self.normal)

    def band(self, along0: float, along1: float, up0: float, up1: float, color: Rgb) -> None:
        self.polygon([(along0, up0), (along1, up0), (along1, up1), (along0, up1)], color)

    def circle(self, along: float, up: float, radius: float, color: Rgb) -> None:
        angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        self.polygon([(along + radius * float(np.cos(a)), up + radius * float(np.sin(a))) for a in angles], color)


def constant(width: float) -> Callable[[float], float]:
    """A half width that is the same at every height."""
    return lambda _: width


def solid(
    canvas: Canvas,
    frame: Frame,
    edges: Sequence[Edge],
    width_at: Callable[[float], float],
    color: Rgb,
    detail: Callable[[Side], None],
) -> None:
    """Draw a solid: `edges` go from the lower front over the top to the lower rear; `width_at(up)` is its half width.

    Faces that look away are left out, the others are painted far to near; the side that shows comes last.
    """
    eye = np.array([0.0, canvas.camera.mount, 0.0])
    faces: list[tuple[float, Panel, Edge]] = []
    for edge, following in pairwise(edges):
        run, rise = following.along - edge.along, following.up - edge.up
        size = float(np.hypot(run, rise)) or 1.0
        normal = frame.direction(0.0, -run / size, rise / size)
        low, high = width_at(edge.up), width_at(following.up)
        corners = frame.world(
            [
                (low, edge.up, edge.along),
                (-low, edge.up, edge.along),
                (-high, following.up, following.along),
                (high, following.up, following.along),
            ]
        )  # fmt: skip
        if rise < 0:  # a face of the rear runs downwards: turn it so that v points up
            corners = corners[[2, 3, 0, 1]]
        towards = eye - corners.mean(0)
        if float(towards @ np.array(normal)) > 0:
            faces.append((float(np.linalg.norm(towards)), Panel(canvas, corners, normal), edge))
    for _, panel, edge in sorted(faces, key=lambda face: -face[0]):
        panel.patch(0, 1, 0, 1, edge.color)
        if edge.detail:
            edge.detail(panel)
    reach = frame.camera_side()
    sign = 1.0 if reach > 0 else -1.0
    if abs(reach) > width_at(edges[0].up):
        side = Side(canvas, frame, sign, width_at)
        side.polygon([(edge.along, edge.up) for edge in edges], color)
        detail(side)


def box(canvas: Canvas, frame: Frame, length: float, width: float, bottom: float, top: float, color: Rgb) -> None:
    """A plain box centred on the frame."""
    half = length / 2
    outline = [(half, bottom), (half, top), (-half, top), (-half, bottom)]
    solid(canvas, frame, [Edge(a, u, color) for a, u in outline], constant(width / 2), color, lambda _: None)
