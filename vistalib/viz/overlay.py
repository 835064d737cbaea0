"""Label maps as pictures: colours, overlays, mistakes, and the triptych image / truth / prediction.

Images are RGB uint8 (H, W, 3), label maps integers (H, W), colours uint8 (C, 3) in the order of the classes. Every label
outside 0 .. C-1, the ignored 255 above all, has no colour: `colorize` makes it black, `overlay` leaves the photograph alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vistalib.viz.style import MUTED, WIDTH, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.integer[Any]]


def colorize(label: Labels, colors: Pixels) -> Pixels:
    """The label map (H, W) in the colours (C, 3) of its classes, (H, W, 3) uint8; labels outside the table are black."""
    table = np.vstack([np.asarray(colors, np.uint8), np.zeros((1, 3), np.uint8)])
    known = _known(label, len(colors))
    return np.take(table, label if known.all() else np.where(known, label, len(colors)), axis=0)  # (H, W, 3)


def overlay(image: Pixels, label: Labels, colors: Pixels, *, alpha: float = 0.55) -> Pixels:
    """The photograph (H, W, 3) under its label map (H, W), mixed with weight `alpha` in [0, 1].

    Ignored pixels stay as they are. Raises `ValueError` when the sizes of image and label map differ.
    """
    import cv2

    _check_sizes(image, label=label)
    mixed = np.asarray(cv2.addWeighted(image, 1 - alpha, colorize(label, colors), alpha, 0), np.uint8)
    unknown = ~_known(label, len(colors))
    mixed[unknown] = image[unknown]
    return mixed


def wrong_pixels(target: Labels, prediction: Labels, *, num_classes: int) -> NDArray[np.bool_]:
    """Where the prediction (H, W) differs from a truth (H, W) that is not ignored."""
    _check_sizes(target, prediction=prediction)
    wrong: NDArray[np.bool_] = _known(target, num_classes) & (np.asarray(target) != np.asarray(prediction))
    return wrong


def triptych(
    image: Pixels, target: Labels, prediction: Labels, *, classes: Sequence[str], colors: Pixels, title: str = "prediction"
) -> "Figure":
    """Photograph (H, W, 3), truth and prediction (H, W) side by side, with a legend of the classes that occur in either.

    `title` heads the prediction. Raises `ValueError` when sizes differ.
    """
    _check_sizes(image, target=target, prediction=prediction)
    present = [c for c in range(len(classes)) if (target == c).any() or (prediction == c).any()]
    rows = -(-len(present) // 7)
    with styled():
        from matplotlib.patches import Patch

        figure = new_figure(WIDTH, WIDTH / 3 * image.shape[0] / image.shape[1] + 0.5 + 0.24 * rows)
        panels = (("image", image), ("truth", colorize(target, colors)), (title, colorize(prediction, colors)))
        for axes, (name, picture) in zip(figure.subplots(1, 3), panels, strict=True):
            axes.imshow(picture, interpolation="none")
            axes.set_title(name)
            axes.set_axis_off()
        swatches = [Patch(facecolor=colors[c] / 255, edgecolor=MUTED, linewidth=0.4, label=classes[c]) for c in present]
        columns = max(1, min(7, len(present)))
        figure.legend(handles=swatches, loc="outside lower center", ncols=columns, handlelength=1, handleheight=1)
    return figure


def _known(label: Labels, num_classes: int) -> NDArray[np.bool_]:
    return (np.asarray(label) >= 0) & (np.asarray(label) < num_classes)


def _check_sizes(image: NDArray[Any], **labels: Labels) -> None:
    for name, label in labels.items():
        if image.shape[:2] != label.shape:
            raise ValueError(
                f"{name} must have the height and width of what it lies on, got {label.shape} on {image.shape[:2]}; "
                "resize the label map without interpolation"
            )
