"""Textures of house fronts: plaster, brick, panels and glass, with windows, doors, shops, balconies and weather stains.

A facade is uint8 (h, w, 3), lit already; `ppm` is its pixels per metre.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vistalib.data.synthetic.light import Rgb
from vistalib.data.synthetic.materials import SIZE, tile
from vistalib.data.synthetic.towns import FRONTS, Town

Texture = NDArray[np.uint8]

PANEL: tuple[Rgb, ...] = ((168, 168, 164), (150, 154, 158), (186, 184, 176), (136, 140, 144))
SHOP: tuple[Rgb, ...] = (
    (156, 34, 36), (34, 74, 130), (36, 100, 66), (222, 180, 50), (44, 44, 48), (232, 230, 224), (120, 40, 90), (226, 120, 40),
    (30, 120, 140),
)  # fmt: skip


@dataclass(frozen=True)
class Facade:
    """What a front looks like; lengths in metres."""

    style: str
    color: Rgb
    length: float
    floors: int
    floor_height: float
    spacing: float
    window: tuple[float, float]
    shop: bool
    balconies: bool
    shutters: bool

    @property
    def height(self) -> float:
        return self.floors * self.floor_height + 0.5


def random_facade(rng: np.random.Generator, town: Town, *, kind: str, length: float, floors: int) -> Facade:
    """A front of that town for a street of that kind."""
    shares = {"industrial": (0.2, 0.3, 0.5, 0.0), "boulevard": (0.4, 0.15, 0.15, 0.3), "city": (0.58, 0.2, 0.08, 0.14)}.get(
        kind, (0.68, 0.32, 0.0, 0.0)
    )
    weights = np.multiply(shares, town.fronts)
    style = FRONTS[int(rng.choice(len(FRONTS), p=weights / weights.sum()))]
    palette = {"plaster": town.plaster, "brick": town.brick}.get(style, PANEL)
    tint = rng.uniform(0.86, 1.06)
    red, green, blue = palette[int(rng.integers(len(palette)))]
    urban = kind in ("city", "boulevard")
    return Facade(
        style=style,
        color=(red * tint, green * tint, blue * tint),
        length=length,
        floors=floors,
        floor_height=rng.uniform(2.9, 3.7),
        spacing=rng.uniform(1.9, 3.3),
        window=(rng.uniform(0.95, 1.5), rng.uniform(1.35, 1.95)),
        shop=urban and bool(rng.random() < 0.6),
        balconies=style == "plaster" and floors > 2 and bool(rng.random() < 0.3),
        shutters=style == "plaster" and bool(rng.random() < 0.25),
    )


def facade_texture(
    rng: np.random.Generator, facade: Facade, *, ppm: float, factor: Rgb, sky: Rgb, dusk: bool, blank: bool = False
) -> Texture:
    """Paint a front; `blank` leaves out all windows but one (a gable). `factor` lights it, its panes mirror `sky`."""
    h, w = max(int(facade.height * ppm), 2), max(int(facade.length * ppm), 2)
    wall = np.empty((h, w, 3), np.float32)
    wall[:] = facade.color
    wall *= _surface(rng, facade.style, h, w, ppm)[..., None]
    image = np.clip(wall, 0, 255).astype(np.uint8)
    glow = np.zeros((h, w), np.uint8)
    painter = _Painter(rng, image, glow, ppm, sky, dusk)
    if not blank:
        painter.storeys(facade)
    elif facade.floors > 1:
        painter.window(facade, facade.length * rng.uniform(0.3, 0.7), facade.height * 0.6)
    shade = np.ones((h, 1, 1), np.float32)  # darker towards the ground and right under the eaves
    rows = np.arange(h, dtype=np.float32) / ppm
    shade[:, 0, 0] = (1 - 0.22 * np.exp(-(facade.height - rows) / 0.8)) * (1 - 0.25 * np.exp(-rows / 0.35))
    stains = cv2.resize(tile("stains")[: h % 200 + 200, : w % 200 + 200], (w, h), interpolation=cv2.INTER_LINEAR)
    lit = image * (shade * np.asarray(factor, np.float32)) * stains[..., None]
    if dusk:
        lit[glow > 0] = image[glow > 0]
    return np.asarray(np.clip(lit, 0, 255), np.uint8)


def _surface(rng: np.random.Generator, style: str, h: int, w: int, ppm: float) -> NDArray[np.float32]:
    """Factors (h, w) of the bare wall."""
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)
    grain = tile("plaster")[np.ix_((np.arange(h) + rng.integers(SIZE)) % SIZE, (np.arange(w) + rng.integers(SIZE)) % SIZE)]
    if style == "brick" and ppm > 12:
        course, brick = max(2.0, 0.16 * ppm), max(4.0, 0.48 * ppm)
        row = (y / course).astype(np.int32)
        column = ((x + (row % 2) * brick / 2) / brick).astype(np.int32)
        tones = rng.uniform(0.84, 1.12, (41, 43)).astype(np.float32)
        joint = (y % course < max(1.0, 0.02 * ppm)) | ((x + (row % 2) * brick / 2) % brick < max(1.0, 0.02 * ppm))
        return np.asarray(np.where(joint, 1.12, tones[row % 41, column % 43]), np.float32)
    if style == "panel":
        joint = (y % (3.0 * ppm) < 1.5) | (x % (3.4 * ppm) < 1.5)
        return np.asarray(np.where(joint, 0.72, grain), np.float32)
    return np.asarray(grain, np.float32)


@dataclass
class _Painter:
    """Rectangles in metres from the lower left of the front."""

    rng: np.random.Generator
    image: Texture
    glow: NDArray[np.uint8]
    ppm: float
    sky: Rgb
    dusk: bool

    def rect(self, x0: float, x1: float, y0: float, y1: float, color: Rgb, *, shines: bool = False) -> None:
        h = self.image.shape[0]
        a, b = (round(x0 * self.ppm), h - round(y1 * self.ppm)), (round(x1 * self.ppm) - 1, h - round(y0 * self.ppm) - 1)
        if b[0] >= a[0] and b[1] >= a[1]:
            cv2.rectangle(self.image, a, b, color, -1)
            if shines:
                cv2.rectangle(self.glow, a, b, 1, -1)

    def storeys(self, facade: Facade) -> None:
        rng = self.rng
        count = max(1, int((facade.length - 0.6) / facade.spacing))
        margin = (facade.length - count * facade.spacing) / 2
        trim = _mix(facade.color, (238, 236, 230), 0.55) if rng.random() < 0.6 else _mix(facade.color, (60, 56, 52), 0.5)
        if facade.style == "glass":
            self.curtain(facade)
        for floor in range(facade.floors):
            base = floor * facade.floor_height
            if floor == 0 and facade.shop:
                self.shops(facade)
                continue
            if facade.style == "glass":
                continue
            if floor and rng.random() < 0.8 and facade.style == "plaster":
                self.rect(0, facade.length, base - 0.12, base + 0.04, trim)
            door = int(rng.integers(count)) if floor == 0 else -1
            for column in range(count):
                x = margin + (column + 0.5) * facade.spacing
                if column == door:
                    self.door(x)
                else:
                    self.window(facade, x, base + facade.floor_height * 0.5 + 0.1, trim=trim, low=floor == 0)
        if facade.style != "glass":
            self.rect(0, facade.length, facade.height - 0.4, facade.height, trim)
        if facade.style == "plaster" and not facade.shop:
            self.rect(0, facade.length, 0, 0.55, _mix(facade.color, (90, 88, 86), 0.6))

    def pane(self, x0: float, x1: float, y0: float, y1: float) -> None:
        """Glass: a lit room at dusk, else a dim room behind the sky's reflection."""
        rng = self.rng
        if self.dusk and rng.random() < 0.42:
            warm = rng.uniform(0.6, 1.05)
            self.rect(x0, x1, y0, y1, (250 * warm, 206 * warm, 130 * warm), shines=True)
            return
        mirrored = rng.uniform(0.12, 0.5)
        color = _mix((34, 38, 44), self.sky, mirrored)
        self.rect(x0, x1, y0, y1, color)
        self.rect(x0, x1, y0 + (y1 - y0) * 0.55, y1, _mix(color, self.sky, 0.16))
        if rng.random() < 0.35:
            self.rect(x0, x1, y1 - (y1 - y0) * rng.uniform(0.2, 0.8), y1, _mix((206, 200, 188), color, 0.4))

    def window(self, facade: Facade, x: float, y: float, trim: Rgb = (206, 204, 198), low: bool = False) -> None:
        w, h = facade.window[0] / 2, facade.window[1] / 2
        frame: Rgb = (226, 225, 220) if facade.style != "panel" else (70, 72, 76)
        self.rect(x - w - 0.14, x + w + 0.14, y - h - 0.12, y + h + 0.16, trim)
        self.rect(x - w - 0.02, x + w + 0.02, y + h - 0.1, y + h + 0.02, _mix(trim, (40, 40, 40), 0.6))
        self.rect(x - w, x + w, y - h, y + h, frame)
        self.pane(x - w + 0.07, x - 0.035, y - h + 0.07, y + h - 0.07)
        self.pane(x + 0.035, x + w - 0.07, y - h + 0.07, y + h - 0.07)
        self.rect(x - w, x + w, y + h * 0.35, y + h * 0.35 + 0.06, frame)
        self.rect(x - w - 0.2, x + w + 0.2, y - h - 0.12, y - h - 0.02, _mix(trim, (120, 118, 114), 0.4))
        self.rect(x - w - 0.15, x + w + 0.15, y - h - 0.22, y - h - 0.12, _mix(facade.color, (0, 0, 0), 0.3))
        if facade.shutters:
            leaf = _mix((60, 96, 80), facade.color, 0.25)
            for a, b in ((x - w - 0.62, x - w - 0.06), (x + w + 0.06, x + w + 0.62)):
                self.rect(a, b, y - h, y + h, leaf)
                self.rect(a + 0.06, b - 0.06, y - h + 0.08, y - 0.04, _mix(leaf, (0, 0, 0), 0.2))
                self.rect(a + 0.06, b - 0.06, y + 0.04, y + h - 0.08, _mix(leaf, (0, 0, 0), 0.2))
        if facade.balconies and not low and self.rng.random() < 0.75:
            self.rect(x - w - 0.4, x + w + 0.4, y - h - 0.34, y - h - 0.16, (118, 116, 112))
            self.rect(x - w - 0.4, x + w + 0.4, y - h + 0.78, y - h + 0.85, (44, 46, 48))
            for bar in np.arange(x - w - 0.4, x + w + 0.4, 0.16):
                self.rect(float(bar), float(bar) + 0.04, y - h - 0.16, y - h + 0.8, (50, 52, 54))

    def door(self, x: float) -> None:
        color = SHOP[int(self.rng.integers(len(SHOP)))]
        self.rect(x - 0.72, x + 0.72, 0, 2.62, (190, 186, 178))
        self.rect(x - 0.58, x + 0.58, 0, 2.48, _mix(color, (70, 52, 40), 0.55))
        self.pane(x - 0.5, x + 0.5, 2.0, 2.4)
        self.rect(x - 0.46, x - 0.04, 0.3, 1.8, _mix(color, (40, 32, 26), 0.6))
        self.rect(x + 0.04, x + 0.46, 0.3, 1.8, _mix(color, (40, 32, 26), 0.6))

    def shops(self, facade: Facade) -> None:
        rng, x, top = self.rng, 0.25, facade.floor_height
        while x < facade.length - 1.5:
            wide = min(rng.uniform(3.2, 6.0), facade.length - 0.25 - x)
            color = SHOP[int(rng.integers(len(SHOP)))]
            self.rect(x, x + wide, 0, top - 0.2, (52, 52, 54))
            door = x + wide - 1.15
            self.pane(x + 0.15, door - 0.1, 0.5, top - 1.0)
            for item in np.arange(x + 0.4, door - 0.6, 0.7):
                if rng.random() < 0.7:
                    tall = rng.uniform(0.3, 1.1)
                    goods = SHOP[int(rng.integers(len(SHOP)))]
                    self.rect(
                        float(item), float(item) + 0.4, 0.55, 0.55 + tall, _mix(goods, (50, 50, 52), 0.45), shines=self.dusk
                    )
            self.pane(door, x + wide - 0.15, 0.1, top - 1.0)
            self.rect(x, x + wide, top - 0.92, top - 0.22, color, shines=self.dusk)
            ink: Rgb = (250, 248, 240) if sum(color) < 420 else (40, 40, 44)
            for glyph in np.arange(x + wide * 0.2, x + wide * 0.78, 0.36):
                if rng.random() < 0.85:
                    self.rect(
                        float(glyph), float(glyph) + rng.uniform(0.12, 0.28), top - 0.74, top - 0.42, ink, shines=self.dusk
                    )
            if rng.random() < 0.35:
                for n, stripe in enumerate(np.arange(x, x + wide - 0.2, 0.4)):
                    self.rect(float(stripe), float(stripe) + 0.4, top - 1.4, top - 0.85, color if n % 2 else (236, 234, 228))
            x += wide + 0.15

    def curtain(self, facade: Facade) -> None:
        """A front all of glass."""
        for y in np.arange(0.2, facade.height - 0.6, facade.floor_height):
            for x in np.arange(0.1, facade.length - 0.4, 1.5):
                self.pane(
                    float(x) + 0.05, min(float(x) + 1.45, facade.length), float(y) + 0.9, float(y) + facade.floor_height - 0.1
                )
                self.rect(
                    float(x) + 0.05,
                    min(float(x) + 1.45, facade.length),
                    float(y) + 0.1,
                    float(y) + 0.85,
                    _mix(facade.color, (50, 60, 70), 0.5),
                )


def _mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share
