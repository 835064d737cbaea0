"""The description of a scene: camera, light, sensor, street and the things on it; everything a renderer needs and no pixel.

A scene is a function of its generator and of the classes that must occur in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from vistalib.data.synthetic.camera import Camera
from vistalib.data.synthetic.light import Light
from vistalib.data.synthetic.sensor import Sensor
from vistalib.data.synthetic.street import KERB, Mark, Strip, Street

# Training classes that few streets show: each is scheduled for four images of eleven, all in another order.
SCHEDULED = ("train", "bus", "truck", "motorcycle", "rider", "bicycle", "wall", "fence", "traffic light", "terrain", "traffic sign")
END = 130.0  # metres: how far things stand


def schedule(number: int) -> frozenset[str]:
    """The classes that image `number` of a split must show."""
    return frozenset(name for k, name in enumerate(SCHEDULED) if (number * 5 + 7 * k) % 11 < 4)


@dataclass(frozen=True)
class Item:
    """A thing at (t, z) of the street, `up` above it, turned by `turn` from its direction; sizes in metres, looks from `seed`."""

    kind: str
    t: float
    z: float
    seed: int
    turn: float = 0.0
    up: float = 0.0
    length: float = 0.0
    width: float = 0.0
    height: float = 0.0
    variant: str = ""

    @property
    def far(self) -> float:
        """The depth it reaches to, by which things are ordered."""
        return self.z + self.length * (1.0 if self.kind in ("building", "wall", "fence", "hedge") else 0.5)


@dataclass
class Scene:
    """All of one picture. `mirrored` swaps left and right in the end (left-hand traffic)."""

    camera: Camera
    light: Light
    sensor: Sensor
    street: Street
    season: str
    hills: bool
    hood: str  # "", "hood" or "dashboard": what shows of the car that carries the camera
    mirrored: bool
    seed: int
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class Cross:
    """The cross-section of one half of a street: metres from its centre line outwards."""

    median: float
    drive: float  # where the outermost lane ends
    parking: float
    verge: float
    walk: float
    garden: float

    @property
    def kerb(self) -> float:
        return self.drive + self.parking

    @property
    def front(self) -> float:
        """Where the sidewalk ends."""
        return self.kerb + 0.16 + self.verge + self.walk


def lay_street(rng: np.random.Generator, kind: str, must: frozenset[str]) -> tuple[Street, Cross]:
    """Draw a street of that kind at random, with its strips and paint."""
    lanes = 2 if kind == "boulevard" or (kind in ("city", "industrial") and rng.random() < 0.25) else 1
    lane = rng.uniform(2.7, 3.0) if kind in ("residential", "village") else rng.uniform(3.0, 3.5)
    tracks = "train" in must
    median = 3.3 if tracks else (rng.uniform(1.2, 3.0) if kind == "boulevard" and rng.random() < 0.6 else 0.0)
    cross = Cross(
        median=median,
        drive=median + lanes * lane,
        parking=2.2 if rng.random() < {"city": 0.8, "boulevard": 0.5, "residential": 0.6, "industrial": 0.4}.get(kind, 0.1) else 0.0,
        verge=rng.uniform(1.2, 2.6) if "terrain" in must or rng.random() < (0.34 if kind in ("residential", "village") else 0.06) else 0.0,
        walk=rng.uniform(3.0, 5.2) if kind in ("city", "boulevard") else rng.uniform(1.8, 2.8),
        garden=rng.uniform(3.0, 6.0) if kind in ("residential", "village", "industrial") else 0.0,
    )  # fmt: skip
    ego = median + lane * (0.5 if lanes == 1 else rng.choice([0.5, 1.5]))
    grey = rng.uniform(84, 122)
    surface = "cobbles" if kind in ("residential", "city") and lanes == 1 and rng.random() < 0.14 else "asphalt"
    street = Street(
        kind=kind,
        offset=-ego + rng.uniform(-0.3, 0.3),
        slope=rng.normal(0, 0.02),
        bend=rng.normal(0, 0.0009) if rng.random() < 0.6 else rng.choice([-1, 1]) * rng.uniform(0.002, 0.005),
        half=cross.kerb,
        lane=lane,
        lanes=lanes,
        surface=surface,
        asphalt=(grey * rng.uniform(0.98, 1.03), grey, grey * rng.uniform(0.97, 1.05)),
        median=median,
    )
    if "traffic light" in must or rng.random() < 0.4:
        z = rng.uniform(17, 34)
        street.crossing = (z, z + rng.uniform(7, 12))
    _strips(street, cross, rng, tracks)
    _paint(street, cross, rng)
    return street, cross


def _strips(street: Street, cross: Cross, rng: np.random.Generator, tracks: bool) -> None:
    pave = rng.uniform(146, 182)
    paving = (pave * rng.uniform(0.98, 1.05), pave, pave * rng.uniform(0.92, 1.0))
    grass = (rng.uniform(96, 122), rng.uniform(108, 124), rng.uniform(62, 76))
    garden_label, garden_color, material = ("nature--terrain", grass, "grass") if cross.garden and street.kind != "industrial" else ("construction--flat--sidewalk", paving, "paving")  # fmt: skip
    add = street.strips.append
    bays = "construction--flat--parking" if rng.random() < 0.25 else "construction--flat--road"
    bay_color = (street.asphalt[0] * 1.1, street.asphalt[1] * 1.08, street.asphalt[2] * 1.06)
    for sign in (-1.0, 1.0):
        yard = cross.front + cross.garden + (26 if street.kind != "village" else 0)
        add(Strip(sign * cross.front, sign * yard, garden_label, garden_color, material, 0.05))
        add(Strip(sign * cross.kerb, sign * cross.front, "construction--flat--sidewalk", paving, "paving", KERB))
        if cross.verge:
            add(Strip(sign * cross.kerb, sign * (cross.kerb + 0.16 + cross.verge), "nature--terrain", grass, "grass", KERB))
        street.kerbs.append(sign * cross.kerb)
        add(Strip(0.0, sign * cross.kerb, "construction--flat--road", street.asphalt, street.surface))
        if cross.parking:
            add(Strip(sign * cross.drive, sign * cross.kerb, bays, bay_color, "cobbles" if rng.random() < 0.5 else "asphalt"))
    if cross.median:
        half = cross.median - 0.25
        green = rng.random() < 0.4
        ground = ("nature--terrain", grass, "grass") if green else ("construction--flat--rail-track", (138, 132, 124), "gravel")
        if not tracks and not green:
            ground = ("construction--flat--sidewalk", paving, "paving")
        add(Strip(-half, half, ground[0], ground[1], ground[2], 0.06))
        street.kerbs += [-half, half]
        if tracks:
            street.rails = [track + rail for track in (-1.62, 1.62) for rail in (-0.72, 0.72)]


def _paint(street: Street, cross: Cross, rng: np.random.Generator) -> None:
    marks = street.marks
    yellow = (226, 184, 64)

    def line(t: float, color: tuple[float, float, float], dash: float, gap: float) -> None:
        z = rng.uniform(0.9, 4.0)
        while z < 110:
            stop = min(z + (dash if gap else 8.0), 112)
            if not (street.blocked(z, 7) or street.blocked(stop, 7)):
                marks.append(Mark(t - 0.07, t + 0.07, z, stop, color=color))
            z = stop + gap

    if street.surface == "asphalt":
        american = rng.random() < 0.25
        if not cross.median and (street.kind != "residential" or rng.random() < 0.4):
            solid = rng.random() < 0.25
            line(0.0, yellow if american else (222, 222, 216), 3.0, 0.0 if solid else 4.5)
            if american and solid:
                line(0.24, yellow, 3.0, 0.0)
        for lane in range(1, street.lanes):
            for sign in (-1, 1):
                line(sign * (cross.median + lane * street.lane), (222, 222, 216), 3.0, 5.0)
        if rng.random() < 0.55:
            for sign in (-1, 1):
                line(sign * (cross.drive - 0.12), (222, 222, 216), 3.0, 0.0)
    if street.crossing:
        z0, z1 = street.crossing
        if rng.random() < 0.75:
            for a in (z0 - 4.6, z1 + 1.2):
                for sign in (-1, 1):
                    inner = sign * max(cross.median, 0.02)
                    marks.append(Mark(inner, sign * cross.drive, a, a + 3.4, "marking--crosswalk-zebra", None))
                for t in np.arange(-cross.drive + 0.3, cross.drive - 0.5, 1.0):
                    if abs(t + 0.25) > cross.median:
                        marks.append(Mark(float(t), float(t) + 0.5, a, a + 3.4, "marking--crosswalk-zebra"))
        marks.append(Mark(max(cross.median, 0.1), cross.drive - 0.1, z0 - 5.9, z0 - 5.45))
    for _ in range(int(rng.integers(0, 4))):
        street.manholes.append((rng.choice([-1, 1]) * rng.uniform(cross.median + 0.6, cross.drive - 0.6), rng.uniform(6, 30), False))
    for z in np.arange(rng.uniform(6, 14), 60, 19):
        street.manholes.append((cross.kerb - 0.4, float(z), True))


class Planner:
    """Puts things on a street; every thing gets a seed of its own. `view` is |x|/z at the image's edge."""

    def __init__(self, rng: np.random.Generator, street: Street, cross: Cross, must: frozenset[str], view: float) -> None:
        self.rng, self.street, self.cross, self.must, self.view = rng, street, cross, must, view
        self.items: list[Item] = []
        self.taken: list[tuple[float, float, float]] = []  # (t, z, half length) of vehicles

    def add(self, kind: str, t: float, z: float, *, turn: float = 0.0, up: float = 0.0, length: float = 0.0, width: float = 0.0,
            height: float = 0.0, variant: str = "") -> None:  # fmt: skip
        seed = int(self.rng.integers(1 << 31))
        self.items.append(Item(kind, float(t), float(z), seed, float(turn), float(up), float(length), float(width), float(height), variant))

    def shown(self, t: float) -> float:
        """The depth from which on a thing at `t` is well inside the image."""
        z = 7.0
        while abs(self.street.x(t, z)) > 0.86 * self.view * z and z < 60:
            z += 0.5
        return z

    def reserve(self, sign: float, z0: float, z1: float) -> None:
        """Keep the kerb free of parked cars, so that what is behind shows."""
        self.taken.append((sign * (self.cross.kerb - 1.05), (z0 + z1) / 2, (z1 - z0) / 2))
        self.taken.append((sign * (self.cross.kerb + 0.3), (z0 + z1) / 2, (z1 - z0) / 2))

    def free(self, t: float, z: float, half: float) -> bool:
        """Whether nothing drives there; takes the place if so."""
        if any(abs(t - a) < 2.0 and abs(z - b) < half + c + 1.0 for a, b, c in self.taken):
            return False
        self.taken.append((t, z, half))
        return True

    def vehicle(self, kind: str, t: float, z: float, turn: float = 0.0) -> bool:
        """A vehicle in a lane, if there is room."""
        body, length, width, height = "", 11.0, 2.5, 3.0
        if kind == "car":
            body = str(self.rng.choice(["hatch", "sedan", "wagon", "suv", "van"], p=[0.3, 0.24, 0.18, 0.18, 0.1]))
            length, width, height = 4.5, 1.85, 2.2 if body == "van" else 1.5
        elif kind == "truck":
            length, height = 8.5, 3.4
        elif kind == "tram":
            length, width, height = 24.0, 2.4, 3.5
        if not self.free(t, z, length / 2):
            return False
        self.add(kind, t, z, turn=turn, length=length, width=width, height=height, variant=body)
        return True

    def houses(self) -> None:
        """What lines the street: houses, walls, fences, hedges and greenery, side by side on both sides."""
        rng, cross, kind = self.rng, self.cross, self.street.kind
        for sign in (-1.0, 1.0):
            z = -45.0
            green = rng.random() < {"city": 0.1, "boulevard": 0.16, "village": 0.55}.get(kind, 0.22)
            while z < END + 20:
                length = rng.uniform(20, 38) if kind == "industrial" else rng.uniform(9, 20)
                if self.street.blocked(z, 0.5) or self.street.blocked(z + length, 0.5) or (self.street.crossing and z < self.street.crossing[0] < z + length):
                    crossing = self.street.crossing
                    assert crossing
                    if z < crossing[0] - 6:
                        length = crossing[0] - 0.5 - z
                    else:
                        z = crossing[1] + 0.5
                        continue
                self.plot(sign, z, length, green=rng.random() < 0.08 or (green and not 4 < abs(z - 40) < 8 and rng.random() < 0.7))
                z += length + (0.0 if kind in ("city", "boulevard") and rng.random() < 0.88 else rng.uniform(1.5, 6))
        border = {name for name in ("wall", "fence") if name in self.must}
        for k, name in enumerate(sorted(border)):
            sign = -1.0 if k % 2 else 1.0
            z = self.shown(sign * cross.front)
            self.border(sign, z, rng.uniform(18, 28), name)
            self.reserve(sign, z - 8, z + 3)

    def plot(self, sign: float, z: float, length: float, *, green: bool) -> None:
        rng, cross, kind = self.rng, self.cross, self.street.kind
        t = sign * (cross.front + cross.garden)
        if green:
            for _ in range(int(length / 3.2)):
                where, tall = z + rng.uniform(0, length), rng.uniform(5, 12)
                self.add("tree", t + sign * rng.uniform(1, 9), where, height=tall, up=0.05, variant=self.tree_shape())
            for _ in range(int(length / 4)):
                self.add("bush", t + sign * rng.uniform(0.5, 4), z + rng.uniform(0, length), height=rng.uniform(0.8, 1.9), up=0.05)
        else:
            low, high = {"city": (3, 6), "boulevard": (4, 8), "industrial": (1, 3)}.get(kind, (1, 3))
            floors = int(rng.integers(low, high + 1))
            pitched = rng.random() < {"city": 0.6, "boulevard": 0.2, "industrial": 0.15}.get(kind, 0.92)
            house = length if kind in ("city", "boulevard", "industrial") else length * rng.uniform(0.7, 0.95)
            self.add("building", t, z, length=house, width=rng.uniform(9, 14), height=floors, variant="pitched" if pitched else "flat")
            if kind in ("residential", "village") and rng.random() < 0.6:
                self.add("tree", t + sign * 15, z + length * 0.8, height=rng.uniform(8, 13), variant=self.tree_shape())
        if cross.garden and z > -8 and z < 90 and (kind != "village" or rng.random() < 0.4):
            name = str(rng.choice(["fence", "hedge", "wall", "none"], p=[0.22, 0.46, 0.12, 0.2]))
            if name != "none":
                self.border(sign, z, length, name)
            if rng.random() < 0.75:
                self.add("tree", sign * (cross.front + rng.uniform(1.5, cross.garden)), z + rng.uniform(1, length), up=0.05, height=rng.uniform(3.5, 7), variant=self.tree_shape())  # fmt: skip
            for _ in range(int(rng.integers(0, 4))):
                self.add("bush", sign * (cross.front + rng.uniform(0.8, cross.garden)), z + rng.uniform(0, length), up=0.05, height=rng.uniform(0.5, 1.3))

    def border(self, sign: float, z: float, length: float, name: str) -> None:
        """A wall, fence or hedge along the sidewalk, in short pieces that share one look."""
        rng = self.rng
        style = str(rng.choice(["bars", "pickets", "mesh", "boards"])) if name == "fence" else str(rng.choice(["plaster", "brick", "concrete"]))
        tall, seed = rng.uniform(0.9, 1.7) if name != "wall" else rng.uniform(1.2, 2.4), int(rng.integers(1 << 31))
        for start in np.arange(z, z + length, 2.5):
            if start > 1 and not self.street.blocked(float(start), 3):
                self.items.append(
                    Item(name, sign * (self.cross.front + 0.15), float(start), seed, up=0.1, length=min(2.5, z + length - float(start)), height=tall, variant=style)
                )  # fmt: skip

    def tree_shape(self) -> str:
        return str(self.rng.choice(["round", "wide", "tall", "spruce", "bare"], p=[0.42, 0.24, 0.16, 0.12, 0.06]))

    def furniture(self, palms: bool, poles: bool) -> None:
        """Lamps, signs, signals, trees and small things between road and sidewalk."""
        rng, cross, street = self.rng, self.cross, self.street
        edge = cross.kerb + 0.5
        urban = street.kind in ("city", "boulevard")
        for sign in (-1.0, 1.0):
            if poles and sign > 0:
                for z in np.arange(rng.uniform(8, 18), END, 26.0):
                    self.add("utility pole", sign * (edge + 0.2), z, up=KERB, length=0.0, width=26.0)
            else:
                for z in np.arange(rng.uniform(6, 26), END, rng.uniform(22, 34)):
                    self.clear("lamp", sign * edge, z, up=KERB, variant="left" if sign > 0 else "right")
            if rng.random() < {"city": 0.55, "boulevard": 0.8, "industrial": 0.3}.get(street.kind, 0.45):
                shape = "palm" if palms else self.tree_shape()
                tall = rng.uniform(5.5, 9.5)
                for z in np.arange(rng.uniform(6, 16), END, rng.uniform(7, 13)):
                    if rng.random() < 0.85:
                        place = edge + (cross.verge / 2 if cross.verge else 0.35)
                        self.clear("tree", sign * place, z, up=KERB, height=tall * rng.uniform(0.85, 1.15), variant=shape)
            spread = 18 if "traffic sign" in self.must else 32
            for z in np.arange(rng.uniform(8, 20), 90, rng.uniform(spread * 0.7, spread * 1.3)):
                self.clear("sign", sign * (edge + rng.uniform(-0.1, 0.3)), z, up=KERB)
            names = ["trash", "bench", "hydrant", "mailbox", "cabinet", "rack", "bollard", "banner"]
            for z in np.arange(rng.uniform(6, 14), 70, 11.0 if urban else 26.0):
                name = str(rng.choice(names, p=[0.24, 0.14, 0.08, 0.08, 0.12, 0.1, 0.16, 0.08]))
                place = cross.front - 0.6 if name in ("bench", "cabinet") else edge
                self.clear(name, sign * place, z, up=KERB, turn=np.pi if sign < 0 else 0.0)
        if cross.median and not street.rails:
            for z in np.arange(rng.uniform(10, 20), END, rng.uniform(9, 14)):
                self.clear("tree", 0.0, z, height=rng.uniform(4, 8), variant="palm" if palms else "round")
        if street.crossing and ("traffic light" in self.must or rng.random() < 0.25):
            z0, z1 = street.crossing
            for t, z, variant in ((edge, z0 - 1.2, "overhead"), (-edge, z1 + 1.0, ""), (edge, z1 + 1.2, ""), (-edge, z0 - 1.0, "")):
                self.add("traffic light", t, z, up=KERB, variant=variant if rng.random() < 0.6 else "")

    def clear(self, kind: str, t: float, z: float, **more: float | str) -> None:
        """Add a thing unless it stood in the side street."""
        if not self.street.blocked(float(z), 1.5):
            self.add(kind, t, float(z), **more)  # type: ignore[arg-type]  # the keywords of `add`

    def traffic(self) -> None:
        """Vehicles in the lanes and at the kerb."""
        rng, cross, street = self.rng, self.cross, self.street
        lanes = [cross.median + street.lane * (n + 0.5) for n in range(street.lanes)]
        ego = min(lanes, key=lambda t: abs(t + street.offset))
        if street.rails:
            for track, turn, chance in ((-1.62, np.pi, 0.75), (1.62, 0.0, 0.45)):
                if rng.random() < chance or (track > 0 and not any(i.kind == "tram" for i in self.items)):
                    self.vehicle("tram", track, rng.uniform(26, 44), turn)
        for name in ("bus", "truck"):
            if name in self.must:
                places = [(ego, rng.uniform(17, 26), 0.0), (-lanes[0], rng.uniform(19, 30), np.pi)]
                for t, z, turn in places if rng.random() < 0.5 else places[::-1]:
                    if self.vehicle(name, t, z, turn):
                        break
        if "motorcycle" in self.must:
            if rng.random() < 0.6:
                self.add("motorcyclist", ego + rng.uniform(-0.5, 0.5), rng.uniform(7.5, 14), turn=rng.normal(0, 0.06))
                self.taken.append((ego, 11.0, 3.0))
            else:
                z = self.shown(cross.kerb + 0.9)
                self.reserve(1.0, z - 6, z + 2)
                self.add("motorcycle", cross.kerb + 0.9, z, up=KERB, turn=rng.uniform(0.5, 1.2) * rng.choice([-1, 1]))
        if "rider" in self.must:
            self.add("cyclist", cross.drive - 0.45, rng.uniform(7.5, 14), turn=rng.normal(0, 0.12))
            if rng.random() < 0.5:
                self.add("cyclist", -cross.drive + 0.5, rng.uniform(9, 20), turn=np.pi + rng.normal(0, 0.2))
        if "bicycle" in self.must:
            t = cross.kerb + 0.9
            z = self.shown(t) + rng.uniform(0, 2)
            self.reserve(1.0, z - 6, z + 2)
            for k in range(int(rng.integers(2, 6))):
                self.add("bicycle", t, z + 0.8 * k, up=KERB, turn=rng.uniform(0.7, 1.3))
        busy = {"city": 1.0, "boulevard": 1.1, "industrial": 0.7, "residential": 0.45}.get(street.kind, 0.4)
        for lane in lanes:
            z = rng.uniform(11, 34)
            while z < END:
                if rng.random() < 0.55 * busy + 0.15 and not street.blocked(z, 0):
                    self.vehicle("truck" if rng.random() < 0.02 else "car", lane + rng.normal(0, 0.15), z)
                z += rng.uniform(9, 26)
            z = rng.uniform(9, 22)
            while z < END:
                if rng.random() < 0.6 * busy + 0.1 and not street.blocked(z, 0):
                    self.vehicle("car", -lane + rng.normal(0, 0.15), z, np.pi)
                z += rng.uniform(9, 24)
        self.parked(busy)
        if street.crossing and rng.random() < 0.4:
            self.vehicle("car", rng.choice([-1, 1]) * rng.uniform(5, 14) * 1.0, sum(street.crossing) / 2 + 1.2, rng.choice([-1, 1]) * np.pi / 2)

    def parked(self, busy: float) -> None:
        """Cars along the kerb, or half on it where there are no bays."""
        rng, cross = self.rng, self.cross
        for sign in (-1.0, 1.0):
            if not cross.parking and rng.random() > 0.3:
                continue
            share, z = rng.uniform(0.35, 0.95) * min(1.0, busy + 0.3), rng.uniform(5.5, 9)
            place = cross.kerb - 1.05 if cross.parking else cross.kerb + 0.3
            while z < END:
                if rng.random() < share and not self.street.blocked(z, 8):
                    self.vehicle("car", sign * (place + rng.normal(0, 0.08)), z, (np.pi if sign < 0 else 0.0) + rng.normal(0, 0.015))
                z += rng.uniform(5.4, 6.6)

    def people(self) -> None:
        """People on the sidewalks and over the crosswalk, alone and in pairs; bicycles left standing."""
        rng, cross, street = self.rng, self.cross, self.street
        low, high = {"city": (6, 18), "boulevard": (4, 14), "residential": (2, 6)}.get(street.kind, (1, 4))
        for _ in range(int(rng.integers(low, high + 1))):
            sign, z = float(rng.choice([-1, 1])), 5.5 + 50 * rng.beta(1.1, 2.2)
            t = sign * rng.uniform(cross.kerb + 0.8, cross.front - 0.3)
            turn = float(rng.choice([0.0, np.pi])) + rng.normal(0, 0.3)
            for k in range(1 + int(rng.random() < 0.3)):
                self.clear("person", t + 0.55 * k, z + rng.normal(0, 0.15), up=KERB, turn=turn)
        if street.crossing and rng.random() < 0.7:
            for _ in range(int(rng.integers(1, 5))):
                self.add("person", rng.uniform(-cross.drive, cross.drive), street.crossing[0] - rng.uniform(1.6, 4.2), turn=rng.choice([-1, 1]) * np.pi / 2)
        if rng.random() < 0.35:
            self.add("cyclist", cross.drive - 0.4, rng.uniform(16, 45), turn=rng.normal(0, 0.05))
        if rng.random() < 0.4:
            for k in range(int(rng.integers(1, 4))):
                self.clear("bicycle", -cross.front + 0.6, rng.uniform(9, 30) + 0.8 * k, up=KERB, turn=-rng.uniform(0.8, 1.4))


def ordered(items: Iterable[Item], street: Street) -> list[Item]:
    """Items far to near. Something beside a long thing, and farther out than it, counts as behind it."""
    far = {id(item): item.far for item in items}
    listed = list(items)
    longs = sorted((i for i in listed if i.length > 3 and i.kind not in ("building", "wall", "fence", "hedge")), key=lambda i: abs(street.x(i.t, i.z)))
    for long in longs:
        x = street.x(long.t, long.z)
        for item in listed:
            reach = max(long.length, long.width) / 2
            beside = long.z - reach < item.z < long.z + reach and item is not long
            ox = street.x(item.t, item.z)
            if beside and ox * x > 0 and abs(ox) > abs(x) + 0.6 and item.length < 12:
                far[id(item)] = max(far[id(item)], far[id(long)] + 0.01)
    return sorted(listed, key=lambda item: -far[id(item)])
