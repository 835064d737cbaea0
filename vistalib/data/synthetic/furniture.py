"""What stands along a street: poles, lamps, lights and signs, benches and bins, walls and fences."""

import numpy as np

from vistalib.data.synthetic.camera import Frame
from vistalib.data.synthetic.draw import Canvas
from vistalib.data.synthetic.light import Rgb
from vistalib.data.synthetic.solids import box

STEEL: Rgb = (122, 126, 130)
RED: Rgb = (196, 30, 36)
WHITE: Rgb = (238, 238, 234)
BLUE: Rgb = (28, 84, 170)
YELLOW: Rgb = (244, 196, 40)


def pole(
    canvas: Canvas, frame: Frame, height: float, width: float, color: Rgb = STEEL, label: str = "object--support--pole"
) -> None:
    """A round post: a light and a dark half."""
    canvas.begin(label, z=frame.z)
    canvas.stroke(frame.world([(0, 0, 0), (0, height, 0)]), width, color, (-0.4, 0.1, -0.9))
    if canvas.per_metre(frame.z) * width > 3:
        dark = (color[0] * 0.7, color[1] * 0.7, color[2] * 0.7)
        upright = Frame(frame.x, frame.y, frame.z)
        canvas.stroke(upright.world([(width * 0.25, 0, 0), (width * 0.25, height, 0)]), width * 0.45, dark)


def street_lamp(canvas: Canvas, frame: Frame, rng: np.random.Generator, side: float) -> None:
    """A lamp on a mast; `side` is -1 or 1, where its arm reaches."""
    height, arm = rng.uniform(6.5, 9.5), rng.uniform(1.0, 2.2)
    color: Rgb = STEEL if rng.random() < 0.6 else (56, 66, 62)
    lit = canvas.light.dusk > 0
    old = rng.random() < 0.25
    pole(canvas, frame, 4.2 if old else height, 0.13, color)
    upright = Frame(frame.x, frame.y, frame.z)
    if old:
        canvas.begin("object--street-light", z=frame.z)
        shine: Rgb = (255, 226, 160) if lit else (216, 216, 206)
        lantern = [(-0.14, 4.2, 0), (0.14, 4.2, 0), (0.24, 4.75, 0), (-0.24, 4.75, 0)]
        canvas.face(upright.world(lantern), shine, None if lit else (0, 0.3, -0.95))
        canvas.face(upright.world([(-0.28, 4.75, 0), (0.28, 4.75, 0), (0, 5.0, 0)]), color)
        return
    canvas.stroke(
        upright.world([(0, height - 0.02, 0), (side * arm * 0.5, height + 0.25, 0), (side * arm, height + 0.3, 0)]), 0.09, color
    )
    canvas.begin("object--street-light", z=frame.z)
    head = [
        (side * (arm - 0.1), height + 0.22, 0),
        (side * (arm + 0.65), height + 0.26, 0),
        (side * (arm + 0.6), height + 0.4, 0),
        (side * (arm - 0.1), height + 0.4, 0),
    ]
    canvas.face(upright.world(head), (150, 152, 154))
    canvas.face(
        upright.world([head[0], head[1], (side * (arm + 0.6), height + 0.2, 0), (side * arm, height + 0.18, 0)]),
        (255, 234, 180) if lit else (226, 226, 214),
        None if lit else (0, 0.3, -0.95),
    )


def utility_pole(canvas: Canvas, frame: Frame, rng: np.random.Generator, spans: tuple[float, float]) -> None:
    """A wooden pole with cross arms and wires to the next, `spans` (dx, dz) away; wires stay part of what is behind."""
    height = 8.5
    pole(canvas, frame, height, 0.26, (104, 84, 64), "object--support--utility-pole")
    for up in (height - 0.4, height - 1.1):
        canvas.stroke(Frame(frame.x, frame.y, frame.z).world([(-1.0, up, 0), (1.0, up, 0)]), 0.12, (96, 78, 60))
    for side in (-0.95, -0.4, 0.4, 0.95):
        steps = np.linspace(0, 1, 9)
        sag = height - 0.35 - 1.2 * 4 * steps * (1 - steps) * 0.6
        line = np.stack((frame.x + side + spans[0] * steps, frame.y + sag, frame.z + spans[1] * steps), 1)
        canvas.stroke(line, 0.025, (40, 40, 42), paint_only=True)
    if rng.random() < 0.4:
        canvas.begin("object--support--utility-pole", z=frame.z)
        canvas.stroke(
            Frame(frame.x, frame.y, frame.z).world([(0.3, height - 2.3, 0), (0.3, height - 1.6, 0)]), 0.45, (132, 136, 138)
        )


def traffic_light(canvas: Canvas, frame: Frame, rng: np.random.Generator, *, side: float, overhead: bool, phase: int) -> None:
    """A signal on a post, with a second one on an arm over the road where `overhead`; `phase` 0 red, 1 yellow, 2 green."""
    pole(canvas, frame, 6.0 if overhead else 3.3, 0.16 if overhead else 0.12, (92, 96, 98))
    upright = Frame(frame.x, frame.y, frame.z)
    heads = [(-side * 0.05 + side * 0.32, 2.35)]
    if overhead:
        reach = rng.uniform(3.2, 4.6)
        canvas.stroke(upright.world([(0, 5.9, 0), (side * reach, 6.0, 0)]), 0.13, (92, 96, 98))
        heads.append((side * reach, 5.35))
    housing: Rgb = (30, 32, 32) if rng.random() < 0.7 else (206, 166, 34)
    for x, y in heads:
        canvas.begin("object--traffic-light", z=frame.z)
        canvas.face(
            upright.world([(x - 0.19, y, -0.1), (x + 0.19, y, -0.1), (x + 0.19, y + 1.06, -0.1), (x - 0.19, y + 1.06, -0.1)]),
            housing,
        )
        for n, (on, off) in enumerate(
            (((255, 52, 36), (72, 18, 16)), ((255, 190, 50), (74, 56, 18)), ((60, 240, 140), (14, 60, 36)))
        ):
            center = upright.world([(x, y + 0.88 - 0.35 * n, -0.12)])[0]
            spot: Rgb = on if n == phase else off
            canvas.disc(
                (float(center[0]), float(center[1]), float(center[2])), 0.135, spot, None if n == phase else (0, 0.3, -0.95)
            )
            canvas.stroke(
                upright.world([(x - 0.14, y + 0.99 - 0.35 * n, -0.14), (x + 0.14, y + 0.99 - 0.35 * n, -0.14)]),
                0.03,
                (16, 16, 16),
            )


SIGNS = ("limit", "warning", "blue", "stop", "priority", "yield", "no entry", "parking", "direction")


def traffic_sign(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """One or two signs on a post; one post in six shows the back."""
    height = rng.uniform(2.1, 2.7)
    count = 2 if rng.random() < 0.3 else 1
    pole(canvas, frame, height + 0.75 * count, 0.07)
    turned = rng.random() < 0.16
    for n in range(count):
        label = "object--traffic-sign--back" if turned else "object--traffic-sign--front"
        canvas.begin(label, z=frame.z)
        sign(canvas, Frame(frame.x, frame.y, frame.z), height + 0.36 + 0.74 * n, str(rng.choice(SIGNS)), rng, turned)


def sign(canvas: Canvas, frame: Frame, up: float, kind: str, rng: np.random.Generator, turned: bool) -> None:
    """The plate of a sign, its centre `up` metres high."""

    def shape(corners: int, radius: float, turn: float, color: Rgb) -> None:
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + turn
        canvas.face(
            frame.world([(radius * np.cos(a), up + radius * np.sin(a), -0.06) for a in angles]),
            (140, 143, 146) if turned else color,
        )

    def plate(x0: float, x1: float, y0: float, y1: float, color: Rgb) -> None:
        if not turned:
            canvas.face(
                frame.world([(x0, up + y0, -0.06), (x1, up + y0, -0.06), (x1, up + y1, -0.06), (x0, up + y1, -0.06)]), color
            )

    if kind == "limit":
        shape(20, 0.36, 0, RED)
        shape(20, 0.27, 0, WHITE)
        plate(-0.15, -0.04, -0.12, 0.12, (30, 30, 32))
        plate(0.04, 0.15, -0.12, 0.12, (30, 30, 32))
    elif kind in ("warning", "yield"):
        turn = np.pi / 2 if kind == "warning" else -np.pi / 2
        shape(3, 0.5, turn, RED)
        shape(3, 0.33, turn, WHITE)
        if kind == "warning":
            plate(-0.04, 0.04, -0.1, 0.12, (30, 30, 32))
    elif kind == "stop":
        shape(8, 0.4, np.pi / 8, WHITE)
        shape(8, 0.37, np.pi / 8, RED)
        plate(-0.24, 0.24, -0.07, 0.07, WHITE)
    elif kind == "priority":
        shape(4, 0.44, 0, WHITE)
        shape(4, 0.33, 0, YELLOW)
    elif kind == "no entry":
        shape(20, 0.36, 0, RED)
        plate(-0.25, 0.25, -0.06, 0.06, WHITE)
    elif kind == "direction":
        color = BLUE if rng.random() < 0.5 else (24, 110, 70)
        canvas.face(
            frame.world([(-0.8, up - 0.32, -0.06), (0.8, up - 0.32, -0.06), (0.8, up + 0.32, -0.06), (-0.8, up + 0.32, -0.06)]),
            color if not turned else (140, 143, 146),
        )
        for row in (0.1, -0.16):
            plate(-0.66, float(rng.uniform(0.1, 0.66)), row - 0.05, row + 0.06, WHITE)
    else:
        shape(20 if kind == "blue" else 4, 0.36 if kind == "blue" else 0.46, 0 if kind == "blue" else np.pi / 4, BLUE)
        plate(-0.07, 0.03, -0.2, 0.2, WHITE)
        plate(0.03, 0.16, 0.02, 0.2, WHITE)


def small_thing(canvas: Canvas, frame: Frame, rng: np.random.Generator, kind: str) -> None:
    """A bench, a bin, a hydrant, a mailbox, a junction box, a bike rack, a bollard or a banner."""
    label = {
        "trash": "object--trash-can",
        "hydrant": "object--fire-hydrant",
        "mailbox": "object--mailbox",
        "cabinet": "object--junction-box",
        "bench": "object--bench",
        "rack": "object--bike-rack",
        "bollard": "object--support--pole",
        "banner": "object--banner",
    }[kind]
    canvas.begin(label, z=frame.z)
    if kind == "trash":
        colors: tuple[Rgb, ...] = ((60, 74, 60), (70, 72, 76), (200, 120, 40), (40, 60, 100))
        box(canvas, frame, 0.45, 0.45, 0.05, 0.95, colors[int(rng.integers(4))])
        box(canvas, frame, 0.5, 0.5, 0.95, 1.05, (44, 46, 48))
    elif kind == "cabinet":
        box(canvas, frame, 1.1, 0.4, 0.0, 1.25, (150, 154, 150))
    elif kind == "mailbox":
        box(canvas, frame, 0.4, 0.5, 0.5, 1.3, (236, 190, 40) if rng.random() < 0.5 else (180, 36, 36))
        canvas.stroke(frame.world([(0, 0, 0), (0, 0.5, 0)]), 0.12, (60, 60, 62))
    elif kind == "hydrant":
        canvas.stroke(frame.world([(0, 0.05, 0), (0, 0.6, 0)]), 0.22, RED)
        canvas.stroke(frame.world([(-0.17, 0.45, 0), (0.17, 0.45, 0)]), 0.13, RED)
        canvas.stroke(frame.world([(0, 0.66, 0), (0, 0.72, 0)]), 0.17, (226, 220, 210))
    elif kind == "bollard":
        canvas.stroke(frame.world([(0, 0.05, 0), (0, 0.9, 0)]), 0.13, (58, 60, 62))
        canvas.stroke(frame.world([(0, 0.76, 0), (0, 0.8, 0)]), 0.13, (226, 226, 222))
    elif kind == "rack":
        for along in (-0.9, -0.3, 0.3, 0.9):
            hoop = frame.world([(-0.3, 0, along), (-0.3, 0.75, along), (0.3, 0.75, along), (0.3, 0, along)])
            canvas.stroke(hoop, 0.05, (150, 154, 158))
    elif kind == "banner":
        colors = ((190, 40, 44), (40, 90, 160), (230, 180, 50), (60, 130, 80))
        canvas.face(
            frame.world([(-0.35, 2.6, 0), (0.35, 2.6, 0), (0.35, 4.3, 0), (-0.35, 4.3, 0)]), colors[int(rng.integers(4))]
        )
        canvas.face(frame.world([(-0.2, 3.2, -0.02), (0.2, 3.2, -0.02), (0.2, 3.7, -0.02), (-0.2, 3.7, -0.02)]), WHITE)
        pole(canvas, frame, 4.5, 0.09)
    else:
        wood: Rgb = (134, 96, 60)
        for along in (-0.7, 0.7):
            canvas.stroke(
                frame.world([(-0.2, 0, along), (-0.2, 0.45, along), (0.2, 0.45, along), (0.2, 0, along)]), 0.06, (50, 52, 54)
            )
        for back, up in ((-0.15, 0.46), (0.05, 0.46), (0.22, 0.62), (0.26, 0.8)):
            canvas.stroke(frame.world([(back, up, -0.9), (back, up, 0.9)]), 0.11, wood, (0, 0.9, -0.4))


def wall(canvas: Canvas, start: Frame, stop: Frame, rng: np.random.Generator, *, height: float, style: str, color: Rgb) -> None:
    """A stretch of wall: "plaster", "brick" or "concrete"."""
    ends = np.array([[start.x, start.y, start.z], [stop.x, stop.y, stop.z]])
    top = ends + np.array([0, height, 0])
    quad = np.array([ends[0], ends[1], top[1], top[0]])
    canvas.begin(
        "construction--barrier--wall",
        plane=canvas.camera.inverse_depth_plane(quad) if quad[:, 2].min() > 1 else None,
        z=float(ends[:, 2].mean()),
        material="stone",
    )
    along = ends[1] - ends[0]
    out = np.array([-along[2], 0, along[0]]) / max(float(np.hypot(along[0], along[2])), 1e-6)
    out = out if out @ ends.mean(0) < 0 else -out
    normal = (float(out[0]), 0.0, float(out[2]))
    canvas.face(quad, color, normal)
    dark = (color[0] * 0.84, color[1] * 0.84, color[2] * 0.84)
    if style != "plaster":
        step = 0.24 if style == "brick" else 0.9
        for up in np.arange(step, height, step):
            canvas.stroke(np.clip(ends + np.array([0, up, 0]), None, None), 0.025, dark, normal)
    else:
        canvas.face([*(ends), *(ends + np.array([0, 0.35, 0]))[::-1]], dark, normal)
    cap = [top[0] - out * -0.06, top[1] - out * -0.06, top[1] + np.array([0, 0.12, 0]), top[0] + np.array([0, 0.12, 0])]
    canvas.face(
        cap,
        (min(color[0] * 1.1, 255), min(color[1] * 1.1, 255), min(color[2] * 1.1, 255)),
        (normal[0] * 0.6, 0.8, normal[2] * 0.6),
    )
    canvas.face([*(ends), *(ends + np.array([0, 0.1, 0]))[::-1]], (color[0] * 0.6, color[1] * 0.6, color[2] * 0.6), normal)
    del rng


def fence(canvas: Canvas, start: Frame, stop: Frame, *, height: float, style: str, color: Rgb) -> None:
    """A stretch of fence: "bars", "pickets", "mesh" or "boards"; one sees through most, yet all of it is fence."""
    ends = np.array([[start.x, start.y, start.z], [stop.x, stop.y, stop.z]])
    rise = np.array([0.0, height, 0.0])
    canvas.begin("construction--barrier--fence", z=float(ends[:, 2].mean()))
    quad = np.array([ends[0], ends[1], ends[1] + rise, ends[0] + rise])
    if style == "boards":
        canvas.face(quad, color)
    else:
        canvas.mark(quad)
    length = float(np.linalg.norm(ends[1] - ends[0]))
    fine = canvas.per_metre(float(ends[:, 2].mean()))
    step = {"bars": 0.14, "pickets": 0.2, "mesh": 0.12, "boards": 0.2}[style]
    thick = {"bars": 0.03, "pickets": 0.11, "mesh": 0.012, "boards": 0.02}[style]
    shade = (color[0] * 0.7, color[1] * 0.7, color[2] * 0.7) if style == "boards" else color
    count = max(1, int(length / max(step, 3.0 / fine)))
    for share in (np.arange(count) + 0.5) / count:
        foot = ends[0] + (ends[1] - ends[0]) * share
        canvas.stroke([foot, foot + rise * (1.0 if style != "pickets" else 0.97)], thick, shade)
    if style == "mesh":
        for up in np.arange(0.1, height, max(0.12, 3.0 / fine)):
            canvas.stroke(ends + np.array([0, up, 0]), 0.012, color)
    if style != "boards":
        for share in (0.12, 0.92):
            canvas.stroke(ends + rise * share, 0.05, color)
    canvas.stroke([ends[0], ends[0] + rise * 1.05], 0.09, color)
