"""The two domains: which streets, cameras, light and weather each layout shows.

Vistas: all the world, phones and dash cameras, every light and weather, several image sizes. Cityscapes: one calibrated camera
behind one windscreen, greyish and greenish, in a few towns, each on one day.
"""

import numpy as np

from vistalib.data.synthetic.camera import Camera
from vistalib.data.synthetic.layout import lay_street
from vistalib.data.synthetic.planner import Planner
from vistalib.data.synthetic.scene import Scene
from vistalib.data.synthetic.sensor import Sensor
from vistalib.data.synthetic.towns import TOWNS, WORLD

CITIES = (("aachen", "bochum"), ("frankfurt",))  # of the splits of the Cityscapes layout


def city(split: int, number: int) -> tuple[str, int]:
    """The town of an image in the Cityscapes layout, by turns, and which of that town's images it is."""
    towns = CITIES[split]
    return towns[number % len(towns)], number // len(towns)


def describe(
    layout: str, rng: np.random.Generator, *, split: int, number: int, size: tuple[int, int], must: frozenset[str]
) -> Scene:
    """A scene of that layout for an image of about `size` (height, width) that shows the classes in `must`."""
    vistas = layout == "vistas"
    town = WORLD if vistas else TOWNS[city(split, number)[0]]
    street, cross = lay_street(rng, town, must)
    palms = vistas and rng.random() < 0.14
    scene = Scene(
        camera=_phone(rng, size) if vistas else _calibrated(rng, size),
        light=town.light(rng),
        sensor=_phone_sensor(rng, size) if vistas else _calibrated_sensor(rng, size),
        street=street,
        season=town.season(rng),
        hills=vistas and rng.random() < 0.35,
        hood=str(rng.choice(["", "dashboard"], p=[0.8, 0.2])) if vistas else "hood",
        mirrored=vistas and rng.random() < 0.3,
        seed=int(rng.integers(1 << 31)),
    )  # fmt: skip
    suburban = street.kind in ("residential", "village", "industrial")
    planner = Planner(rng, street, cross, must, view=scene.camera.width / 2 / scene.camera.focal)
    planner.houses()
    planner.furniture(palms=palms, poles=vistas and suburban and rng.random() < 0.6)
    planner.traffic()
    planner.people()
    scene.items = planner.items
    return scene


def _phone(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """4:3 or 16:9 at about as many pixels as `size` has."""
    aspect = 4 / 3 if rng.random() < 0.55 else 16 / 9
    area = size[0] * size[1] * rng.uniform(0.85, 1.15)
    height = 2 * max(8, round(np.sqrt(area / aspect) / 2))
    width = 2 * max(8, round(height * aspect / 2))
    return Camera(
        width=width,
        height=height,
        focal=width * rng.uniform(0.62, 1.0),
        horizon=height * rng.uniform(0.4, 0.56),
        mount=rng.uniform(1.2, 2.2),
        roll=rng.normal(0, 0.012),
    )


def _calibrated(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    height, width = size
    return Camera(
        width, height, focal=1.1 * width, horizon=height * (0.43 + rng.normal(0, 0.006)), mount=1.25, roll=rng.normal(0, 0.002)
    )


def _phone_sensor(rng: np.random.Generator, size: tuple[int, int]) -> Sensor:
    warm = rng.normal(0, 0.05)
    return Sensor(
        exposure=rng.uniform(0.92, 1.22),
        contrast=rng.uniform(0.96, 1.16),
        saturation=rng.uniform(0.84, 1.14),
        gains=(1 + warm, 1 + rng.normal(0, 0.015), 1 - warm),
        vignette=rng.uniform(0.0, 0.32),
        blur=rng.uniform(0.0, 0.8) * size[0] / 512,
        noise=rng.uniform(1.0, 4.5),
        sharpen=rng.uniform(0.0, 0.7),
    )


def _calibrated_sensor(rng: np.random.Generator, size: tuple[int, int]) -> Sensor:
    return Sensor(
        exposure=rng.uniform(0.8, 0.95),
        contrast=1.02,
        saturation=0.64,
        gains=(0.93, 1.03, 0.95),
        vignette=0.12,
        blur=0.45 * size[0] / 512,
        noise=1.6,
        lift=-0.03,
    )
