"""One photograph or one video: labelled, drawn, written. The part of `vistalib predict` that needs the rooms.

Letters: C = classes, H, W = a photograph or a frame as read.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistalib.cli.photographs import LABELS, OVERLAY, PHOTOGRAPHS, VIDEO, VIDEOS, Photograph
from vistalib.data import open_video, read_image, writing_video
from vistalib.evaluate import mode_name, predict_labels
from vistalib.files import replacing
from vistalib.progress import progress
from vistalib.recipes import TrainedModel
from vistalib.viz import beneath, legend, overlay

OTHER = "other"  # outputs that stand for no class: released models have 150 and 19 classes


@dataclass(frozen=True)
class Labelled:
    """What became of one file: its size, the time its labels took, the pixels of each class and of `OTHER` (C + 1,)."""

    path: Path
    size: tuple[int, int]
    frames: int
    seconds: float
    pixels: NDArray[np.int64]
    results: tuple[Path, ...]

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain values for a JSON file."""
        shares = (self.pixels / self.pixels.sum()).round(6).tolist()
        return {
            "path": str(self.path),
            "width": self.size[1],
            "height": self.size[0],
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "shares": dict(zip(names, shares, strict=True)),
            "results": [str(path) for path in self.results],
        }


class Labeller:
    """A model, and how images are shown to it: the keyword arguments of `predict_labels`."""

    def __init__(self, trained: TrainedModel, viewed: dict[str, Any]) -> None:
        self.trained = trained
        self.viewed = viewed
        self.names = (*trained.classes, OTHER)
        self.colors = np.vstack([trained.colors, np.full((1, 3), 255, np.uint8)])  # (C + 1, 3)

    def mode(self) -> str:
        """How images are shown to the model, in words."""
        mode = dict(self.viewed)
        width, height = mode.pop("scale")
        return f"images fitted into {width}x{height}, {mode_name(**mode)}"

    def label(self, photograph: Photograph) -> Labelled:
        """Label one file and write its results; `ValueError` when it cannot be read."""
        if photograph.is_video:
            return self._video(photograph)
        if photograph.path.suffix.lower() in PHOTOGRAPHS:
            return self._photograph(photograph)
        raise ValueError(
            f"{photograph.path} must end as a photograph ({' '.join(PHOTOGRAPHS)}) or as a video ({' '.join(VIDEOS)}), "
            f"got {photograph.path.suffix or 'no ending'}; convert it"
        )

    def _photograph(self, photograph: Photograph) -> Labelled:
        image = read_image(photograph.path)  # (H, W, 3)
        labels, seconds = self._labels(image)
        pixels = self._pixels(labels)
        stored = Image.fromarray(labels)
        stored.putpalette(self.trained.colors.tobytes().ljust(3 * 256, b"\0"))
        with replacing(photograph.result(LABELS)) as beside:
            stored.save(beside)
        present = [c for c in np.argsort(-pixels) if pixels[c]]
        notes = [f"{100 * pixels[c] / labels.size:.1f}%" for c in present]
        card = legend([self.names[c] for c in present], self.colors[present], size=labels.shape, notes=notes)
        picture = beneath(overlay(image, labels, self.trained.colors), card)
        with replacing(photograph.result(OVERLAY)) as beside:
            Image.fromarray(picture).save(beside, quality=92, subsampling=0)  # sharp edges in colour
        results = (photograph.result(LABELS), photograph.result(OVERLAY))
        return Labelled(photograph.path, labels.shape, 1, seconds, pixels, results)

    def _video(self, photograph: Photograph) -> Labelled:
        """Frame by frame; the legend has all classes, as those of a video are known at its end only."""
        target, total, count, seconds = photograph.result(VIDEO), self._pixels(np.empty((0, 0), np.uint8)), 0, 0.0
        with open_video(photograph.path) as video, writing_video(target, fps=video.fps) as append:
            card = legend(self.trained.classes, self.trained.colors, size=video.size)
            for frame in progress(video.frames, photograph.path.name, total=video.announced):
                labels, took = self._labels(frame)
                append(beneath(overlay(frame, labels, self.trained.colors), card))
                total, count, seconds = total + self._pixels(labels), count + 1, seconds + took
        return Labelled(photograph.path, video.size, count, seconds, total, (target,))

    def _labels(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        began = time.perf_counter()
        labels = predict_labels(self.trained.model, image, **self.viewed)
        return labels, time.perf_counter() - began

    def _pixels(self, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        counts = np.bincount(labels.ravel(), minlength=256)
        known = len(self.trained.classes)
        return np.append(counts[:known], counts[known:].sum())  # (C + 1,)
