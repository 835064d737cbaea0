"""Trees, hedges, bushes: trunks of strokes, crowns of leaf textures."""

import numpy as np

from vistalib.data.synthetic.camera import Frame
from vistalib.data.synthetic.draw import Canvas
from vistalib.data.synthetic.light import Rgb
from vistalib.data.synthetic.materials import crown

VARIANTS = 5
LEAVES: dict[str, tuple[Rgb, ...]] = {
    "summer": ((84, 112, 48), (72, 104, 44), (98, 120, 56), (62, 92, 46), (108, 126, 62)),
    "spring": ((118, 146, 66), (132, 154, 78), (104, 136, 60)),
    "autumn": ((176, 128, 44), (160, 96, 38), (186, 150, 60), (120, 112, 50), (142, 74, 36)),
}
BARK: tuple[Rgb, ...] = ((88, 74, 60), (106, 94, 80), (70, 60, 52))


def leaf_color(rng: np.random.Generator, season: str) -> Rgb:
    """The green, or the autumn colour, of one plant."""
    colors = LEAVES[season]
    red, green, blue = colors[int(rng.integers(len(colors)))]
    tint = rng.uniform(0.85, 1.15)
    return red * tint * rng.uniform(0.92, 1.08), green * tint, blue * tint


def _mass(
    canvas: Canvas, rng: np.random.Generator, shape: str, at: tuple[float, float, float], size: tuple[float, float], color: Rgb
) -> None:
    shades, cover = crown(shape, int(rng.integers(VARIANTS)))
    if canvas.light.direction[0] > 0:  # the textures are lit from the left
        shades, cover = np.ascontiguousarray(shades[:, ::-1]), np.ascontiguousarray(cover[:, ::-1])
    canvas.sprite(*at, *size, shades, cover, color)


def tree(canvas: Canvas, frame: Frame, rng: np.random.Generator, *, height: float, shape: str, season: str) -> None:
    """A tree `height` metres tall: "round", "tall", "wide", "spruce", "bare" or "palm"."""
    canvas.begin("nature--vegetation", z=frame.z)
    bark = BARK[int(rng.integers(len(BARK)))]
    if shape == "bare":
        _branch(canvas, frame, rng, (0.0, 0.0), np.pi / 2, height * 0.36, height * 0.035, bark, 0)
        return
    if shape == "palm":
        _palm(canvas, frame, rng, height, bark)
        return
    trunk = height * (0.12 if shape == "spruce" else rng.uniform(0.26, 0.36))
    thick = height * rng.uniform(0.016, 0.026)
    lean = rng.uniform(-0.03, 0.03) * height
    outline = [
        (-thick * 1.3, 0, 0),
        (thick * 1.3, 0, 0),
        (lean + thick, trunk, 0),
        (lean + thick * 0.6, height * 0.6, 0),
        (lean - thick * 0.6, height * 0.6, 0),
        (lean - thick, trunk, 0),
    ]
    upright = Frame(frame.x, frame.y, frame.z)
    canvas.face(upright.world(outline), bark, (-0.5, 0.1, -0.85))
    canvas.face(
        upright.world([outline[1], outline[2], (lean + thick * 0.2, trunk, 0), (thick * 0.4, 0, 0)]),
        (bark[0] * 0.78, bark[1] * 0.78, bark[2] * 0.78),
    )
    for sign in (-1, 1):
        reach = height * rng.uniform(0.08, 0.14)
        canvas.stroke(upright.world([(lean, trunk * 0.95, 0), (lean + sign * reach, trunk + reach * 1.3, 0)]), thick, bark)
    color = leaf_color(rng, season if shape != "spruce" else "summer")
    if shape == "spruce":
        color = (color[0] * 0.66, color[1] * 0.78, color[2] * 0.86)
    tall = (height - trunk) * 1.16
    wide = {"round": 1.0, "wide": 1.5, "tall": 0.75, "spruce": 0.62}[shape] * tall * rng.uniform(0.9, 1.12)
    _mass(canvas, rng, shape, (frame.x + lean, frame.y + trunk - tall * 0.1, frame.z), (wide, tall), color)


def _branch(
    canvas: Canvas,
    frame: Frame,
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    bark: Rgb,
    level: int,
) -> None:
    end = start[0] + length * float(np.cos(angle)), start[1] + length * float(np.sin(angle))
    canvas.stroke(frame.world([(start[0], start[1], 0), (end[0], end[1], 0)]), max(width, 0.02), bark)
    if level < (6 if canvas.per_metre(frame.z) > 40 else 5):
        for turn in rng.uniform(0.2, 0.62) * np.array([-1, 1]) + rng.uniform(-0.16, 0.16, 2):
            _branch(
                canvas, frame, rng, end, angle + float(turn), length * rng.uniform(0.62, 0.82), width * 0.62, bark, level + 1
            )


def _palm(canvas: Canvas, frame: Frame, rng: np.random.Generator, height: float, bark: Rgb) -> None:
    lean = rng.uniform(-0.06, 0.06) * height
    upright = Frame(frame.x, frame.y, frame.z)
    canvas.stroke(upright.world([(0, 0, 0), (lean * 0.4, height * 0.5, 0), (lean, height, 0)]), 0.3, bark)
    green = leaf_color(rng, "summer")
    for angle in np.linspace(-0.5, np.pi + 0.5, 15) + rng.uniform(-0.12, 0.12, 15):
        steps = np.linspace(0, 1, 7)
        along, drop = 2.4 * steps * np.cos(angle), 2.0 * steps * np.sin(angle) - 2.0 * steps**2
        spine = upright.world(np.stack((lean + along, height + drop, np.zeros(7)), 1))
        shade = rng.uniform(0.7, 1.15)
        color = (green[0] * shade, green[1] * shade, green[2] * shade)
        canvas.stroke(spine, 0.2, color)
        for point in spine[1:]:
            for side in (-0.28, 0.28):
                canvas.stroke([point, point + np.array([side, -0.42, 0])], 0.06, color)


def hedge(canvas: Canvas, start: Frame, stop: Frame, rng: np.random.Generator, *, height: float, season: str) -> None:
    """A clipped hedge between two points: its face as a textured quadrilateral with a ragged top."""
    color = np.array(leaf_color(rng, season))
    ends = np.array([[start.x, 0, start.z], [stop.x, 0, stop.z]])
    top = ends + np.array([0, height + start.y, 0])
    corners = (
        np.array([top[1], top[0], ends[0], ends[1]])
        if ends[0, 2] < ends[1, 2]
        else np.array([top[0], top[1], ends[1], ends[0]])
    )
    corners[2:, 1] = start.y
    canvas.begin("nature--vegetation", plane=canvas.camera.inverse_depth_plane(np.maximum(corners, [-1e9, -1e9, 1.0])))
    shades, _ = crown("bush", int(rng.integers(VARIANTS)))
    texture = np.clip(shades[80:220, 40:250, None] * color * 0.72 * np.array(canvas.light.factor()), 0, 255).astype(np.uint8)
    canvas.textured(corners, np.ascontiguousarray(texture))
    for share in np.arange(0.0, 1.0, 0.34):
        at = ends[0] + (ends[1] - ends[0]) * share
        if at[2] > 2:
            _mass(
                canvas,
                rng,
                "bush",
                (float(at[0]), start.y + height * 0.45, float(at[2])),
                (height * 1.2, height * 0.75),
                tuple(color * 0.9),
            )


def bush(canvas: Canvas, frame: Frame, rng: np.random.Generator, *, size: float, season: str) -> None:
    """A round shrub."""
    canvas.begin("nature--vegetation", z=frame.z)
    _mass(canvas, rng, "bush", (frame.x, frame.y - 0.12 * size, frame.z), (size * 1.7, size * 1.25), leaf_color(rng, season))
