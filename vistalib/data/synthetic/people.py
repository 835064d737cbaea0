"""People and two-wheelers: walking, waiting, riding. Local axes: side, up, along the direction of travel; metres."""

import numpy as np

from vistalib.data.synthetic.camera import Frame
from vistalib.data.synthetic.draw import Canvas
from vistalib.data.synthetic.light import Normal, Rgb

SKIN: tuple[Rgb, ...] = ((236, 190, 160), (218, 168, 132), (190, 138, 100), (140, 96, 66), (96, 64, 46))
COATS: tuple[Rgb, ...] = (
    (44, 48, 58), (30, 32, 36), (120, 124, 128), (158, 44, 44), (52, 78, 126), (198, 190, 172), (92, 100, 70), (206, 206, 204),
    (168, 120, 72), (64, 110, 120), (222, 190, 60), (122, 60, 104), (226, 110, 60), (72, 56, 48),
)  # fmt: skip
TROUSERS: tuple[Rgb, ...] = ((40, 50, 74), (30, 31, 35), (74, 76, 80), (96, 84, 68), (60, 74, 104), (150, 140, 120))
HAIR: tuple[Rgb, ...] = ((40, 30, 24), (22, 20, 20), (92, 66, 42), (168, 134, 84), (140, 136, 132))


def pick(rng: np.random.Generator, colors: tuple[Rgb, ...]) -> Rgb:
    """One of the colours, a little lighter or darker."""
    tint = rng.uniform(0.88, 1.12)
    red, green, blue = colors[int(rng.integers(len(colors)))]
    return red * tint, green * tint, blue * tint


def person(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Someone on foot; one in seven is a child."""
    canvas.begin("human--person", z=frame.z)
    scale = rng.uniform(0.62, 0.75) if rng.random() < 0.14 else rng.uniform(0.93, 1.06)
    coat, trousers, skin, hair = pick(rng, COATS), pick(rng, TROUSERS), pick(rng, SKIN), pick(rng, HAIR)
    stride = rng.uniform(-0.36, 0.36) if rng.random() < 0.8 else 0.04
    skirt, bag, long_hair = rng.random() < 0.2, rng.random() < 0.35, rng.random() < 0.4
    shoulder, hip = 0.2, 0.12

    def at(side: float, up: float, along: float) -> tuple[float, float, float]:
        return side * scale, up * scale, along * scale

    def line(width: float, color: Rgb, *points: tuple[float, float, float]) -> None:
        canvas.stroke(frame.world([at(*p) for p in points]), width * scale, color)

    shoe = (36.0, 34.0, 34.0)
    for sign, step in ((-1, stride), (1, -stride)):  # legs: hip, knee, ankle
        knee = (sign * hip * 0.8, 0.48, step * 0.62 + 0.03)
        ankle = (sign * hip * 0.7, 0.08 + 0.07 * max(0.0, -step), step)
        line(0.13, trousers if not skirt else skin, (sign * hip * 0.7, 0.88, 0), knee, ankle)
        line(0.1, shoe, ankle, (ankle[0], 0.04, step + 0.12))
    facing = frame.direction(0, 0.2, 1)
    sides = abs(np.cos(frame.heading))  # how much of the breadth shows
    breadth = 0.13 + (shoulder - 0.13) * sides
    across = np.array([1.0, 0.0, 0.0])
    base = frame.world([at(0, 0, 0)])[0]

    def torso(low: float, high: float, wide_low: float, wide_high: float, color: Rgb, normal: Normal) -> None:
        quad = [
            base + across * w * scale + np.array([0, h * scale, 0])
            for w, h in ((-wide_low, low), (wide_low, low), (wide_high, high), (-wide_high, high))
        ]
        canvas.face(np.array(quad), color, normal)

    if skirt:
        torso(0.5, 0.95, breadth * 1.15, breadth * 0.8, trousers, facing)
    bottom = 0.62 if rng.random() < 0.3 else 0.84
    torso(bottom, 1.2, breadth * 0.92, breadth * 0.86, coat, facing)
    torso(1.2, 1.42, breadth * 0.86, breadth * 1.05, coat, facing)
    torso(1.42, 1.49, breadth * 1.05, breadth * 0.4, coat, facing)
    right: Normal = (0.8, 0.2, -0.5)
    quad = np.array(
        [
            base + across * w * scale + np.array([0, h * scale, 0])
            for w, h in ((breadth * 0.3, bottom), (breadth * 0.92, bottom), (breadth * 1.05, 1.42), (breadth * 0.35, 1.42))
        ]
    )
    canvas.face(quad, (coat[0] * 0.9, coat[1] * 0.9, coat[2] * 0.9), right)
    for sign, swing in ((-1, -stride), (1, stride)):
        hand = (sign * (shoulder + 0.05), 0.84, swing * 0.75)
        sleeve = (coat[0] * 0.82, coat[1] * 0.82, coat[2] * 0.82)
        line(0.095, sleeve, (sign * shoulder * 0.95, 1.4, 0), (sign * (shoulder + 0.06), 1.12, swing * 0.2 - 0.04), hand)
        line(0.075, skin, hand, (hand[0], 0.79, hand[2]))
    if bag:
        line(0.24, pick(rng, COATS), (0.26, 0.72, 0.05), (0.26, 0.62, 0.05))
    _head(
        canvas,
        frame.world([at(0, 1.62, 0.03)])[0],
        0.115 * scale,
        skin,
        hair,
        away=float(np.cos(frame.heading)),
        long_hair=long_hair,
    )


def _head(canvas: Canvas, center: np.ndarray, radius: float, skin: Rgb, hair: Rgb, away: float, long_hair: bool) -> None:
    """A head at `center` (3,); `away` is 1 where it looks away from the camera."""
    x, y, z = (float(v) for v in center)
    canvas.stroke([(x, y - 0.2, z), (x, y - 0.08, z)], 0.1, skin)
    if long_hair:
        canvas.stroke([(x, y - 0.16, z), (x, y + 0.02, z)], radius * 2.1, hair)
    canvas.disc((x, y + 0.03, z), radius * 1.08, hair)
    if away < 0.6:
        canvas.disc((x, y - 0.03, z), radius * 0.88, skin)


def bicycle(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """A bicycle that leans on nothing."""
    canvas.begin("object--vehicle--bicycle", z=frame.z)
    color = pick(
        rng, ((30, 32, 36), (150, 30, 34), (40, 80, 140), (200, 202, 204), (60, 110, 70), (210, 170, 50), (34, 120, 130))
    )
    fine = canvas.per_metre(frame.z) > 25
    for along in (-0.52, 0.54):
        _wheel(canvas, frame, along, 0.34, 0.045, spokes=10 if fine else 0)
    crank, seat, head, rear, front = (0.02, 0.3), (-0.16, 0.86), (0.38, 0.84), (-0.52, 0.34), (0.54, 0.34)
    for a, b in ((rear, crank), (crank, seat), (seat, rear), (seat, head), (crank, head), (head, front)):
        canvas.stroke(frame.world([(0, a[1], a[0]), (0, b[1], b[0])]), 0.04, color)
    canvas.stroke(frame.world([(0, 0.84, 0.38), (0, 1.0, 0.36)]), 0.035, (60, 60, 64))
    canvas.stroke(frame.world([(-0.28, 1.02, 0.3), (0, 1.0, 0.38), (0.28, 1.02, 0.3)]), 0.035, (60, 60, 64))
    canvas.stroke(frame.world([(0, 0.92, -0.28), (0, 0.94, -0.06)]), 0.09, (26, 26, 28))
    if rng.random() < 0.4:
        canvas.stroke(frame.world([(0, 0.74, -0.7), (0, 0.74, -0.25)]), 0.05, (50, 50, 54))
    canvas.stroke(frame.world([(-0.1, 0.3, 0.05), (0.1, 0.26, 0.02)]), 0.04, (40, 40, 42))


def _wheel(canvas: Canvas, frame: Frame, along: float, radius: float, tyre: float, spokes: int) -> None:
    angles = np.linspace(0, 2 * np.pi, 22, endpoint=False)
    ring = frame.world([(0.0, radius + radius * np.sin(a), along + radius * np.cos(a)) for a in angles])
    canvas.mark(ring)
    for a in angles[:: max(1, 22 // spokes)] if spokes else ():
        spoke = frame.world([(0, radius, along), (0, radius + radius * np.sin(a), along + radius * np.cos(a))])
        canvas.stroke(spoke, 0.008, (140, 142, 146))
    canvas.stroke(ring, tyre, (28, 28, 30), closed=True)


def motorcycle(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """A motorcycle or a scooter."""
    canvas.begin("object--vehicle--motorcycle", z=frame.z)
    color = pick(rng, ((160, 30, 30), (34, 36, 40), (40, 70, 140), (210, 210, 208), (60, 62, 66), (200, 110, 30)))
    scooter = rng.random() < 0.4
    radius = 0.25 if scooter else 0.32
    for along in (-0.68, 0.68):
        _wheel(canvas, frame, along, radius, 0.15, spokes=0)
        hub = frame.world([(0, radius, along)])[0]
        canvas.disc(
            (float(hub[0]), float(hub[1]), float(hub[2])), radius * 0.5 * abs(np.sin(frame.heading)) + 0.04, (120, 122, 126)
        )
    lean = 0.16

    def body(color: Rgb, *outline: tuple[float, float]) -> None:
        """An outline (along, up), with some breadth where it is seen from its end."""
        for side in (-lean, lean) if frame.camera_side() > 0 else (lean, -lean):
            canvas.face(
                frame.world([(side, up, along) for along, up in outline]), color, frame.direction(np.sign(side), 0.25, 0)
            )
        low, high = min(u for _, u in outline), max(u for _, u in outline)
        for along in (outline[0][0], outline[-1][0]):
            canvas.face(
                frame.world([(-lean, low, along), (lean, low, along), (lean, high, along), (-lean, high, along)]), color
            )

    if scooter:
        body(color, (-0.85, 0.4), (-0.8, 0.75), (-0.2, 0.78), (-0.1, 0.4))
        body(color, (0.3, 0.25), (0.42, 0.95), (0.52, 0.9), (0.45, 0.25))
        body((50, 50, 54), (-0.15, 0.25), (-0.15, 0.36), (0.4, 0.36), (0.4, 0.25))
    else:
        body((70, 72, 76), (-0.3, 0.28), (-0.3, 0.56), (0.32, 0.56), (0.3, 0.28))
        body(color, (-0.1, 0.66), (-0.02, 0.92), (0.34, 0.96), (0.46, 0.7))
        canvas.stroke(frame.world([(lean, 0.34, -0.8), (lean, 0.34, 0.0)]), 0.09, (150, 150, 154))
        canvas.stroke(frame.world([(0, radius, 0.68), (0, 0.95, 0.44)]), 0.09, (120, 122, 126))
    body((26, 26, 28), (-0.86, 0.74), (-0.84, 0.84), (-0.1, 0.84), (-0.08, 0.74))
    canvas.stroke(frame.world([(-0.36, 1.06, 0.36), (0, 1.0, 0.46), (0.36, 1.06, 0.36)]), 0.05, (40, 40, 42))
    front = abs(frame.heading) > np.pi / 2
    lamp = frame.world([(0, 0.86, 0.6) if front else (0, 0.72, -0.9)])[0]
    canvas.disc((float(lamp[0]), float(lamp[1]), float(lamp[2])), 0.1, (240, 240, 226) if front else (190, 28, 26), None)
    plate = frame.world([(-0.1, 0.5, -0.92), (0.1, 0.5, -0.92), (0.1, 0.64, -0.92), (-0.1, 0.64, -0.92)])
    if not front:
        canvas.face(plate, (224, 224, 216))


def rider(canvas: Canvas, frame: Frame, rng: np.random.Generator, *, motor: bool) -> None:
    """Somebody riding, with the vehicle; the rider is a segment and an instance of their own."""
    (motorcycle if motor else bicycle)(canvas, frame, rng)
    canvas.begin("human--rider--motorcyclist" if motor else "human--rider--bicyclist", z=frame.z)
    coat, trousers, skin = pick(rng, COATS), pick(rng, TROUSERS), pick(rng, SKIN)
    seat = 0.84 if motor else 0.94
    hip, neck = (0.0, seat + 0.04, -0.25 if motor else -0.18), (0.0, seat + 0.56, 0.02 if motor else 0.06)
    for sign, pedal in ((-1, 0.0), (1, 0.16)):
        foot = (sign * 0.16, 0.3 if motor else 0.24 + pedal, 0.05)
        knee = (sign * (0.2 if motor else 0.13), seat - 0.22 + pedal * 0.7, 0.24)
        canvas.stroke(frame.world([(sign * 0.1, hip[1], hip[2]), knee, foot]), 0.14, trousers)
        canvas.stroke(frame.world([foot, (foot[0], foot[1] - 0.04, foot[2] + 0.12)]), 0.09, (30, 30, 32))
    facing = frame.direction(0, 0.3, -1 if np.cos(frame.heading) > 0 else 1)
    canvas.stroke(frame.world([hip, neck]), 0.26, coat, facing)
    sides = abs(np.cos(frame.heading))
    canvas.stroke(
        frame.world([(-0.14 * sides, neck[1] - 0.06, neck[2]), (0.14 * sides, neck[1] - 0.06, neck[2])]), 0.2, coat, facing
    )
    for sign in (-1, 1):
        grip = (sign * (0.34 if motor else 0.27), 1.06 if motor else 1.03, 0.34)
        canvas.stroke(frame.world([(sign * 0.19, neck[1] - 0.06, neck[2]), (sign * 0.28, 1.18, 0.16), grip]), 0.095, coat)
    head = frame.world([(0, neck[1] + 0.22, neck[2] + 0.06)])[0]
    away = float(np.cos(frame.heading))
    if motor or rng.random() < 0.5:
        helmet = pick(rng, ((30, 30, 34), (210, 212, 214), (170, 30, 30), (40, 70, 130)))
        _head(canvas, head, 0.115, skin, helmet, away=away, long_hair=False)
        canvas.disc((float(head[0]), float(head[1]) + 0.05, float(head[2])), 0.15 if motor else 0.125, helmet)
        if away < 0:
            canvas.disc((float(head[0]), float(head[1]) - 0.03, float(head[2])), 0.08, skin if not motor else (40, 44, 50))
    else:
        _head(canvas, head, 0.115, skin, pick(rng, HAIR), away=away, long_hair=rng.random() < 0.4)
