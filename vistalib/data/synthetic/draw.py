"""The canvas: coloured polygons in world coordinates, drawn far to near, with what each pixel belongs to.

Two arrays of twice the image's size (the image is averaged from four pixels each, labels take one of the four): `color` uint8
(2H, 2W, 3) and `segment` int32 (2H, 2W), the number of the segment that covers the pixel. A segment knows its class, its
instance, its material and its plane of inverse depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vistalib.data.synthetic.camera import NEAR, Camera, Points, clip_near
from vistalib.data.synthetic.light import TOWARDS_CAMERA, Light, Normal, Rgb
from vistalib.data.vistas_labels import VISTAS_NAMES

SUPER = 2  # canvas pixels along one image pixel
SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
LIMIT = 1 << 17  # pixels: beyond it a coordinate is of no use, and fixed point would overflow
LABEL_OF = {name: value for value, name in enumerate(VISTAS_NAMES)}


@dataclass(frozen=True)
class Segment:
    """What a run of pixels belongs to; `plane` is (a, b, c) of 1/z = a u + b v + c in image pixels."""

    label: int
    instance: int
    plane: tuple[float, float, float]
    material: str = ""


@dataclass
class Canvas:
    """`begin` a segment, then draw its polygons, strokes and discs; points are world coordinates unless said otherwise."""

    camera: Camera
    light: Light
    segments: list[Segment] = field(default_factory=list)
    instances: int = 0

    def __post_init__(self) -> None:
        shape = (self.camera.height * SUPER, self.camera.width * SUPER)
        self.color = np.zeros((*shape, 3), np.uint8)
        self.segment = np.zeros(shape, np.int32)
        self.segments.append(Segment(LABEL_OF["nature--sky"], 0, (0.0, 0.0, 0.0)))

    def begin(
        self,
        label: str,
        *,
        z: float = 0.0,
        plane: tuple[float, float, float] | None = None,
        instance: int | None = None,
        material: str = "",
    ) -> int:
        """Start a segment of the Vistas class `label` at depth `z` or on `plane`; returns its instance number (new)."""
        if instance is None:
            self.instances += 1
            instance = self.instances
        self.segments.append(Segment(LABEL_OF[label], instance, plane or (0.0, 0.0, 1 / max(z, NEAR)), material))
        return instance

    def per_metre(self, z: float) -> float:
        """Canvas pixels to a metre at depth `z`."""
        return SUPER * self.camera.focal / max(z, NEAR)

    def pixels(self, points: Points) -> Points:
        """Canvas coordinates (N, 2) of world points (N, 3), in which the centre of the first pixel is (0, 0)."""
        return np.clip(self.camera.project(points) * SUPER - 0.5, -LIMIT, LIMIT)

    def face(self, points: ArrayLike, color: Rgb, normal: Normal | None = TOWARDS_CAMERA) -> None:
        """Fill a polygon (N, 3); `normal` None leaves the colour as it is, for what shines by itself."""
        clipped = clip_near(np.asarray(points, np.float64))
        if len(clipped) >= 3:
            self.fill(self.pixels(clipped), self.light.lit(color, normal) if normal else color)

    def fill(self, pixels: Points, color: Rgb) -> None:
        """Fill a polygon (N, 2) of canvas coordinates."""
        fixed = [np.round(pixels * (1 << SHIFT)).astype(np.int32)]
        cv2.fillPoly(self.color, fixed, color, cv2.LINE_8, SHIFT)
        cv2.fillPoly(self.segment, fixed, len(self.segments) - 1, cv2.LINE_8, SHIFT)

    def mark(self, points: ArrayLike) -> None:
        """Give a polygon (N, 3) to the segment without painting it: what one sees through, such as a fence."""
        clipped = clip_near(np.asarray(points, np.float64))
        if len(clipped) >= 3:
            fixed = [np.round(self.pixels(clipped) * (1 << SHIFT)).astype(np.int32)]
            cv2.fillPoly(self.segment, fixed, len(self.segments) - 1, cv2.LINE_8, SHIFT)

    def stroke(
        self,
        points: ArrayLike,
        width: float,
        color: Rgb,
        normal: Normal | None = TOWARDS_CAMERA,
        *,
        closed: bool = False,
        paint_only: bool = False,
    ) -> None:
        """Draw a line (N, 3) of `width` metres with round ends; never thinner than a canvas pixel."""
        line = np.asarray(points, np.float64)
        if line[:, 2].min() < NEAR:
            return
        thickness = max(1, round(width * self.per_metre(float(line[:, 2].mean()))))
        fixed = [np.round(self.pixels(line) * (1 << SHIFT)).astype(np.int32)]
        shown = self.light.lit(color, normal) if normal else color
        cv2.polylines(self.color, fixed, closed, shown, thickness, cv2.LINE_8, SHIFT)
        if not paint_only:
            cv2.polylines(self.segment, fixed, closed, len(self.segments) - 1, thickness, cv2.LINE_8, SHIFT)

    def disc(self, center: Sequence[float], radius: float, color: Rgb, normal: Normal | None = TOWARDS_CAMERA) -> None:
        """Fill a circle of `radius` metres that faces the camera."""
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ring = np.stack((np.cos(angles), np.sin(angles), np.zeros(20)), 1) * radius + np.asarray(center)
        self.face(ring, color, normal)

    def meets(self, points: Points) -> bool:
        """Whether the box around a polygon (N, 3) touches the canvas."""
        clipped = clip_near(points)
        if len(clipped) < 3:
            return False
        pixels = self.pixels(clipped)
        rows, columns = self.segment.shape
        return bool(
            pixels[:, 0].max() > 0 and pixels[:, 1].max() > 0 and pixels[:, 0].min() < columns and pixels[:, 1].min() < rows
        )

    def textured(self, corners: Points, texture: NDArray[np.uint8]) -> None:
        """Paint `texture` (h, w, 3) on a quadrilateral; corners (4, 3) from the top left clockwise."""
        left, right = corners[[0, 3]], corners[[1, 2]]
        if max(left[0, 2], right[0, 2]) < NEAR + 0.1:
            return
        start, stop = 0.0, 1.0  # the part of the texture's width that lies before the camera
        reach = right[0, 2] - left[0, 2]
        if left[0, 2] < NEAR:
            start = (NEAR - left[0, 2]) / reach
        if right[0, 2] < NEAR:
            stop = (NEAR - left[0, 2]) / reach
        width = texture.shape[1]
        first, last = int(start * width), max(int(np.ceil(stop * width)), int(start * width) + 1)
        part = texture[:, first:last]
        a, b = max(first / width, start), min(last / width, stop)
        cut = np.stack(
            (
                left[0] + (right[0] - left[0]) * a,
                left[0] + (right[0] - left[0]) * b,
                left[1] + (right[1] - left[1]) * b,
                left[1] + (right[1] - left[1]) * a,
            )
        )
        self._warp(self.pixels(cut), part)

    def _warp(self, pixels: Points, texture: NDArray[np.uint8]) -> None:
        limit = np.array(self.segment.shape[::-1])
        low = np.clip(np.floor(pixels.min(0)).astype(int), 0, limit)
        high = np.clip(np.ceil(pixels.max(0)).astype(int) + 1, 0, limit)
        if (high <= low).any():
            return
        h, w = texture.shape[:2]
        here = (pixels - low).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32), here)
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        warped = cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros(size[::-1], np.uint8)
        cv2.fillPoly(mask, [np.round(here * (1 << SHIFT)).astype(np.int32)], 255, cv2.LINE_8, SHIFT)
        window = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
        cv2.copyTo(warped, mask, self.color[window])
        self.segment[window][mask > 0] = len(self.segments) - 1

    def sprite(
        self,
        x: float,
        y: float,
        z: float,
        width: float,
        height: float,
        shades: NDArray[np.float32],
        cover: NDArray[np.bool_],
        color: Rgb,
    ) -> None:
        """Paste a flat thing that faces the camera: its bottom centre at (x, y, z), `width` by `height` metres."""
        if z < NEAR + 0.5:
            return
        corners = self.pixels(np.array([[x - width / 2, y + height, z], [x + width / 2, y, z]]))
        (left, top), (right, bottom) = np.round(corners).astype(int)
        w, h = right - left, bottom - top
        if w < 1 or h < 1:
            return
        rows, columns = self.segment.shape
        x0, x1, y0, y1 = max(left, 0), min(right, columns), max(top, 0), min(bottom, rows)
        if x1 <= x0 or y1 <= y0:
            return
        scale = np.array(
            [
                [shades.shape[1] / w, 0, (x0 - left) * shades.shape[1] / w],
                [0, shades.shape[0] / h, (y0 - top) * shades.shape[0] / h],
            ],
            np.float32,
        )
        size, flags = (int(x1 - x0), int(y1 - y0)), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shade = cv2.warpAffine(shades, scale, size, flags=flags)
        mask = cv2.warpAffine(cover.astype(np.float32), scale, size, flags=flags) > 0.5
        if w > shades.shape[1]:  # nearer than the texture is fine: add leaves of the canvas' own grain
            grain = np.random.default_rng([left & 0xFFFF, top & 0xFFFF]).standard_normal((size[1] // 3 + 1, size[0] // 3 + 1))
            shade = shade + 0.13 * cv2.resize(grain.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        window = slice(y0, y1), slice(x0, x1)
        shown = np.asarray(self.light.lit(color), np.float32)
        self.color[window][mask] = np.clip(shade[mask][:, None] * shown, 0, 255).astype(np.uint8)
        self.segment[window][mask] = len(self.segments) - 1
