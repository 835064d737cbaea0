"""From a scene to arrays: image, class of every pixel (Vistas v1.2), instance of every pixel."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vistalib.data.labels import TRAIN_CLASSES
from vistalib.data.mapping import label_map
from vistalib.data.synthetic import furniture, people, plants, vehicles
from vistalib.data.synthetic.buildings import building, skyline
from vistalib.data.synthetic.camera import Frame, Points
from vistalib.data.synthetic.draw import LABEL_OF, SUPER, Canvas
from vistalib.data.synthetic.scene import Item, Scene, ordered, schedule
from vistalib.data.synthetic.sensor import develop, paint_sky
from vistalib.data.synthetic.street import draw_ground, draw_shadows, shadow_outline
from vistalib.data.synthetic.styles import describe
from vistalib.data.vistas_labels import VISTAS_NAMES

ATTEMPTS = 6  # scenes tried until one shows all that is scheduled
VISIBLE = 1 / 8000  # share of the image from which a class counts as shown
LAYOUTS = ("vistas", "cityscapes")
TRAIN_IDS = label_map("released").table(dict(enumerate(VISTAS_NAMES)), "Vistas v1.2")


@dataclass(frozen=True)
class Rendering:
    """`image` uint8 RGB (H, W, 3), `label` uint8 (H, W) of the 66 Vistas classes, `instance` int32 (H, W), 0 for none."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    instance: NDArray[np.int32]


def render_number(layout: str, *, seed: int, split: int, number: int, size: tuple[int, int]) -> Rendering:
    """Image `number` of a split: a function of these arguments alone."""
    must = schedule(number)
    best, most = None, -1
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, LAYOUTS.index(layout), split, number, attempt])
        rendering = render(describe(layout, rng, split=split, number=number, size=size, must=must))
        shown = len(must & visible_classes(rendering.label))
        if shown > most:
            best, most = rendering, shown
        if most == len(must):
            break
    assert best is not None
    return best


def visible_classes(label: NDArray[np.uint8]) -> frozenset[str]:
    """The training classes that a Vistas label map (H, W) shows."""
    counts = np.bincount(TRAIN_IDS[label].ravel(), minlength=256)
    return frozenset(name for k, name in enumerate(TRAIN_CLASSES) if counts[k] >= max(4, VISIBLE * label.size))


def render(scene: Scene) -> Rendering:
    """Draw a scene, far to near."""
    rng = np.random.default_rng(scene.seed)
    canvas = Canvas(scene.camera, scene.light)
    paint_sky(canvas, (rng.uniform(0, 50), rng.uniform(0, 50)))
    draw_ground(canvas, scene.street, rng)
    _shadows(canvas, scene)
    skyline(canvas, scene.street, rng, hills=scene.hills)
    for item in ordered(scene.items, scene.street):
        if item.far > 1.2:
            draw_item(canvas, scene, item)
    if scene.hood:
        _ego(canvas, scene.hood, rng)
    image, segment = develop(canvas, scene.sensor, rng)
    labels = np.array([s.label for s in canvas.segments], np.uint8)
    instances = np.array([s.instance for s in canvas.segments], np.int32)
    label, instance = labels[segment], instances[segment]
    if scene.mirrored:
        image, label, instance = np.flip(image, 1).copy(), np.flip(label, 1).copy(), np.flip(instance, 1).copy()
    return Rendering(image, label, instance)


def draw_item(canvas: Canvas, scene: Scene, item: Item) -> None:
    """Draw one thing; it gets a generator of its own, so that leaving another out changes nothing else."""
    rng = np.random.default_rng(item.seed)
    street = scene.street
    if item.kind == "building":
        z1 = item.z + item.length
        building(
            canvas,
            street,
            rng,
            t=item.t,
            z0=item.z,
            z1=z1,
            floors=int(item.height),
            depth=item.width,
            pitched=item.variant == "pitched",
        )
        return
    frame = street.frame(item.t, item.z, item.up, item.turn)
    if item.kind in ("wall", "fence", "hedge"):
        _border(canvas, item, frame, street.frame(item.t, item.z + item.length, item.up), scene.season, rng)
    elif item.kind in ("car", "truck", "bus", "tram"):
        _vehicle(canvas, item, frame, rng)
    else:
        _SMALL[item.kind](canvas, scene, item, frame, rng)


def _border(canvas: Canvas, item: Item, start: Frame, stop: Frame, season: str, rng: np.random.Generator) -> None:
    if item.kind == "hedge":
        plants.hedge(canvas, start, stop, rng, height=item.height, season=season)
    elif item.kind == "wall":
        color = ((196, 186, 168), (150, 92, 74), (158, 158, 154), (178, 170, 156))[int(rng.integers(4))]
        furniture.wall(canvas, start, stop, rng, height=item.height, style=item.variant, color=color)
    else:
        color = ((48, 56, 50), (214, 212, 204), (124, 128, 130), (134, 98, 66))[
            ("bars", "pickets", "mesh", "boards").index(item.variant)
        ]
        furniture.fence(canvas, start, stop, height=item.height, style=item.variant, color=color)


def _vehicle(canvas: Canvas, item: Item, frame: Frame, rng: np.random.Generator) -> None:
    if item.kind == "car":
        canvas.begin("object--vehicle--car", z=frame.z)
        vehicles.car(canvas, frame, rng, item.variant)
    elif item.kind == "truck":
        canvas.begin("object--vehicle--truck", z=frame.z)
        vehicles.truck(canvas, frame, rng)
    elif item.kind == "bus":
        canvas.begin("object--vehicle--bus", z=frame.z)
        vehicles.bus(canvas, frame, rng)
    else:
        canvas.begin("object--vehicle--on-rails", z=frame.z)
        vehicles.tram(canvas, frame, rng)


Small = Callable[[Canvas, Scene, Item, Frame, np.random.Generator], None]


def _thing(canvas: Canvas, _: Scene, item: Item, frame: Frame, rng: np.random.Generator) -> None:
    furniture.small_thing(canvas, frame, rng, item.kind)


def _signal(canvas: Canvas, _: Scene, item: Item, frame: Frame, rng: np.random.Generator) -> None:
    furniture.traffic_light(
        canvas, frame, rng, side=-1.0 if item.t > 0 else 1.0, overhead=item.variant == "overhead", phase=int(rng.integers(3))
    )


def _utility(canvas: Canvas, scene: Scene, item: Item, frame: Frame, rng: np.random.Generator) -> None:
    span = scene.street.x(item.t, item.z + item.width) - frame.x
    furniture.utility_pole(canvas, frame, rng, (span, item.width))


_SMALL: dict[str, Small] = {
    "tree": lambda c, s, i, f, r: plants.tree(c, f, r, height=i.height, shape=i.variant, season=s.season),
    "bush": lambda c, s, i, f, r: plants.bush(c, f, r, size=i.height, season=s.season),
    "lamp": lambda c, s, i, f, r: furniture.street_lamp(c, f, r, -1.0 if i.variant == "left" else 1.0),
    "utility pole": _utility,
    "sign": lambda c, s, i, f, r: furniture.traffic_sign(c, f, r),
    "traffic light": _signal,
    "person": lambda c, s, i, f, r: people.person(c, f, r),
    "cyclist": lambda c, s, i, f, r: people.rider(c, f, r, motor=False),
    "motorcyclist": lambda c, s, i, f, r: people.rider(c, f, r, motor=True),
    "bicycle": lambda c, s, i, f, r: people.bicycle(c, f, r),
    "motorcycle": lambda c, s, i, f, r: people.motorcycle(c, f, r),
    **dict.fromkeys(("trash", "bench", "hydrant", "mailbox", "cabinet", "rack", "bollard", "banner"), _thing),
}


def _shadows(canvas: Canvas, scene: Scene) -> None:
    contact: list[Points] = []
    cast: list[Points] = []
    sunny = scene.light.shadow > 0.2
    for item in scene.items:
        frame = scene.street.frame(item.t, item.z, item.up, item.turn)
        if item.kind == "building":
            foot = np.array(
                [
                    [scene.street.x(item.t + d, z), 0, z]
                    for d, z in (
                        (0, item.z),
                        (0, item.z + item.length),
                        (np.sign(item.t) * item.width, item.z + item.length),
                        (np.sign(item.t) * item.width, item.z),
                    )
                ]
            )
            if sunny:
                cast.append(shadow_outline(canvas, foot, item.height * 3.3))
            contact.append(_grown(foot, 0.5))
        elif item.kind == "tree":
            angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
            sx, sy, sz = scene.light.direction
            foot = np.array([frame.x, frame.y, frame.z])
            reach = min(item.height * 0.62 / max(sy, 0.15), 25.0)
            ring = (
                np.stack((np.cos(angles), np.zeros(14), np.sin(angles)), 1)
                * item.height
                * 0.3
                * (1 + 0.2 * np.sin(angles * 5))[:, None]
            )
            if sunny:
                cast.append(ring + foot - np.array([sx, 0.0, sz]) * reach)
                cast.append(shadow_outline(canvas, ring * 0.06 + foot, item.height * 0.5))
            contact.append(ring * 0.25 + foot)
        elif item.kind not in ("wall", "fence", "hedge"):
            wide, long = max(item.width, 0.42), max(item.length, 0.42)
            if item.kind in ("cyclist", "motorcyclist", "bicycle", "motorcycle"):
                long = 1.7
            foot = frame.world([(s * wide / 2, 0, a * long / 2) for s, a in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
            if item.length > 3 or item.kind in ("person", "cyclist", "motorcyclist", "motorcycle"):
                contact.append(_grown(foot, 0.08))
            if sunny and item.kind != "utility pole":
                tall = item.height or {"lamp": 7.0, "sign": 2.6, "traffic light": 3.2, "bicycle": 0.9, "motorcycle": 1.0}.get(
                    item.kind, 1.65
                )
                thin = foot if item.kind not in ("lamp", "sign", "traffic light") else _grown(foot, -0.15)
                cast.append(shadow_outline(canvas, thin, tall))
    draw_shadows(canvas, contact, cast)


def _grown(foot: Points, by: float) -> Points:
    """A footprint (N, 3) grown about its centre by metres."""
    center = foot.mean(0)
    away = foot - center
    grown: Points = center + away * (1 + by / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6))
    return grown


def _ego(canvas: Canvas, kind: str, rng: np.random.Generator) -> None:
    """What shows of the own car: its hood with a star, or a dashboard with a phone mount."""
    h, w = canvas.segment.shape
    xs = np.linspace(-0.02, 1.02, 60)
    factor = canvas.light.factor((0.0, 1.0, 0.0))
    base = (44.0, 46.0, 50.0) if kind == "hood" else (40.0, 38.0, 36.0)
    lit = (base[0] * factor[0], base[1] * factor[1], base[2] * factor[2])
    if kind == "hood":
        top = 0.905 + 0.32 * (xs - 0.5) ** 2
    else:
        top = rng.uniform(0.88, 0.95) + 0.05 * np.abs(xs - 0.5) ** 1.5
    canvas.begin("void--ego-vehicle", z=1.0, instance=0)
    for depth, gain in ((0.0, 1.5), (0.012, 1.05), (0.04, 0.86), (0.08, 0.7)):
        outline = np.concatenate((np.stack((xs * w, (top + depth) * h), 1), [[1.02 * w, 1.05 * h], [-0.02 * w, 1.05 * h]]))
        canvas.fill(outline, (min(lit[0] * gain, 255), min(lit[1] * gain, 255), min(lit[2] * gain, 255)))
    if kind == "hood":
        center, radius = np.array([0.5 * w, 0.888 * h]), 0.017 * h
        points = np.round(center).astype(int)
        last = len(canvas.segments) - 1
        for target, value in ((canvas.color, (168, 170, 172)), (canvas.segment, last)):
            cv2.circle(target, (int(points[0]), int(points[1])), int(radius), value, max(1, SUPER))
            for angle in (np.pi / 2, np.pi * 7 / 6, np.pi * 11 / 6):
                tip = center + radius * np.array([np.cos(angle), -np.sin(angle)])
                cv2.line(target, (int(points[0]), int(points[1])), (int(tip[0]), int(tip[1])), value, max(1, SUPER))
    elif rng.random() < 0.5:
        canvas.segments.append(replace(canvas.segments[-1], label=LABEL_OF["void--car-mount"]))
        x, wide = rng.uniform(0.2, 0.8) * w, 0.05 * w
        canvas.fill(
            np.array([[x - wide, 1.01 * h], [x - wide * 0.7, 0.93 * h], [x + wide * 0.7, 0.93 * h], [x + wide, 1.01 * h]]),
            (22, 22, 24),
        )
