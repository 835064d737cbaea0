"""Opening a trained model to use it: what its weights say of themselves, completed by what street scenes have in common."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vistalib.data import TRAIN_CLASSES, TRAIN_COLORS
from vistalib.models import Segmentor, from_pretrained
from vistalib.recipes.run import usable_device

RELEASED_OUTPUTS = 150  # of every released model; the first 19 are trained, on the classes of Cityscapes
RELEASED_SCALE = (2048, 1024)


@dataclass(frozen=True)
class TrainedModel:
    """A model with what is needed to use it: its C classes, their colours, and the size it was evaluated at.

    It may have more outputs than classes, as the released models do: those beyond the classes stand for nothing.
    """

    model: Segmentor
    classes: tuple[str, ...]
    colors: NDArray[np.uint8]  # (C, 3) RGB
    scale: tuple[int, int]  # (width, height)
    device: str


def open_model(source: str | Path, *, device: str | None = None) -> TrainedModel:
    """Open the model that `source` names (see `vistalib.models.locate`), ready to predict.

    A model with 150 or 19 outputs that does not say its classes is taken to know those of Cityscapes, as the released ones do;
    others get numbers for names. `device` None is the GPU where there is one. Raises `ValueError` for what is no whole
    model, and for a device that torch cannot use.
    """
    device = usable_device(device)
    model = from_pretrained(source)
    assert model.config is not None  # from_pretrained tells how it built the model
    classes = model.config.classes or _usual_classes(model.config.num_classes)
    colors = np.array(model.config.colors or _usual_colors(classes), np.uint8).reshape(-1, 3)
    return TrainedModel(model.to(device).eval(), classes, colors, model.config.scale or RELEASED_SCALE, device)


def _usual_classes(num_classes: int) -> tuple[str, ...]:
    if num_classes in (len(TRAIN_CLASSES), RELEASED_OUTPUTS):
        return TRAIN_CLASSES
    return tuple(f"class {c}" for c in range(num_classes))


def _usual_colors(classes: Sequence[str]) -> list[list[int]]:
    """The colours of Cityscapes for its classes; for others hues a golden section apart, so that neighbours differ."""
    known = dict(zip(TRAIN_CLASSES, TRAIN_COLORS.tolist(), strict=True))
    hues = ((c * (5**0.5 - 1) / 2) % 1 for c in range(len(classes)))
    drawn = ([round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.75, 0.85)] for hue in hues)
    return [known.get(name, color) for name, color in zip(classes, drawn, strict=True)]
