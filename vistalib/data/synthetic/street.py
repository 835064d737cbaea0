"""The street: where its centre line runs, what lies across it, and the drawing of the ground.

Street coordinates: t metres to the right of the centre line, z metres ahead of the camera.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from vistalib.data.synthetic.camera import FAR, Frame, Points, clip_near
from vistalib.data.synthetic.draw import SUPER, Canvas
from vistalib.data.synthetic.light import UP, Rgb
from vistalib.data.synthetic.materials import SIZE, TILE_METRES, tile
from vistalib.data.synthetic.towns import Town

KERB = 0.13  # metres: how high the sidewalk lies above the road
GROUND = ("asphalt", "paving", "grass", "cobbles", "gravel", "paint", "stone")
CONCRETE: Rgb = (158, 156, 150)
WHITE: Rgb = (222, 222, 216)


@dataclass(frozen=True)
class Strip:
    """A band of ground from t0 to t1 of a Vistas class."""

    t0: float
    t1: float
    label: str
    color: Rgb
    material: str
    up: float = 0.0


@dataclass(frozen=True)
class Mark:
    """Paint on the road: a rectangle in street coordinates; `color` None only labels it."""

    t0: float
    t1: float
    z0: float
    z1: float
    label: str = "marking--general"
    color: Rgb | None = WHITE


@dataclass
class Street:
    """`offset`: where the centre line passes the camera; `half`: half the carriageway; `crossing`: z range of a side street."""

    town: Town
    kind: str
    offset: float
    slope: float
    bend: float
    half: float
    lane: float
    lanes: int
    surface: str
    asphalt: Rgb
    median: float
    crossing: tuple[float, float] | None = None
    strips: list[Strip] = field(default_factory=list)
    kerbs: list[float] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    manholes: list[tuple[float, float, bool]] = field(default_factory=list)
    rails: list[float] = field(default_factory=list)

    def x(self, t: float, z: float) -> float:
        """World x of a street coordinate."""
        return self.offset + t + self.slope * z + 0.5 * self.bend * z * abs(z)

    def heading(self, z: float) -> float:
        return float(np.arctan(self.slope + self.bend * z))

    def frame(self, t: float, z: float, up: float = 0.0, turn: float = 0.0) -> Frame:
        """A frame that faces along the street, turned by `turn`."""
        return Frame(self.x(t, z), up, z, self.heading(z) + turn)

    def blocked(self, z: float, margin: float = 1.0) -> bool:
        """Whether a side street takes this place."""
        return self.crossing is not None and self.crossing[0] - margin < z < self.crossing[1] + margin

    def line(self, t: float, up: float, z0: float, z1: float) -> Points:
        """A line along the street (N, 3)."""
        zs = np.geomspace(max(z0, 0.9), max(z1, 1.0), 2 + int(14 * np.log(max(z1, 1.0) / max(z0, 0.9)) / 3 + 4))
        return np.stack((self.offset + t + self.slope * zs + 0.5 * self.bend * zs * zs, np.full(len(zs), up), zs), 1)

    def band(self, t0: float, t1: float, z0: float, z1: float, up: float = 0.0) -> Points:
        """The outline (N, 3) of the ground between two lines along the street."""
        return np.concatenate((self.line(t0, up, z0, z1), self.line(t1, up, z0, z1)[::-1]))


def draw_ground(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    """Strips, kerbs, side street, paint, manholes, rails; then the grain of each material and the lanes' wear."""
    plane = _ground_plane(canvas)
    first = len(canvas.segments)
    canvas.begin("nature--terrain", plane=plane, instance=0, material="grass")
    wide = 1.5 * canvas.camera.width / canvas.camera.focal
    canvas.face([(-wide * 0.9, 0, 0.9), (wide * 0.9, 0, 0.9), (wide * FAR, 0, FAR), (-wide * FAR, 0, FAR)], (108, 114, 76), UP)
    for strip in street.strips:
        canvas.begin(strip.label, plane=plane, instance=0, material=strip.material)
        canvas.face(street.band(strip.t0, strip.t1, 0.9, FAR, strip.up), strip.color, UP)
    if street.surface == "asphalt":
        canvas.begin("construction--flat--road", plane=plane, instance=0, material="asphalt")
        _wear(canvas, street, rng)
    for t in street.kerbs:
        canvas.begin("construction--barrier--curb", plane=plane, instance=0, material="stone")
        outer = t + 0.16 * np.sign(t)
        canvas.face(street.band(t, outer, 0.9, FAR, KERB), CONCRETE, UP)
        side = np.concatenate((street.line(t, 0.0, 0.9, FAR), street.line(t, KERB, 0.9, FAR)[::-1]))
        canvas.face(side, (112, 110, 106), (-float(np.sign(t)), 0.0, 0.0))
    if street.crossing:
        _side_street(canvas, street, plane)
    for t in street.rails:
        canvas.begin("construction--flat--rail-track", plane=plane, instance=0)
        canvas.face(street.band(t - 0.05, t + 0.05, 0.9, FAR), (92, 88, 84), UP)
        canvas.face(street.band(t - 0.015, t + 0.02, 0.9, FAR), (186, 186, 184), UP)
    for mark in street.marks:
        canvas.begin(
            mark.label, plane=plane, instance=None if mark.label == "marking--crosswalk-zebra" else 0, material="paint"
        )
        outline = street.band(mark.t0, mark.t1, mark.z0, mark.z1)
        if mark.color is None:
            canvas.mark(outline)
        else:
            canvas.face(outline, mark.color, UP)
    for t, z, square in street.manholes:
        _manhole(canvas, street, plane, t, z, square)
    _grain(canvas, first, rng)


def _ground_plane(canvas: Canvas) -> tuple[float, float, float]:
    return canvas.camera.inverse_depth_plane(np.array([[-3.0, 0, 6], [3.0, 0, 6], [0, 0, 30]]))


def _wear(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    """Patches of newer asphalt and cracks, painted only."""
    red, green, blue = street.asphalt
    outer = street.median + street.lanes * street.lane
    inner = street.median
    for _ in range(int(rng.integers(1, 5))):
        z, wide = rng.uniform(5, 40), rng.uniform(0.8, 2.0)
        t = rng.choice([-1, 1]) * rng.uniform(inner + wide / 2, outer - wide / 2)
        factor = rng.uniform(0.86, 1.05)
        outline = street.band(t - wide / 2, t + wide / 2, z, z + rng.uniform(1.5, 9))
        canvas.face(outline, (red * factor, green * factor, blue * factor), UP)
    for _ in range(int(rng.integers(0, 5))):
        z, t = rng.uniform(5, 25), rng.choice([-1, 1]) * rng.uniform(inner + 0.3, outer)
        steps = np.cumsum(rng.normal((rng.uniform(-0.15, 0.15), 0.3), 0.16, (14, 2)), 0)
        points = [(street.x(t + a, z + b), 0.0, max(z + b, 2.0)) for a, b in steps]
        canvas.stroke(points, 0.012, (red * 0.74, green * 0.74, blue * 0.74), UP, paint_only=True)


def _side_street(canvas: Canvas, street: Street, plane: tuple[float, float, float]) -> None:
    """A street across, with rounded corners and a kerb along its far side."""
    assert street.crossing
    z0, z1 = street.crossing
    canvas.begin("construction--flat--road", plane=plane, instance=0, material="asphalt")
    radius, reach = min(3.0, (z1 - z0) / 3), 90.0
    arc = np.linspace(0, np.pi / 2, 7)
    right = [(street.half + radius * (1 - np.cos(a)), z0 - radius + radius * np.sin(a)) for a in arc]
    right += [(reach, z0), (reach, z1)]
    right += [(street.half + radius * (1 - np.cos(a)), z1 + radius - radius * np.sin(a)) for a in arc[::-1]]
    outline = right + [(-t, z) for t, z in right[::-1]]
    middle = (z0 + z1) / 2
    canvas.face([(street.x(t, middle) + street.heading(middle) * (z - middle), 0.0, z) for t, z in outline], street.asphalt, UP)
    for sign in (-1, 1):
        canvas.begin("construction--barrier--curb", plane=plane, instance=0, material="stone")
        a, b = street.half + radius, reach
        ends = [(street.x(sign * a, z1), z1), (street.x(sign * b, z1), z1)]
        canvas.face(
            [(ends[0][0], 0, z1), (ends[1][0], 0, z1), (ends[1][0], KERB, z1), (ends[0][0], KERB, z1)],
            (120, 118, 112),
            (0, 0, -1),
        )


def _manhole(canvas: Canvas, street: Street, plane: tuple[float, float, float], t: float, z: float, square: bool) -> None:
    canvas.begin("object--catch-basin" if square else "object--manhole", plane=plane)
    angles = np.linspace(0, 2 * np.pi, 5 if square else 21)[:-1] + (np.pi / 4 if square else 0)
    for radius, color in ((0.36, (84, 82, 80)), (0.31, (62, 60, 60))):
        canvas.face([(street.x(t + radius * np.cos(a), z), 0, z + radius * np.sin(a)) for a in angles], color, UP)
    for step in (-0.16, 0, 0.16):
        canvas.face(street.band(t - 0.2, t + 0.2, z + step - 0.03, z + step + 0.03), (44, 43, 42), UP)


def _grain(canvas: Canvas, first: int, rng: np.random.Generator) -> None:
    """Multiply the ground by its materials' tiles, in world coordinates, fading where they become too fine to see."""
    camera = canvas.camera
    across, up = camera.slopes()
    depth = np.where(up < -1e-3, camera.mount / np.maximum(-up, 1e-3), 1e6).astype(np.float32)  # (H, W)
    rows = np.flatnonzero((depth < FAR).any(1))
    if not len(rows):
        return
    top = int(rows[0])
    depth, x = depth[top:], (across * depth)[top:]
    z = depth + np.float32(rng.uniform(0, 100))
    materials = np.array([GROUND.index(s.material) if s.material in GROUND else -1 for s in canvas.segments], np.int8)
    here = materials[canvas.segment[top * SUPER :: SUPER, ::SUPER]]
    factor = np.ones_like(x)
    for code, name in enumerate(GROUND):
        mask = here == code
        if mask.any():
            at_x, at_z, away = x[mask], z[mask], depth[mask]
            source, reach, gain = {
                "paint": ("asphalt", 12, 2.0),
                "stone": ("asphalt", 12, 2.0),
                "grass": (name, 34, 1.0),
                "gravel": (name, 34, 1.0),
            }.get(name, (name, 22, 1.0))
            fade = np.clip(np.float32(reach * camera.focal / 560) / away, 0, 1) * np.float32(gain)
            stains = (_sample("stains", at_x, at_z) - 1) * np.float32(2.4 if name == "grass" else 1.0)
            factor[mask] = (1 + (_sample(source, at_x, at_z) - 1) * fade) * (1 + stains)
    big = cv2.resize(factor, (factor.shape[1] * SUPER, factor.shape[0] * SUPER), interpolation=cv2.INTER_LINEAR)
    below = canvas.color[top * SUPER :]
    ground = canvas.segment[top * SUPER :] >= first
    shown = np.minimum(below * big[..., None], 255).astype(np.uint8)
    np.copyto(below, shown, where=ground[..., None])


def _sample(name: str, x: np.ndarray, z: np.ndarray) -> np.ndarray:  # float32, any shape
    """A tile's values at world coordinates."""
    scale = np.float32(SIZE / TILE_METRES[name])
    columns = (x * scale).astype(np.int64) % SIZE
    return np.asarray(tile(name)[(z * scale).astype(np.int64) % SIZE, columns])


def draw_shadows(canvas: Canvas, contact: list[Points], cast: list[Points]) -> None:
    """Darken what is drawn so far: `contact` are footprints (N, 3) right under things, `cast` outlines of the sun's shadows."""
    camera = canvas.camera
    light = np.ones((camera.height, camera.width), np.float32)
    for outlines, strength, blur in ((cast, canvas.light.shadow, 0.0022), (contact, 0.62, 0.0045)):
        mask = np.zeros_like(light)
        for outline in outlines:
            ahead = clip_near(outline, 1.0)
            if len(ahead) < 3:
                continue
            pixels = np.clip(camera.project(ahead), -9000, 9000)
            cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        light *= 1 - strength * cv2.GaussianBlur(mask, (0, 0), max(0.6, blur * camera.height))
    big = cv2.resize(light, (camera.width * SUPER, camera.height * SUPER), interpolation=cv2.INTER_LINEAR)
    sky = canvas.segment == 0
    np.multiply(canvas.color, big[..., None], out=canvas.color, where=~sky[..., None], casting="unsafe")


def shadow_outline(canvas: Canvas, footprint: Points, height: float) -> Points:
    """The ground shadow (N, 3) of an upright prism over `footprint` (M, 3)."""
    sx, sy, sz = canvas.light.direction
    reach = min(height / max(sy, 0.12), 30.0)
    moved = footprint + np.array([-sx, 0.0, -sz]) * reach
    both = np.concatenate((footprint, moved))
    hull = cv2.convexHull(np.ascontiguousarray(both[:, [0, 2]], np.float32))[:, 0]
    return np.stack((hull[:, 0], np.full(len(hull), footprint[0, 1]), hull[:, 1]), 1).astype(np.float64)
