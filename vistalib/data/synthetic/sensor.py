"""From the canvas to a photograph: sky, haze, wet roads and rain; then the lens and the sensor of the camera that took it.

Images are float32 (H, W, 3) in 0..255 until the end, then uint8.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vistalib.data.synthetic.camera import Camera
from vistalib.data.synthetic.draw import SUPER, Canvas
from vistalib.data.synthetic.light import Light
from vistalib.data.synthetic.materials import SIZE, clouds

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sensor:
    """How a camera renders light. `gains` are red, green, blue; `blur` and `noise` are in pixels and grey levels."""

    exposure: float
    contrast: float
    saturation: float
    gains: tuple[float, float, float]
    vignette: float
    blur: float
    noise: float
    sharpen: float = 0.0
    lift: float = 0.0


def paint_sky(canvas: Canvas, shift: tuple[float, float]) -> None:
    """Fill the whole canvas with sky: a gradient, clouds on a plane high above, the glow of the sun."""
    camera, light = canvas.camera, canvas.light
    rows = int(np.clip(camera.horizon + 0.12 * camera.height, 1, camera.height))
    across, up = (slope[:rows] for slope in camera.slopes())
    height = np.clip(up / np.sqrt(1 + across**2), 0, None)  # (H, W)
    share = np.clip(1 - np.exp(-height * 3.2), 0, 1)[..., None]
    sky = np.asarray(light.skyline, np.float32) * (1 - share) + np.asarray(light.zenith, np.float32) * share
    distance = 1 / np.maximum(height + 0.06, 0.06)
    tile, scale = clouds(), np.float32(SIZE / 26.0)
    density = np.zeros_like(height)
    for zoom, weight in ((1.0, 0.75), (3.1, 0.35)):
        u, v = (across * distance * zoom + shift[0]) * scale, (distance * zoom + shift[1]) * scale
        density += np.float32(weight) * cv2.remap(
            tile, (u % SIZE).astype(np.float32), (v % SIZE).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
    cover = np.clip((density - (1.1 - 2.0 * light.cloud)) * 0.9, 0, 1) * np.clip(height * 9, 0, 1)
    bright = np.asarray(light.skyline, np.float32) * 0.35 + np.float32(165)
    if light.dusk:
        bright = np.array((196, 120, 118), np.float32)
    elif light.cloud > 0.85:
        bright = np.asarray(light.skyline, np.float32) * 1.03
    puff = bright * (1 - 0.16 * np.clip(density - 0.6, 0, 2))[..., None]
    opacity = (cover * (0.75 if light.cloud < 0.85 else 0.55))[..., None]
    sky = sky * (1 - opacity) + puff * opacity
    sx, sy, sz = light.direction
    if sz > 0 and sum(light.sun) > 0.5:
        norm = np.sqrt(across**2 + up**2 + 1)
        facing = np.clip((across * sx + up * sy + sz) / norm, 0, 1)
        glow = (0.5 * facing**14 + 0.9 * facing**300)[..., None]
        sky = sky + glow * (np.asarray(light.sun, np.float32) * 235 - sky * 0.35)
    cv2.resize(
        np.clip(sky, 0, 255).astype(np.uint8),
        None,
        fx=SUPER,
        fy=SUPER,
        dst=canvas.color[: rows * SUPER],
        interpolation=cv2.INTER_LINEAR,
    )


def develop(canvas: Canvas, sensor: Sensor, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The photograph (H, W, 3) and the segment numbers (H, W) of a finished canvas."""
    camera, light = canvas.camera, canvas.light
    segment = np.ascontiguousarray(canvas.segment[::SUPER, ::SUPER])
    image = cv2.resize(canvas.color, (camera.width, camera.height), interpolation=cv2.INTER_AREA).astype(np.float32)
    near = _inverse_depth(canvas, segment)
    if light.wet:
        image = _wet(canvas, image, segment, rng)
    image = _haze(image, near, segment, light)
    if light.dusk:
        image += 0.55 * cv2.GaussianBlur(np.clip(image - 205, 0, 60) * 2.2, (0, 0), camera.height * 0.012)
    if light.rain:
        image = _rain(image, light.rain, rng)
    return expose(image, sensor, camera, rng), segment


def _inverse_depth(canvas: Canvas, segment: NDArray[np.int32]) -> Floats:
    planes = np.array([s.plane for s in canvas.segments], np.float32)[segment]  # (H, W, 3)
    h, w = segment.shape
    u = np.arange(w, dtype=np.float32) + np.float32(0.5)
    v = np.arange(h, dtype=np.float32)[:, None] + np.float32(0.5)
    return np.clip(planes[..., 0] * u + planes[..., 1] * v + planes[..., 2], 1e-4, 1.0)


def _haze(image: Floats, near: Floats, segment: NDArray[np.int32], light: Light) -> Floats:
    share = 1 - np.exp(-light.haze / near)
    share[segment == 0] = 0.0 if light.haze < 0.012 else 0.5
    return np.asarray(image + share[..., None] * (np.asarray(light.skyline, np.float32) * 0.97 - image), np.float32)


def _wet(canvas: Canvas, image: Floats, segment: NDArray[np.int32], rng: np.random.Generator) -> Floats:
    """Mirror what stands above in the road, smeared downwards, more in puddles."""
    camera = canvas.camera
    horizon = int(np.clip(camera.horizon, 1, camera.height - 1))
    rows = np.clip(2 * horizon - np.arange(camera.height), 0, camera.height - 1)
    mirrored = cv2.GaussianBlur(image[rows], (0, 0), sigmaX=camera.height * 0.004, sigmaY=camera.height * 0.03)
    labels = np.array([s.material in ("asphalt", "paint", "paving", "cobbles", "stone") for s in canvas.segments])
    ground = labels[segment].astype(np.float32)
    puddles = cv2.resize(clouds()[:160, :60], (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    share = np.clip(0.3 + 0.16 * puddles, 0.1, 0.6) * ground * np.float32(canvas.light.wet)
    share *= np.clip((np.arange(camera.height, dtype=np.float32)[:, None] - horizon) / (0.05 * camera.height), 0, 1)
    dark = image * (1 - 0.28 * (ground * np.float32(canvas.light.wet)))[..., None]
    return np.asarray(dark * (1 - share[..., None]) + mirrored * share[..., None], np.float32)


def _rain(image: Floats, amount: float, rng: np.random.Generator) -> Floats:
    h, w = image.shape[:2]
    streaks = np.zeros((h, w), np.float32)
    slant = rng.uniform(-0.16, 0.16)
    for _ in range(int(amount * h * w / 1400)):
        x, y, length = rng.uniform(0, w), rng.uniform(-20, h), rng.uniform(0.015, 0.06) * h
        a, b = (int(x * 16), int(y * 16)), (int((x + slant * length) * 16), int((y + length) * 16))
        cv2.line(streaks, a, b, rng.uniform(0.2, 0.9), 1, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(streaks, (0, 0), 0.6)
    return np.asarray(image + (soft * 34)[..., None], np.float32)


def expose(image: Floats, sensor: Sensor, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lens and sensor: blur, vignetting, white balance, exposure, contrast, saturation, sharpening, noise."""
    h, w = image.shape[:2]
    if sensor.blur > 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sensor.blur), np.float32)
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)
    falloff = 1 - sensor.vignette * (x * x + 0.5 * y * y) / 1.5
    light = image * (np.asarray(sensor.gains, np.float32) * np.float32(sensor.exposure)) * falloff[..., None]
    grey = (0.299 * light[..., 0] + 0.587 * light[..., 1] + 0.114 * light[..., 2])[..., None]
    tone = np.clip((grey + (light - grey) * np.float32(sensor.saturation)) / 255, 0, 1.6)
    tone = np.where(tone > 0.8, 0.8 + 0.2 * np.tanh((tone - 0.8) / 0.2), tone)  # highlights roll off
    tone = (tone - 0.45) * np.float32(sensor.contrast) + np.float32(0.45 + sensor.lift)
    shown = tone * 255
    if sensor.sharpen:
        shown = shown + sensor.sharpen * (shown - cv2.GaussianBlur(shown, (0, 0), 1.0))
    colored, plain = rng.standard_normal((h, w, 3), dtype=np.float32), rng.standard_normal((h, w, 1), dtype=np.float32)
    shown = shown + (0.5 * colored + plain) * np.float32(sensor.noise)
    return np.clip(np.round(shown), 0, 255).astype(np.uint8)
