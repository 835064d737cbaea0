"""A pinhole camera over one flat ground plane.

World: metres, x to the right, y up, z ahead; the origin lies on the ground below the camera. Image: pixels, u to the right,
v down, the top left corner of the image is (0, 0). The camera looks along z; its pitch is a shift of the horizon, so that
vertical edges stay vertical. Letters: N points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]

NEAR = 0.7  # metres: what is nearer is cut off
FAR = 600.0  # metres: where the ground ends


@dataclass(frozen=True)
class Camera:
    """`focal` and `horizon` (the row of the vanishing points) are in pixels, `mount` (height) in metres, `roll` in radians."""

    width: int
    height: int
    focal: float
    horizon: float
    mount: float
    roll: float = 0.0

    def project(self, points: Points) -> Points:
        """World points (N, 3) with z > 0 -> pixels (N, 2)."""
        x, y, z = points.T
        du = self.focal * x / z
        dv = self.focal * (self.mount - y) / z
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return np.stack((self.width / 2 + cos * du - sin * dv, self.horizon + sin * du + cos * dv), 1)  # (N, 2)

    def slopes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """x/z and y/z of the ray through the centre of every pixel, each (H, W); y/z counts from the camera's height."""
        u = np.arange(self.width, dtype=np.float32) + np.float32(0.5 - self.width / 2)
        v = np.arange(self.height, dtype=np.float32)[:, None] + np.float32(0.5 - self.horizon)
        cos, sin = np.float32(np.cos(self.roll) / self.focal), np.float32(np.sin(self.roll) / self.focal)
        return cos * u + sin * v, sin * u - cos * v

    def inverse_depth_plane(self, points: Points) -> tuple[float, float, float]:
        """(a, b, c) with 1/z = a u + b v + c on the plane through the first three of `points` (N >= 3, 3).

        A plane seen edge-on, where no such numbers exist, gives its nearest depth.
        """
        pixels = self.project(points[:3])
        system = np.column_stack((pixels, np.ones(3)))
        if abs(np.linalg.det(system)) < 1e-3:
            return 0.0, 0.0, float(1 / points[:3, 2].min())
        a, b, c = np.linalg.solve(system, 1 / points[:3, 2])
        return float(a), float(b), float(c)


def clip_near(points: Points, near: float = NEAR) -> Points:
    """The part of a polygon (N, 3) with z >= `near` (M, 3); M is 0 where nothing is left."""
    inside = points[:, 2] >= near
    if inside.all():
        return points
    kept: list[Points] = []
    for here, there, here_in, there_in in zip(points, np.roll(points, -1, 0), inside, np.roll(inside, -1), strict=True):
        if here_in:
            kept.append(here)
        if here_in != there_in:
            kept.append(here + (there - here) * ((near - here[2]) / (there[2] - here[2])))
    return np.array(kept).reshape(-1, 3)


@dataclass(frozen=True)
class Frame:
    """Where an object stands: local (side, up, along) metres to the world, turned by `heading` from z towards x."""

    x: float
    y: float
    z: float
    heading: float = 0.0

    def world(self, local: ArrayLike) -> Points:
        """Local points (N, 3) -> world points (N, 3)."""
        side, up, along = np.asarray(local, np.float64).reshape(-1, 3).T
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return np.stack((self.x + cos * side + sin * along, self.y + up, self.z - sin * side + cos * along), 1)

    def direction(self, side: float, up: float, along: float) -> tuple[float, float, float]:
        """A local direction in the world."""
        cos, sin = float(np.cos(self.heading)), float(np.sin(self.heading))
        return cos * side + sin * along, up, -sin * side + cos * along

    def camera_side(self) -> float:
        """The side coordinate of the camera: positive where the object shows its right."""
        return float(-self.x * np.cos(self.heading) + self.z * np.sin(self.heading))
