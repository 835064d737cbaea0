"""Photographs and videos in, label maps out: what `vistalib predict` and a script (`vistalib.predict`) both call.

Files and folders become photographs and videos, each with a name for its results; each is labelled, drawn and written.
Letters: C = classes, H, W = a photograph or a frame as read.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistalib.data import open_video, read_image, writing_video
from vistalib.evaluate import MULTI_SCALES, Window, mode_name, predict_labels
from vistalib.files import replacing
from vistalib.progress import progress
from vistalib.recipes import TrainedModel, open_model
from vistalib.viz import beneath, legend, overlay

OTHER = "other"  # outputs that stand for no class: released models have 150 and 19 classes
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
RESULTS = LABELS, OVERLAY, VIDEO = "_labels.png", "_overlay.jpg", "_overlay.mp4"


@dataclass(frozen=True)
class Photograph:
    """A photograph or a video, and where its results go: a path to which `LABELS`, `OVERLAY` or `VIDEO` is appended."""

    path: Path
    results: Path

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS

    def result(self, ending: str) -> Path:
        """The path of one result."""
        return self.results.with_name(self.results.name + ending)


@dataclass(frozen=True)
class Labelled:
    """What became of one file: its size (H, W), the time its labels took, the pixels of each class, and where the results lie.

    `classes` are the model's, and `OTHER`; `pixels` (C + 1,) are in their order.
    """

    path: Path
    size: tuple[int, int]
    frames: int
    seconds: float
    classes: tuple[str, ...]
    pixels: NDArray[np.int64]
    results: tuple[Path, ...]

    @property
    def shares(self) -> dict[str, float]:
        """The share of all pixels that each class has, to six digits."""
        return dict(zip(self.classes, (self.pixels / self.pixels.sum()).round(6).tolist(), strict=True))

    def facts(self) -> str:
        """Size, height first as everywhere, and time, in words."""
        height, width = self.size
        if self.frames == 1:
            return f"{height}x{width}, {self.seconds:.2f} s"
        return f"{height}x{width}, {self.frames} frames, {self.seconds / self.frames:.2f} s each"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "path": str(self.path),
            "width": self.size[1],
            "height": self.size[0],
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "shares": self.shares,
            "results": [str(path) for path in self.results],
        }


class CannotLabel(ValueError):
    """What was asked for cannot be done, whatever the photographs show."""


class NotAllLabelled(ValueError):
    """Some files could not be labelled, for `reasons` by their paths; `labelled` are the records of the others."""

    def __init__(self, labelled: list[Labelled], reasons: dict[str, str]) -> None:
        others = ", the others are done" if labelled else ""
        lines = "\n".join(f"  {reason}" for reason in reasons.values())
        super().__init__(f"{len(reasons)} of {len(reasons) + len(labelled)} could not be labelled{others}:\n{lines}")
        self.labelled = labelled
        self.reasons = reasons


def predict(
    photographs: str | Path | Sequence[str | Path],
    *,
    weights: str | Path | None = None,
    out: str | Path = "predictions",
    device: str | None = None,
    mode: Literal["whole", "slide"] = "whole",
    multi_scale: bool = False,
    size: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
) -> list[Labelled]:
    """Label photographs, videos and folders of them; write label maps and pictures into `out`, and return what was done.

    `weights` are whatever `vistalib.models.locate` finds (default: the newest run in ./runs and ./demo). Of a photograph NAME
    there will be NAME_labels.png, class indices with the classes' colours as palette, and NAME_overlay.jpg with a legend; of a
    video NAME_overlay.mp4, without sound. `device` None is the GPU where there is one. The rest is said in `viewing`.

    Raises `CannotLabel` before anything is done, `ValueError` for weights and devices, and `NotAllLabelled` in the end, where
    files could not be read: the others are done then.
    """
    paths = [photographs] if isinstance(photographs, str | Path) else photographs
    found = find_photographs([Path(path) for path in paths], Path(out))
    source = weights or newest_run()
    trained = open_model(source, device=device)
    labeller = Labeller(trained, viewing(trained, mode=mode, multi_scale=multi_scale, size=size, crop=crop))
    print(f"model: {source}{'' if weights else ', the newest run here'}; {len(trained.classes)} classes, {labeller.mode()}")
    labelled, reasons = list[Labelled](), dict[str, str]()
    for number, photograph in enumerate(found, 1):
        # Said before, since a large photograph takes a while; a video shows its own progress.
        print(f"[{number}/{len(found)}] {photograph.path}: ", end="\n" if photograph.is_video else "", flush=True)
        try:
            labelled.append(labeller.label(photograph))
        except ValueError as error:
            reasons[str(photograph.path)] = str(error)
            print("cannot be labelled", flush=True)
        else:
            print(labelled[-1].facts(), flush=True)
    if reasons:
        raise NotAllLabelled(labelled, reasons)
    return labelled


def viewing(
    trained: TrainedModel,
    *,
    mode: Literal["whole", "slide"] = "whole",
    multi_scale: bool = False,
    size: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """How images are shown to a model: the keyword arguments of `predict_labels` and `evaluate_dataset`.

    `mode` is the whole image at once, or a window of `crop` that slides over it by two thirds of its size (default: half of the
    model's box, as in training). `multi_scale` averages over six scales and their mirror images. An image is fitted into `size`
    (default: that of the model). Both sizes are (height, width). `CannotLabel` for sizes that will not do.
    """
    if crop is not None and mode != "slide":
        raise CannotLabel(f"crop is the size of the sliding window, got {crop} without one; add mode='slide', or --mode slide")
    if min(*(size or (1, 1)), *(crop or (1, 1))) < 1:
        raise CannotLabel(
            f"size and crop must be at least 1 pixel, got {size} and {crop}; leave them out for those of the model"
        )
    width, height = trained.scale
    window = crop or (max(1, height // 2), max(1, width // 2))
    return {
        "scale": trained.scale if size is None else size[::-1],
        "scales": MULTI_SCALES if multi_scale else (1.0,),
        "flip": multi_scale,
        "window": Window(window, (round(window[0] * 2 / 3), round(window[1] * 2 / 3))) if mode == "slide" else None,
    }


def newest_run() -> Path:
    """The run in ./runs, or the finetuned one in ./demo, that was written last; `CannotLabel` where there is none."""
    written = [*Path("runs").glob("*/checkpoints/index.json"), *Path("demo/runs").glob("finetune/checkpoints/index.json")]
    if not written:
        raise CannotLabel(
            "predict needs a trained model, and there is none in ./runs or ./demo; name one with --weights (weights=...), "
            "or make one in ten minutes: vistalib demo"
        )
    return max(written, key=lambda index: index.stat().st_mtime).parent.parent


def find_photographs(given: Sequence[Path], out: Path) -> list[Photograph]:
    """The files `given`, and those in the folders given and in their folders, sorted and each once; results go below `out`.

    There they lie as the photographs lie below the deepest folder that holds everything given, so that photographs of one
    name in two folders stay apart. Results are named without the suffix, unless that would make two alike. In folders,
    hidden files and what lies in `out`, as results of before do, are left out. `CannotLabel` for a folder without
    photographs, for a run's folder, and when a result would replace a photograph.
    """
    files = {Path(os.path.abspath(file)): file for path in given for file in _files(path, out)}
    folders = [os.path.abspath(path if path.is_dir() else path.parent) for path in given]
    try:
        base = os.path.commonpath(folders)
    except ValueError:
        raise CannotLabel("the photographs of one call must lie on one drive, got several; make a call for each") from None
    names = {file: file.relative_to(base) for file in files}
    times = Counter(name.with_suffix("") for name in names.values())
    found = [
        Photograph(file, out / (name if times[name.with_suffix("")] > 1 else name.with_suffix("")))
        for file, name in zip(files.values(), names.values(), strict=True)
    ]
    for photograph in found:
        for result in map(photograph.result, RESULTS):
            if Path(os.path.abspath(result)) in files:
                raise CannotLabel(f"results must not replace photographs, and {result} is one; give another out (--out)")
    return found


def _files(path: Path, out: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    if (path / "checkpoints").is_dir():
        raise CannotLabel(
            f"photographs are wanted, and {path} is the folder of a trained run; give it as weights (--weights {path})"
        )
    results = Path(os.path.abspath(out))
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in PHOTOGRAPHS + VIDEOS
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and results not in Path(os.path.abspath(file)).parents
        and file.is_file()
    ]
    if not files:
        raise CannotLabel(
            f"{path} must hold photographs or videos outside {out}, got none; they end in {', '.join(PHOTOGRAPHS + VIDEOS)}"
        )
    yield from files


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
        return f"images fitted into {height}x{width}, {mode_name(**mode)}"

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
        return Labelled(photograph.path, labels.shape, 1, seconds, self.names, pixels, results)

    def _video(self, photograph: Photograph) -> Labelled:
        """Frame by frame; the legend has all classes, as those of a video are known at its end only."""
        target, total, count, seconds = photograph.result(VIDEO), self._pixels(np.empty((0, 0), np.uint8)), 0, 0.0
        with open_video(photograph.path) as video, writing_video(target, fps=video.fps) as append:
            card = legend(self.trained.classes, self.trained.colors, size=video.size)
            for frame in progress(video.frames, photograph.path.name, total=video.announced):
                labels, took = self._labels(frame)
                append(beneath(overlay(frame, labels, self.trained.colors), card))
                total, count, seconds = total + self._pixels(labels), count + 1, seconds + took
        return Labelled(photograph.path, video.size, count, seconds, self.names, total, (target,))

    def _labels(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        began = time.perf_counter()
        labels = predict_labels(self.trained.model, image, **self.viewed)
        return labels, time.perf_counter() - began

    def _pixels(self, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        counts = np.bincount(labels.ravel(), minlength=256)
        known = len(self.trained.classes)
        return np.append(counts[:known], counts[known:].sum())  # (C + 1,)
