"""A street at random: its lanes and what lies across it, from the median to the gardens, and the paint on its asphalt."""

from dataclasses import dataclass

import numpy as np

from vistalib.data.synthetic.street import KERB, Mark, Street, Strip
from vistalib.data.synthetic.towns import Town


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


def lay_street(rng: np.random.Generator, town: Town, must: frozenset[str]) -> tuple[Street, Cross]:
    """Draw a street of that town at random, with its strips and paint."""
    kind = town.kind(rng)
    lanes = 2 if kind == "boulevard" or (kind in ("city", "industrial") and rng.random() < 0.25) else 1
    lane = rng.uniform(2.7, 3.0) if kind in ("residential", "village") else rng.uniform(3.0, 3.5)
    tracks = "train" in must
    median = 3.3 if tracks else (rng.uniform(1.2, 3.0) if kind == "boulevard" and rng.random() < 0.6 else 0.0)
    bays = {"city": 0.8, "boulevard": 0.5, "residential": 0.6, "industrial": 0.4}.get(kind, 0.1)
    grassy = 0.34 if kind in ("residential", "village") else 0.06
    cross = Cross(
        median=median,
        drive=median + lanes * lane,
        parking=2.2 if rng.random() < bays else 0.0,
        verge=rng.uniform(1.2, 2.6) if "terrain" in must or rng.random() < grassy else 0.0,
        walk=rng.uniform(3.0, 5.2) if kind in ("city", "boulevard") else rng.uniform(1.8, 2.8),
        garden=rng.uniform(3.0, 6.0) if kind in ("residential", "village", "industrial") else 0.0,
    )  # fmt: skip
    ego = median + lane * (0.5 if lanes == 1 else rng.choice([0.5, 1.5]))
    grey = rng.uniform(*town.asphalt)
    surface = "cobbles" if kind in ("residential", "city") and lanes == 1 and rng.random() < town.cobbles else "asphalt"
    street = Street(
        town=town,
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
    pave = rng.uniform(*street.town.paving)
    paving = (pave * rng.uniform(0.98, 1.05), pave, pave * rng.uniform(0.92, 1.0))
    grass = (rng.uniform(96, 122), rng.uniform(108, 124), rng.uniform(62, 76))
    garden_label, garden_color, material = (
        ("nature--terrain", grass, "grass")
        if cross.garden and street.kind != "industrial"
        else ("construction--flat--sidewalk", paving, "paving")
    )
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
        street.manholes.append(
            (rng.choice([-1, 1]) * rng.uniform(cross.median + 0.6, cross.drive - 0.6), rng.uniform(6, 30), False)
        )
    for z in np.arange(rng.uniform(6, 14), 60, 19):
        street.manholes.append((cross.kerb - 0.4, float(z), True))
