"""Textures, made of seeded noise: ground tiles, tree crowns, clouds.

A tile is float32 (SIZE, SIZE), repeats without a seam, and holds factors around 1 by which a colour is multiplied.
Tiles are the same for every scene (a scene shifts and tints them) and are made once a process.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIZE = 512
TILE_METRES = {"asphalt": 6.0, "paving": 4.0, "grass": 5.0, "cobbles": 3.0, "gravel": 4.0, "stains": 40.0}


def noise(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Smooth seamless noise (size, size) of mean 0 and deviation about 1, with `cells` bumps along an edge."""
    grid = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 2, mode="wrap")
    fine = -(-size // cells) * (cells + 4)
    smooth = cv2.resize(grid, (fine, fine), interpolation=cv2.INTER_CUBIC)
    start = fine * 2 // (cells + 4)
    period = fine * cells // (cells + 4)
    tile = smooth[start : start + period, start : start + period]
    return np.asarray(cv2.resize(tile, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def fractal(rng: np.random.Generator, size: int, cells: int, octaves: int, roughness: float = 0.55) -> Floats:
    """Noise over `octaves` scales from `cells` on, deviation about 1."""
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for octave in range(octaves):
        total += np.float32(weight) * noise(rng, size, min(cells << octave, size))
        weight *= roughness
    return np.asarray(total / (total.std() + 1e-6), np.float32)


@cache
def tile(name: str) -> Floats:
    """The ground tile of that name; `TILE_METRES[name]` is its edge on the ground."""
    rng = np.random.default_rng([7, len(name), ord(name[0])])
    grain = rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    if name == "asphalt":
        return np.asarray(1 + 0.1 * cv2.GaussianBlur(grain, (0, 0), 0.8) + 0.035 * fractal(rng, SIZE, 8, 4), np.float32)
    if name == "grass":
        blades = cv2.GaussianBlur(grain, (0, 0), sigmaX=0.7, sigmaY=2.2)
        return np.asarray(1 + 0.13 * blades / blades.std() + 0.13 * fractal(rng, SIZE, 6, 4), np.float32)
    if name == "gravel":
        return 1 + 0.12 * fractal(rng, SIZE, 48, 3) + 0.05 * grain
    if name == "plaster":
        return 1 + 0.022 * grain + 0.02 * fractal(rng, SIZE, 16, 3)
    if name == "stains":
        return 1 + 0.07 * fractal(rng, SIZE, 5, 5)
    columns, rows, joint = (10, 10, 3) if name == "paving" else (22, 28, 4)
    return _blocks(rng, columns, rows, joint, tone=0.05 if name == "paving" else 0.13) + 0.02 * grain


def _blocks(rng: np.random.Generator, columns: int, rows: int, joint: int, tone: float) -> Floats:
    """Blocks in a half-shifted bond with darker joints and a tone of their own each."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    row = np.floor(y * rows / SIZE).astype(np.int64)
    across = (x * columns / SIZE + 0.5 * (row % 2)) % columns
    column = np.floor(across).astype(np.int64) % columns
    tones = 1 + tone * rng.standard_normal((rows, columns)).astype(np.float32)
    edge = np.minimum(across % 1 * SIZE / columns, (y * rows / SIZE) % 1 * SIZE / rows)
    return np.asarray(tones[row, column] * np.where(edge < joint, 0.78, 1.0), np.float32)


@cache
def clouds() -> Floats:
    """Seamless cloud density, mean 0, deviation 1."""
    return fractal(np.random.default_rng(11), SIZE, 3, 7, 0.58)


CROWNS = ("round", "tall", "spruce", "bush", "wide")


@cache
def crown(shape: str, variant: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Brightness (S, S) around 1 and coverage (S, S) of a mass of leaves, lit from the upper left; S = 288."""
    size = 288
    rng = np.random.default_rng([13, CROWNS.index(shape), variant])
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    height = np.full((size, size), -1.0, np.float32)  # how far the leaves bulge towards us; negative is sky
    light = np.zeros((size, size), np.float32)
    for cx, cy, radius in _clumps(rng, shape):
        bulge = 1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
        above = bulge * radius > height
        light = np.where(above, (cx - x) * 0.45 / radius + (cy - y) * 0.95 / radius, light)
        height = np.where(above, bulge * radius, height)
    leaves = fractal(rng, size, 40, 3, 0.8)
    covered = height + 0.035 * fractal(rng, size, 24, 4, 0.8) > 0.015
    depth = np.clip(height / max(float(height.max()), 1e-3), 0, 1)
    brightness = 0.62 + 0.24 * light + 0.22 * depth + 0.17 * leaves + 0.35 * (1 - y)
    covered[0] = covered[:, 0] = covered[:, -1] = False
    return np.clip(brightness, 0.25, 1.8).astype(np.float32), covered


def _clumps(rng: np.random.Generator, shape: str) -> list[tuple[float, float, float]]:
    """Circles (x, y, radius) in the unit square whose union is the crown."""
    if shape == "spruce":
        return [
            (0.5 + rng.uniform(-0.4, 0.4) * level, 0.06 + 0.86 * level, 0.05 + 0.11 * level)
            for level in rng.uniform(0, 1, 60) ** 0.8
        ]
    if shape == "bush":
        return [(x, rng.uniform(0.45, 0.85), rng.uniform(0.14, 0.24)) for x in np.linspace(0.18, 0.82, 9)]
    reach_x, reach_y = {"round": (0.32, 0.32), "tall": (0.2, 0.36), "wide": (0.36, 0.22)}[shape]
    angles, spread = rng.uniform(0, 2 * np.pi, 26), np.sqrt(rng.uniform(0, 1, 26))
    return [
        (0.5 + reach_x * r * np.cos(a), 0.5 + reach_y * r * np.sin(a), rng.uniform(0.09, 0.17))
        for a, r in zip(angles, spread, strict=True)
    ]
