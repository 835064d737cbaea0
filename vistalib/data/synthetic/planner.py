"""Things on a street at random: houses and gardens, furniture, traffic and people."""

import numpy as np

from vistalib.data.synthetic.layout import Cross
from vistalib.data.synthetic.scene import Item
from vistalib.data.synthetic.street import KERB, Street

END = 130.0  # metres: how far things stand


class Planner:
    """Puts things on a street; every thing gets a seed of its own. `view` is |x|/z at the image's edge."""

    def __init__(self, rng: np.random.Generator, street: Street, cross: Cross, must: frozenset[str], view: float) -> None:
        self.rng, self.street, self.cross, self.must, self.view = rng, street, cross, must, view
        self.items: list[Item] = []
        self.taken: list[tuple[float, float, float]] = []  # (t, z, half length) of vehicles

    def add(
        self,
        kind: str,
        t: float,
        z: float,
        *,
        turn: float = 0.0,
        up: float = 0.0,
        length: float = 0.0,
        width: float = 0.0,
        height: float = 0.0,
        variant: str = "",
    ) -> None:
        seed = int(self.rng.integers(1 << 31))
        self.items.append(
            Item(kind, float(t), float(z), seed, float(turn), float(up), float(length), float(width), float(height), variant)
        )

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
                if (
                    self.street.blocked(z, 0.5)
                    or self.street.blocked(z + length, 0.5)
                    or (self.street.crossing and z < self.street.crossing[0] < z + length)
                ):
                    crossing = self.street.crossing
                    assert crossing
                    if z < crossing[0] - 6:
                        length = crossing[0] - 0.5 - z
                    else:
                        z = crossing[1] + 0.5
                        continue
                self.plot(
                    sign, z, length, green=rng.random() < 0.08 or (green and not 4 < abs(z - 40) < 8 and rng.random() < 0.7)
                )
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
                self.add(
                    "bush", t + sign * rng.uniform(0.5, 4), z + rng.uniform(0, length), height=rng.uniform(0.8, 1.9), up=0.05
                )
        else:
            low, high = {"city": (3, 6), "boulevard": (4, 8), "industrial": (1, 3)}.get(kind, (1, 3))
            floors = int(rng.integers(low, high + 1))
            pitched = rng.random() < {"city": 0.6, "boulevard": 0.2, "industrial": 0.15}.get(kind, 0.92)
            house = length if kind in ("city", "boulevard", "industrial") else length * rng.uniform(0.7, 0.95)
            self.add(
                "building",
                t,
                z,
                length=house,
                width=rng.uniform(9, 14),
                height=floors,
                variant="pitched" if pitched else "flat",
            )
            if kind in ("residential", "village") and rng.random() < 0.6:
                self.add("tree", t + sign * 15, z + length * 0.8, height=rng.uniform(8, 13), variant=self.tree_shape())
        if cross.garden and z > -8 and z < 90 and (kind != "village" or rng.random() < 0.4):
            name = str(rng.choice(["fence", "hedge", "wall", "none"], p=[0.22, 0.46, 0.12, 0.2]))
            if name != "none":
                self.border(sign, z, length, name)
            if rng.random() < 0.75:
                self.add(
                    "tree",
                    sign * (cross.front + rng.uniform(1.5, cross.garden)),
                    z + rng.uniform(1, length),
                    up=0.05,
                    height=rng.uniform(3.5, 7),
                    variant=self.tree_shape(),
                )
            for _ in range(int(rng.integers(0, 4))):
                self.add(
                    "bush",
                    sign * (cross.front + rng.uniform(0.8, cross.garden)),
                    z + rng.uniform(0, length),
                    up=0.05,
                    height=rng.uniform(0.5, 1.3),
                )

    def border(self, sign: float, z: float, length: float, name: str) -> None:
        """A wall, fence or hedge along the sidewalk, in short pieces that share one look."""
        rng = self.rng
        style = (
            str(rng.choice(["bars", "pickets", "mesh", "boards"]))
            if name == "fence"
            else str(rng.choice(["plaster", "brick", "concrete"]))
        )
        tall, seed = rng.uniform(0.9, 1.7) if name != "wall" else rng.uniform(1.2, 2.4), int(rng.integers(1 << 31))
        for start in np.arange(z, z + length, 2.5):
            if start > 1 and not self.street.blocked(float(start), 3):
                place, rest = sign * (self.cross.front + 0.15), z + length - float(start)
                self.items.append(
                    Item(name, place, float(start), seed, up=0.1, length=min(2.5, rest), height=tall, variant=style)
                )

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
            for t, z, variant in (
                (edge, z0 - 1.2, "overhead"),
                (-edge, z1 + 1.0, ""),
                (edge, z1 + 1.2, ""),
                (-edge, z0 - 1.0, ""),
            ):
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
            self.vehicle(
                "car",
                rng.choice([-1, 1]) * rng.uniform(5, 14) * 1.0,
                sum(street.crossing) / 2 + 1.2,
                rng.choice([-1, 1]) * np.pi / 2,
            )

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
                    self.vehicle(
                        "car", sign * (place + rng.normal(0, 0.08)), z, (np.pi if sign < 0 else 0.0) + rng.normal(0, 0.015)
                    )
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
                self.add(
                    "person",
                    rng.uniform(-cross.drive, cross.drive),
                    street.crossing[0] - rng.uniform(1.6, 4.2),
                    turn=rng.choice([-1, 1]) * np.pi / 2,
                )
        if rng.random() < 0.35:
            self.add("cyclist", cross.drive - 0.4, rng.uniform(16, 45), turn=rng.normal(0, 0.05))
        if rng.random() < 0.4:
            for k in range(int(rng.integers(1, 4))):
                self.clear("bicycle", -cross.front + 0.6, rng.uniform(9, 30) + 0.8 * k, up=KERB, turn=-rng.uniform(0.8, 1.4))
