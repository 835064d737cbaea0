"""Opening a trained model to use it: what its weights say of themselves, completed by what street scenes have in common."""

import colorsys
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vistalib.data import IGNORE_INDEX, TRAIN_CLASSES, TRAIN_COLORS
from vistalib.models import Segmentor, from_pretrained
from vistalib.models.released_files import RELEASED_OUTPUTS
from vistalib.recipes.run import usable_device

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


def open_model(source: str | Path, *, device: str | None = None, classes: Sequence[str] = ()) -> TrainedModel:
    """Open the model that `source` names (see `vistalib.models.locate`), ready to predict.

    Where neither the weights nor their name say what the outputs stand for, it is `classes`; without any, a model of 19
    outputs is taken to know those of Cityscapes, others get numbers for names, and standard error says so. `device` None is
    the GPU where there is one. Raises `ValueError` for what is no whole model, for more classes than outputs, and for more
    outputs than label maps hold, and for a device that torch cannot use.
    """
    device = usable_device(device)
    model = from_pretrained(source)
    assert model.config is not None  # from_pretrained tells how it built the model
    outputs = model.config.num_classes
    if outputs > IGNORE_INDEX:
        raise ValueError(
            f"a model must have at most {IGNORE_INDEX} outputs, as many as a byte of a label map tells apart, got {outputs} in "
            f'{source}; keep the first: create_model("{model.config.model}", {IGNORE_INDEX}, pretrained=..., classes="slice")'
        )
    named = model.config.classes or tuple(classes) or _guessed_classes(source, outputs)
    if len(named) > outputs:
        raise ValueError(f"classes must be at most the {outputs} outputs of {source}, got {len(named)}; give others")
    colors = np.array(model.config.colors or _usual_colors(named), np.uint8).reshape(-1, 3)
    return TrainedModel(model.to(device).eval(), named, colors, model.config.scale or RELEASED_SCALE, device)


def _guessed_classes(source: str | Path, num_classes: int) -> tuple[str, ...]:
    """What outputs that nobody named are called, after saying so."""
    if num_classes == len(TRAIN_CLASSES):
        guess, taken = TRAIN_CLASSES, f"they are taken to be the {num_classes} classes of Cityscapes"
    else:
        guess, taken = tuple(f"class {c}" for c in range(num_classes)), "they get numbers for names"
    repair = f"save_pretrained(from_pretrained({str(source)!r}), FOLDER, classes=[...]) of vistalib.models names them in FOLDER"
    if num_classes == RELEASED_OUTPUTS:
        repair += "; a released file must have its dataset in its name: ..._ade20k.pth, ..._cityscapes.pth or ..._mapillary.pth"
    print(f"{source} does not say what its {num_classes} outputs stand for: {taken}; {repair}", file=sys.stderr)
    return guess


def _usual_colors(classes: Sequence[str]) -> list[list[int]]:
    """The colours of Cityscapes for its classes; for others hues a golden section apart, so that neighbours differ."""
    known = dict(zip(TRAIN_CLASSES, TRAIN_COLORS.tolist(), strict=True))
    hues = ((c * (5**0.5 - 1) / 2) % 1 for c in range(len(classes)))
    drawn = ([round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.75, 0.85)] for hue in hues)
    return [known.get(name, color) for name, color in zip(classes, drawn, strict=True)]
