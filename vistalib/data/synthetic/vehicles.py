"""Cars of several bodies, vans, trucks, buses and trams. Metres; a profile runs from the front bumper over the roof."""

from collections.abc import Callable
from functools import partial

import numpy as np

from vistalib.data.synthetic.camera import Frame
from vistalib.data.synthetic.draw import Canvas
from vistalib.data.synthetic.light import Rgb
from vistalib.data.synthetic.solids import Detail, Edge, Panel, Side, constant, solid

GLASS: Rgb = (38, 46, 54)
GLINT: Rgb = (118, 132, 146)
RUBBER: Rgb = (24, 24, 26)
TRIM: Rgb = (44, 45, 48)
PLATE: Rgb = (226, 226, 220)
PAINTS: tuple[Rgb, ...] = (
    (206, 208, 210), (232, 233, 232), (38, 40, 44), (70, 74, 80), (128, 132, 137), (162, 165, 168), (30, 48, 92), (58, 84, 132),
    (150, 28, 32), (112, 20, 28), (44, 70, 58), (190, 172, 140), (196, 120, 36), (88, 62, 48), (36, 84, 120), (214, 190, 40),
)  # fmt: skip
PAINT_SHARES = np.array([16, 14, 14, 12, 10, 8, 5, 4, 5, 3, 2, 2, 1, 1, 2, 1]) / 100

# (along, up) as shares of length and height, from the front; then the side windows
BODIES: dict[str, tuple[list[tuple[float, float, str]], list[tuple[float, float]]]] = {
    "hatch": (
        [(0.49, 0.14, "bumper"), (0.5, 0.32, "front"), (0.475, 0.50, "hood"), (0.24, 0.63, "glass"), (0.05, 0.96, "roof"),
         (-0.12, 1.0, "roof"), (-0.38, 0.95, "back glass"), (-0.475, 0.62, "rear"), (-0.5, 0.34, "bumper"), (-0.485, 0.14, "")],
        [(0.2, 0.64), (0.035, 0.92), (-0.12, 0.955), (-0.34, 0.91), (-0.42, 0.66)],
    ),
    "sedan": (
        [(0.49, 0.14, "bumper"), (0.5, 0.32, "front"), (0.48, 0.49, "hood"), (0.2, 0.62, "glass"), (0.02, 0.96, "roof"),
         (-0.2, 0.98, "back glass"), (-0.36, 0.67, "hood"), (-0.475, 0.64, "rear"), (-0.5, 0.34, "bumper"), (-0.485, 0.14, "")],
        [(0.17, 0.64), (0.01, 0.92), (-0.18, 0.93), (-0.31, 0.66)],
    ),
    "wagon": (
        [(0.49, 0.14, "bumper"), (0.5, 0.33, "front"), (0.48, 0.5, "hood"), (0.22, 0.63, "glass"), (0.06, 0.95, "roof"),
         (-0.16, 1.0, "roof"), (-0.42, 0.96, "back glass"), (-0.485, 0.62, "rear"), (-0.5, 0.34, "bumper"), (-0.49, 0.14, "")],
        [(0.19, 0.64), (0.05, 0.91), (-0.16, 0.95), (-0.40, 0.90), (-0.44, 0.66)],
    ),
    "suv": (
        [(0.49, 0.16, "bumper"), (0.5, 0.36, "front"), (0.475, 0.56, "hood"), (0.25, 0.64, "glass"), (0.1, 0.95, "roof"),
         (-0.1, 1.0, "roof"), (-0.42, 0.97, "back glass"), (-0.48, 0.63, "rear"), (-0.5, 0.36, "bumper"), (-0.49, 0.16, "")],
        [(0.22, 0.65), (0.09, 0.91), (-0.1, 0.95), (-0.40, 0.92), (-0.44, 0.66)],
    ),
    "van": (
        [(0.49, 0.12, "bumper"), (0.5, 0.26, "front"), (0.475, 0.42, "hood"), (0.36, 0.5, "glass"), (0.22, 0.95, "roof"),
         (0.0, 1.0, "roof"), (-0.485, 1.0, "back glass"), (-0.49, 0.55, "rear"), (-0.5, 0.26, "bumper"), (-0.49, 0.12, "")],
        [(0.34, 0.52), (0.21, 0.88), (0.08, 0.9), (0.06, 0.53)],
    ),
}  # fmt: skip
SIZES = {
    "hatch": (3.95, 1.75, 1.5),
    "sedan": (4.7, 1.84, 1.45),
    "wagon": (4.6, 1.82, 1.5),
    "suv": (4.55, 1.9, 1.7),
    "van": (5.2, 1.98, 2.25),
}


def paint(rng: np.random.Generator) -> Rgb:
    """A car colour, in the shares one sees on the road."""
    return PAINTS[int(rng.choice(len(PAINTS), p=PAINT_SHARES))]


def darker(color: Rgb, factor: float) -> Rgb:
    """A shade of a colour; a factor above 1 lightens."""
    return color[0] * factor, color[1] * factor, color[2] * factor


def car(canvas: Canvas, frame: Frame, rng: np.random.Generator, body: str) -> None:
    """A car of one of `BODIES`."""
    length, width, height = SIZES[body]
    color = (220.0, 221.0, 219.0) if body == "van" and rng.random() < 0.5 else paint(rng)
    outline, windows = BODIES[body]
    fine = canvas.per_metre(frame.z) > 18
    lights = canvas.light.dusk > 0 or canvas.light.rain > 0
    brakes = bool(rng.random() < 0.3)
    looks: dict[str, tuple[Rgb, Detail | None]] = {
        "bumper": (darker(color, 0.82) if rng.random() < 0.7 else TRIM, None),
        "front": (color, partial(_front, lights=lights)),
        "rear": (color, partial(_rear, lit=lights or brakes, tall=body in ("suv", "van"))),
        "glass": (GLASS, _windscreen),
        "back glass": (GLASS, partial(_back_glass, color=color)),
        "": (color, None),
    }
    edges = []
    for along, up, part in outline:
        shade, detail = looks.get(part, (color, None))
        edges.append(Edge(along * length, up * height, shade, detail if fine else None))
    belt = windows[0][1] * height
    lean = 0.1 if body != "van" else 0.05

    def half_width(up: float) -> float:
        return width / 2 * (1 - lean * max(0.0, up - belt) / (height - belt) * 1.6 - 0.04 * max(0.0, 0.4 - up))

    def side(view: Side) -> None:
        view.polygon([(a * length, min(u, 0.3) * height) for a, u, _ in outline], darker(color, 0.78))
        view.band(-0.47 * length, 0.46 * length, belt - 0.07 * height, belt - 0.045 * height, darker(color, 1.14))
        view.polygon([(a * length, u * height) for a, u in windows], GLASS)
        if fine:
            top, low = windows[1], windows[0]
            view.polygon(
                [
                    (low[0] * length * 0.9, low[1] * height),
                    (top[0] * length, top[1] * height),
                    (top[0] * length - 0.35, top[1] * height),
                    (low[0] * length * 0.9 - 0.5, low[1] * height),
                ],
                GLINT,
            )
            doors = (0.21, -0.03, -0.25) if body != "van" else (0.33, 0.06, -0.2)
            for door in doors:
                view.band(door * length - 0.012, door * length + 0.012, 0.22 * height, belt, darker(color, 0.6))
            view.band(doors[1] * length - 0.035, doors[1] * length + 0.035, belt, windows[1][1] * height, darker(color, 0.8))
            view.band(doors[1] * length + 0.1, doors[1] * length + 0.3, belt - 0.17, belt - 0.13, darker(color, 0.7))
            view.band(0.17 * length, 0.17 * length + 0.2, belt, belt + 0.16, darker(color, 0.75))
        for axle in (0.315, -0.3):
            wheel(view, axle * length, 0.34 if body in ("suv", "van") else 0.31)

    _beneath(canvas, frame, length, width)
    solid(canvas, frame, edges, half_width, color, side)


def wheel(view: Side, along: float, radius: float, rim: Rgb = (150, 153, 157)) -> None:
    """A wheel in its arch on the visible side."""
    view.circle(along, radius + 0.03, radius * 1.16, (20, 20, 22))
    view.circle(along, radius, radius, RUBBER)
    view.circle(along, radius, radius * 0.64, rim)
    view.circle(along, radius, radius * 0.5, darker(rim, 0.72))
    view.circle(along, radius, radius * 0.16, rim)


def truck(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """A cab and a load, drawn farther part first: box body, tarpaulin or tipper."""
    color, load = paint(rng), PAINTS[int(rng.choice([0, 1, 4, 6, 8, 10, 12, 15]))]
    length, width = rng.uniform(6.8, 9.5), 2.45
    cab, top = 2.1, rng.uniform(3.1, 3.7)
    lights = canvas.light.dusk > 0 or canvas.light.rain > 0
    nose = [
        Edge(cab / 2, 0.45, TRIM), Edge(cab / 2 + 0.03, 0.95, color, partial(_front, lights=lights)),
        Edge(cab / 2, 1.55, GLASS, _windscreen), Edge(cab / 2 - 0.25, 2.55, color), Edge(cab / 2 - 0.5, 2.85, color),
        Edge(-cab / 2, 2.85, darker(color, 0.8)), Edge(-cab / 2, 0.45, color),
    ]  # fmt: skip
    body = length - cab - 0.25
    ribs = int(rng.integers(3, 8))

    def doors(panel: Panel) -> None:
        panel.patch(0.49, 0.51, 0.12, 0.97, darker(load, 0.6))
        panel.patch(0.02, 0.98, 0.0, 0.13, TRIM)
        for u in (0.05, 0.83):
            panel.patch(u, u + 0.12, 0.03, 0.1, (200, 34, 30), shines=lights)
        panel.patch(0.38, 0.62, 0.03, 0.1, PLATE)

    load_edges = [
        Edge(body / 2, 0.95, load),
        Edge(body / 2, top, load),
        Edge(-body / 2, top, load, doors),
        Edge(-body / 2, 0.6, load),
    ]

    def load_side(view: Side) -> None:
        for rib in np.linspace(-body / 2, body / 2, ribs + 1):
            view.band(float(rib) - 0.03, float(rib) + 0.03, 0.95, top, darker(load, 0.85))
        if ribs > 4:
            view.band(-body * 0.3, body * 0.3, 1.6, top - 0.6, darker(PAINTS[int(ribs) % len(PAINTS)], 1.0))
        view.band(-body / 2, body / 2, 0.6, 0.95, (52, 53, 56))
        for axle in (-body * 0.32, -body * 0.16):
            wheel(view, axle, 0.5, (120, 120, 120))

    def cab_side(view: Side) -> None:
        view.polygon([(cab / 2 - 0.1, 1.6), (cab / 2 - 0.3, 2.45), (-0.2, 2.45), (-0.2, 1.6)], GLASS)
        view.band(-cab / 2, cab / 2, 0.45, 0.8, TRIM)
        wheel(view, 0.1, 0.5, (120, 120, 120))

    front = frame.world([(0, 0, length / 2 - cab / 2)])[0]
    back = frame.world([(0, 0, -length / 2 + body / 2)])[0]
    _beneath(canvas, frame, length, width)
    parts: list[tuple[float, Callable[[], None]]] = [
        (front[2], lambda: solid(canvas, _moved(frame, front), nose, constant(width / 2 - 0.05), color, cab_side)),
        (back[2], lambda: solid(canvas, _moved(frame, back), load_edges, constant(width / 2), load, load_side)),
    ]
    for _, draw in sorted(parts, key=lambda part: -part[0]):
        draw()


def bus(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """A city bus with doors on its right."""
    color = ((206, 44, 40), (236, 200, 40), (240, 240, 238), (40, 96, 160), (60, 130, 70), (225, 225, 220))[
        int(rng.integers(6))
    ]
    _coach(canvas, frame, color, length=rng.uniform(9.5, 12.5), width=2.5, top=3.05, floor=0.32, band=(1.25, 2.55), wheels=True)


def tram(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """A tram of three sections on its rails."""
    color = ((210, 44, 44), (236, 206, 60), (244, 244, 240), (32, 120, 100), (210, 214, 220))[int(rng.integers(5))]
    _coach(canvas, frame, color, length=rng.uniform(18, 26), width=2.45, top=3.5, floor=0.25, band=(1.35, 2.75), wheels=False)


def _coach(
    canvas: Canvas,
    frame: Frame,
    color: Rgb,
    *,
    length: float,
    width: float,
    top: float,
    floor: float,
    band: tuple[float, float],
    wheels: bool,
) -> None:
    half, slant = length / 2, 0.12 if wheels else 0.55
    lights = canvas.light.dusk > 0 or canvas.light.rain > 0
    glass: Rgb = (196, 178, 124) if canvas.light.dusk > 0 else GLASS

    def head(panel: Panel) -> None:
        _windscreen(panel)
        panel.patch(0.0, 0.03, 0, 1, color)
        panel.patch(0.97, 1.0, 0, 1, color)

    def board(panel: Panel) -> None:
        panel.patch(0.2, 0.8, 0.15, 0.85, (22, 22, 24))
        for u in np.linspace(0.26, 0.66, 6):
            panel.patch(float(u), float(u) + 0.05, 0.35, 0.68, (252, 190, 60), shines=True)

    edges = [
        Edge(half, floor, darker(color, 0.7)), Edge(half, 0.6, color, partial(_front, lights=lights)),
        Edge(half - slant * 0.2, band[0] - 0.1, GLASS, head), Edge(half - slant, band[1] + 0.1, color, board),
        Edge(half - slant - 0.1, top, darker(color, 0.9)),
        Edge(-half + slant + 0.1, top, color), Edge(-half + slant, band[1] + 0.1, GLASS, head if not wheels else _windscreen),
        Edge(-half + slant * 0.2, band[0] + 0.1, color, partial(_rear, lit=lights, tall=True)),
        Edge(-half, 0.6, darker(color, 0.7)), Edge(-half, floor, color),
    ]  # fmt: skip

    def side(view: Side) -> None:
        view.band(-half, half, floor, 0.62, darker(color, 0.62))
        view.band(-half + slant + 0.2, half - slant - 0.2, band[0], band[1], glass)
        for pane in np.arange(-half + 1.5, half - 1, 1.5):
            view.band(float(pane) - 0.05, float(pane) + 0.05, band[0], band[1], TRIM)
            view.band(float(pane) + 0.1, float(pane) + 0.5, band[0] + 0.5, band[1], darker(glass, 1.5))
        view.band(-half, half, band[1] + 0.12, band[1] + 0.2, darker(color, 0.75))
        if view.sign > 0 or not wheels:
            for door in np.linspace(-half * 0.66, half * 0.8, 3 if wheels else 5):
                view.band(float(door) - 0.65, float(door) + 0.65, 0.4, band[1], TRIM)
                view.band(float(door) - 0.58, float(door) - 0.04, 0.55, band[1] - 0.05, darker(glass, 1.25))
                view.band(float(door) + 0.04, float(door) + 0.58, 0.55, band[1] - 0.05, darker(glass, 1.25))
        if wheels:
            for axle in (half * 0.55, -half * 0.42):
                wheel(view, axle, 0.48, (130, 132, 134))
        else:
            for joint in (-half / 3, half / 3):
                view.band(joint - 0.25, joint + 0.25, floor, top, (40, 40, 42))

    _beneath(canvas, frame, length, width)
    solid(canvas, frame, edges, constant(width / 2), color, side)


def _front(panel: Panel, lights: bool) -> None:
    panel.patch(0.24, 0.76, 0.18, 0.7, TRIM)
    panel.patch(0.28, 0.72, 0.4, 0.46, (150, 152, 155))
    for u in (0.03, 0.79):
        panel.patch(u, u + 0.18, 0.42, 0.86, (255, 250, 226) if lights else (204, 212, 216), shines=lights)
    panel.patch(0.36, 0.64, 0.02, 0.16, PLATE)


def _rear(panel: Panel, lit: bool, tall: bool) -> None:
    red: Rgb = (248, 40, 30) if lit else (168, 22, 24)
    for u in (0.02, 0.88 if tall else 0.8):
        panel.patch(u, u + (0.1 if tall else 0.18), 0.3 if tall else 0.48, 0.95, red, shines=lit)
    panel.patch(0.34, 0.66, 0.28, 0.56, PLATE)
    panel.patch(0.04, 0.96, 0.0, 0.06, TRIM)


def _windscreen(panel: Panel) -> None:
    panel.patch(0.05, 0.95, 0.62, 0.95, (84, 98, 110))
    panel.patch(0.05, 0.95, 0.05, 0.2, (22, 26, 30))


def _back_glass(panel: Panel, color: Rgb) -> None:
    panel.patch(0.0, 0.06, 0, 1, color)
    panel.patch(0.94, 1.0, 0, 1, color)
    panel.patch(0.08, 0.92, 0.6, 0.94, (78, 90, 100))


def _beneath(canvas: Canvas, frame: Frame, length: float, width: float) -> None:
    """The dark space between the wheels, which is part of the vehicle."""
    for along in (length * 0.3, -length * 0.3):
        points = [(s * width * 0.42, u, along) for s, u in ((-1, 0.02), (1, 0.02), (1, 0.4), (-1, 0.4))]
        canvas.face(frame.world(points), (16, 16, 18))


def _moved(frame: Frame, origin: np.ndarray) -> Frame:  # float64 (3,)
    return Frame(float(origin[0]), frame.y, float(origin[2]), frame.heading)
