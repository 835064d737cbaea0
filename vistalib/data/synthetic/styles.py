"""The two domains: which streets, cameras, light and weather each layout shows.

Vistas: all the world, phones and dash cameras, every light and weather, several image sizes. Cityscapes: one calibrated camera
behind one windscreen in German towns, by day, greyish and greenish.
"""

import numpy as np

from vistalib.data.synthetic import light as lights
from vistalib.data.synthetic.camera import Camera
from vistalib.data.synthetic.layout import lay_street
from vistalib.data.synthetic.planner import Planner
from vistalib.data.synthetic.scene import Scene
from vistalib.data.synthetic.sensor import Sensor

KINDS = ("city", "boulevard", "residential", "industrial", "village")


def describe(layout: str, rng: np.random.Generator, size: tuple[int, int], must: frozenset[str]) -> Scene:
    """A scene of that layout for an image of about `size` (height, width) that shows the classes in `must`."""
    vistas = layout == "vistas"
    kind = str(rng.choice(KINDS, p=(0.3, 0.2, 0.26, 0.1, 0.14) if vistas else (0.44, 0.2, 0.28, 0.06, 0.02)))
    street, cross = lay_street(rng, kind, must)
    palms = vistas and rng.random() < 0.14
    scene = Scene(
        camera=_phone(rng, size) if vistas else _calibrated(rng, size),
        light=_world_light(rng) if vistas else _german_light(rng),
        sensor=_phone_sensor(rng, size) if vistas else _calibrated_sensor(rng, size),
        street=street,
        season=str(rng.choice(["summer", "spring", "autumn"], p=[0.64, 0.2, 0.16] if vistas else [0.8, 0.0, 0.2])),
        hills=vistas and rng.random() < 0.35,
        hood=str(rng.choice(["", "dashboard"], p=[0.8, 0.2])) if vistas else "hood",
        mirrored=vistas and rng.random() < 0.3,
        seed=int(rng.integers(1 << 31)),
    )  # fmt: skip
    planner = Planner(rng, street, cross, must, view=scene.camera.width / 2 / scene.camera.focal)
    planner.houses()
    planner.furniture(palms=palms, poles=vistas and kind in ("residential", "village", "industrial") and rng.random() < 0.6)
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


def _world_light(rng: np.random.Generator) -> lights.Light:
    makers = (lights.clear, lights.golden, lights.overcast, lights.dusk, lights.fog, lights.rain)
    return makers[int(rng.choice(6, p=(0.38, 0.14, 0.22, 0.09, 0.06, 0.11)))](rng)


def _german_light(rng: np.random.Generator) -> lights.Light:
    return (lights.overcast, lights.clear, lights.golden)[int(rng.choice(3, p=(0.55, 0.38, 0.07)))](rng)


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
