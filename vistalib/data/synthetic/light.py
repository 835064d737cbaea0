"""Light of a scene: sun, sky and air; how bright a surface of a given direction is.

A surface of albedo `color` (RGB 0..255) and unit normal n shows `color * (ambient * (0.8 + 0.2 n_y) + sun * max(0, n.s))`.
"""

from dataclasses import dataclass

import numpy as np

Rgb = tuple[float, float, float]
Normal = tuple[float, float, float]

TOWARDS_CAMERA: Normal = (0.0, 0.3, -0.95)
UP: Normal = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Light:
    """`azimuth` of the sun counts from straight ahead to the right (radians), `haze` is the extinction per metre."""

    azimuth: float
    elevation: float
    sun: Rgb
    ambient: Rgb
    zenith: Rgb
    skyline: Rgb
    cloud: float
    haze: float
    wet: float = 0.0
    rain: float = 0.0
    dusk: float = 0.0

    @property
    def direction(self) -> Normal:
        """Unit vector towards the sun."""
        flat = float(np.cos(self.elevation))
        return float(np.sin(self.azimuth)) * flat, float(np.sin(self.elevation)), float(np.cos(self.azimuth)) * flat

    @property
    def shadow(self) -> float:
        """How much of its light the ground loses in full shadow, 0..1."""
        sun = sum(self.sun) * self.direction[1]
        return sun / (sun + sum(self.ambient))

    def factor(self, normal: Normal = TOWARDS_CAMERA) -> Rgb:
        """What a surface with this normal multiplies its colour by."""
        facing = max(0.0, sum(n * s for n, s in zip(normal, self.direction, strict=True)))
        around = 0.8 + 0.2 * normal[1]
        red, green, blue = (a * around + s * facing for a, s in zip(self.ambient, self.sun, strict=True))
        return red, green, blue

    def lit(self, color: Rgb, normal: Normal = TOWARDS_CAMERA) -> Rgb:
        """The colour a surface shows."""
        red, green, blue = (c * f for c, f in zip(color, self.factor(normal), strict=True))
        return red, green, blue


def clear(rng: np.random.Generator) -> Light:
    """Blue sky with some clouds."""
    return Light(
        azimuth=rng.uniform(-np.pi, np.pi),
        elevation=rng.uniform(0.55, 1.1),
        sun=(0.78, 0.72, 0.62),
        ambient=(0.50, 0.54, 0.62),
        zenith=(72, 122, 196),
        skyline=(188, 212, 232),
        cloud=rng.uniform(0.15, 0.6),
        haze=rng.uniform(0.0006, 0.002),
    )


def golden(rng: np.random.Generator) -> Light:
    """A low, warm sun."""
    return Light(
        azimuth=rng.uniform(-np.pi, np.pi),
        elevation=rng.uniform(0.16, 0.35),
        sun=(1.0, 0.70, 0.40),
        ambient=(0.58, 0.57, 0.62),
        zenith=(100, 132, 182),
        skyline=(250, 208, 156),
        cloud=rng.uniform(0.2, 0.6),
        haze=rng.uniform(0.002, 0.005),
    )


def overcast(rng: np.random.Generator) -> Light:
    """A bright grey sky without shadows."""
    grey = rng.uniform(0.9, 1.05)
    return Light(
        azimuth=rng.uniform(-np.pi, np.pi),
        elevation=rng.uniform(0.7, 1.2),
        sun=(0.10, 0.10, 0.10),
        ambient=(0.76 * grey, 0.78 * grey, 0.81 * grey),
        zenith=(186, 193, 202),
        skyline=(226, 229, 231),
        cloud=1.0,
        haze=rng.uniform(0.002, 0.006),
    )


def dusk(rng: np.random.Generator) -> Light:
    """After sunset: lamps and windows are lit."""
    return Light(
        azimuth=rng.uniform(-0.8, 0.8),
        elevation=0.06,
        sun=(0.30, 0.16, 0.10),
        ambient=(0.30, 0.32, 0.45),
        zenith=(42, 56, 104),
        skyline=(222, 150, 118),
        cloud=rng.uniform(0.3, 0.6),
        haze=rng.uniform(0.003, 0.006),
        dusk=1.0,
    )


def fog(rng: np.random.Generator) -> Light:
    """Dense fog."""
    return Light(
        azimuth=0.0,
        elevation=1.0,
        sun=(0.05, 0.05, 0.05),
        ambient=(0.76, 0.77, 0.79),
        zenith=(206, 209, 212),
        skyline=(214, 216, 217),
        cloud=0.9,
        haze=rng.uniform(0.016, 0.032),
        wet=0.3,
    )


def rain(rng: np.random.Generator) -> Light:
    """Rain on wet roads."""
    return Light(
        azimuth=0.0,
        elevation=1.0,
        sun=(0.03, 0.03, 0.03),
        ambient=(0.56, 0.59, 0.64),
        zenith=(134, 142, 154),
        skyline=(182, 188, 194),
        cloud=1.0,
        haze=rng.uniform(0.006, 0.014),
        wet=1.0,
        rain=rng.uniform(0.4, 1.0),
    )
