"""Houses as boxes along the street: a textured front, the gable that shows, a roof; and the skyline behind everything."""

import numpy as np

from vistalib.data.synthetic.camera import Points
from vistalib.data.synthetic.draw import Canvas
from vistalib.data.synthetic.facades import Facade, facade_texture, random_facade
from vistalib.data.synthetic.light import Rgb
from vistalib.data.synthetic.street import Street

ROOFS: tuple[Rgb, ...] = ((142, 76, 58), (120, 64, 52), (84, 82, 84), (64, 66, 72), (108, 84, 70), (156, 96, 70))


def building(
    canvas: Canvas,
    street: Street,
    rng: np.random.Generator,
    *,
    t: float,
    z0: float,
    z1: float,
    floors: int,
    depth: float,
    pitched: bool,
) -> None:
    """A house whose front stands at `t` from `z0` to `z1` and which reaches `depth` away from the street."""
    sign = float(np.sign(t))
    near, far = np.array([street.x(t, z0), 0.1, z0]), np.array([street.x(t, z1), 0.1, z1])
    along = (far - near) / np.linalg.norm(far - near)
    outwards = np.array([along[2], 0.0, -along[0]]) * sign  # away from the street
    facade = random_facade(rng, street.town, kind=street.kind, length=float(np.linalg.norm(far - near)), floors=floors)
    rise = np.array([0.0, facade.height, 0.0])
    camera = canvas.camera
    shown = max(z0, abs(near[0]) * 2 * camera.focal / camera.width * 0.8, 2.5)  # where it enters the image
    ppm = float(np.clip(canvas.per_metre(shown) * 0.9, 3, 44))
    roof = ROOFS[int(rng.integers(len(ROOFS)))]
    instance = canvas.begin("construction--structure--building", z=z1)
    if pitched:
        _roof(canvas, near, far, outwards * depth, rise, roof)
    gable = np.array([near + outwards * depth, near, near, near + outwards * depth])
    gable[:2] += rise
    if sign < 0:
        ends, front = gable, np.array([near + rise, far + rise, far, near])
    else:
        ends, front = gable[[1, 0, 3, 2]], np.array([far + rise, near + rise, near, far])
    if z0 > 1:
        _face(canvas, rng, ends, instance, facade, ppm, depth, tuple(-along), blank=bool(rng.random() < 0.55), z=z0)
        if pitched:
            _gable_top(canvas, near, outwards * depth, rise, facade, tuple(-along))
    _face(canvas, rng, front, instance, facade, ppm, facade.length, tuple(-outwards), blank=False, z=max(z0, 2.0))
    if pitched:
        canvas.begin("construction--structure--building", z=z0, instance=instance)
        ledge = -outwards * 0.35
        eave = np.array(
            [near + rise + ledge, far + rise + ledge, far + rise + ledge * 0 + [0, 0.22, 0], near + rise + [0, 0.22, 0]]
        )
        canvas.face(eave, (roof[0] * 0.6, roof[1] * 0.6, roof[2] * 0.6))
        if rng.random() < 0.6 and z0 > 4:
            _chimney(
                canvas, near + (far - near) * rng.uniform(0.2, 0.8) + rise + outwards * depth * 0.35 + [0, depth * 0.16, 0]
            )


def _face(
    canvas: Canvas,
    rng: np.random.Generator,
    corners: Points,
    instance: int,
    facade: Facade,
    ppm: float,
    length: float,
    normal: tuple[float, ...],
    *,
    blank: bool,
    z: float,
) -> None:
    """One textured wall; `corners` from the top left."""
    if corners[:, 2].max() < 1.2 or not canvas.meets(corners):
        return
    safe = corners[:, 2].min() > 1.0
    canvas.begin(
        "construction--structure--building",
        z=z,
        plane=canvas.camera.inverse_depth_plane(corners) if safe else None,
        instance=instance,
    )
    light = canvas.light
    part = Facade(**{**facade.__dict__, "length": max(length, 0.5)})
    factor = light.factor((normal[0], normal[1], normal[2]))
    sky = tuple(0.5 * (a + b) for a, b in zip(light.zenith, light.skyline, strict=True))
    canvas.textured(
        corners,
        facade_texture(
            rng,
            part,
            ppm=ppm * (0.6 if blank else 1.0),
            factor=factor,
            sky=(sky[0], sky[1], sky[2]),
            dusk=light.dusk > 0,
            blank=blank,
        ),
    )


def _roof(canvas: Canvas, near: Points, far: Points, back: Points, rise: Points, color: Rgb) -> None:
    """The slope towards the street; the ridge runs along it."""
    up = np.array([0.0, float(np.linalg.norm(back)) * 0.36, 0.0])
    ridge = back / 2 + up
    normal = np.array([-back[0], 0.0, -back[2]]) / np.linalg.norm(back) * 0.6 + np.array([0, 0.8, 0])
    quad = np.array([near + rise, far + rise, far + rise + ridge, near + rise + ridge])
    lit = (float(normal[0]), float(normal[1]), float(normal[2]))
    canvas.face(quad, color, lit)
    if quad[:, 2].min() > 1.5:
        for share in np.linspace(0.12, 0.9, 8):
            row = np.array([near + rise + ridge * share, far + rise + ridge * share])
            canvas.stroke(row, 0.05, (color[0] * 0.86, color[1] * 0.86, color[2] * 0.86), lit)


def _gable_top(canvas: Canvas, near: Points, back: Points, rise: Points, facade: Facade, normal: tuple[float, ...]) -> None:
    peak = near + rise + back / 2 + np.array([0.0, float(np.linalg.norm(back)) * 0.36, 0.0])
    canvas.face(np.array([near + rise, near + rise + back, peak]), facade.color, (normal[0], normal[1], normal[2]))


def _chimney(canvas: Canvas, at: Points) -> None:
    x, y, z = (float(v) for v in at)
    canvas.face([(x - 0.4, y, z), (x + 0.4, y, z), (x + 0.4, y + 1.9, z), (x - 0.4, y + 1.9, z)], (124, 78, 66))
    canvas.face([(x - 0.48, y + 1.8, z), (x + 0.48, y + 1.8, z), (x + 0.48, y + 2.0, z), (x - 0.48, y + 2.0, z)], (92, 84, 80))


def skyline(canvas: Canvas, street: Street, rng: np.random.Generator, *, hills: bool) -> None:
    """What closes the view: hills, distant houses and a line of trees, each a silhouette with some relief."""
    if hills:
        canvas.begin("nature--mountain", z=520)
        xs = np.linspace(-900, 900, 70)
        ridge = (
            34
            + 26 * np.sin(xs / rng.uniform(120, 240) + rng.uniform(0, 6))
            + 12 * np.sin(xs / 47 + rng.uniform(0, 6))
            + rng.normal(0, 1.5, 70)
        )
        canvas.face(
            [*((x, max(h, 3.0), 520.0) for x, h in zip(xs, ridge, strict=True)), (900, 0, 520), (-900, 0, 520)], (92, 108, 84)
        )
    middle = street.x(0, 260)
    if street.kind in ("city", "boulevard", "industrial"):
        for _ in range(26):
            z = rng.uniform(190, 320)
            x, wide, tall = middle + rng.normal(0, 130), rng.uniform(12, 30), rng.uniform(8, 30)
            grey = rng.uniform(120, 190)
            canvas.begin("construction--structure--building", z=z)
            color = (grey, grey * rng.uniform(0.92, 1.0), grey * rng.uniform(0.84, 1.0))
            canvas.face([(x, 0, z), (x + wide, 0, z), (x + wide, tall, z), (x, tall, z)], color)
            for up in np.arange(2, tall - 1, 3.2):
                canvas.face(
                    [(x + 1, up, z), (x + wide - 1, up, z), (x + wide - 1, up + 1.4, z), (x + 1, up + 1.4, z)],
                    (color[0] * 0.72, color[1] * 0.75, color[2] * 0.8),
                )
    canvas.begin("nature--vegetation", z=170)
    xs = np.linspace(middle - 420, middle + 420, 260)
    tops = 5.5 + 2.6 * np.sin(xs / 17 + rng.uniform(0, 6)) + 1.8 * np.sin(xs / 5.3) + rng.normal(0, 0.7, 260)
    for depth, color, scale in ((175.0, (74, 92, 58), 1.0), (165.0, (88, 106, 64), 0.66)):
        canvas.face(
            [*((x, h * scale, depth) for x, h in zip(xs, tops, strict=True)), (xs[-1], 0, depth), (xs[0], 0, depth)], color
        )
