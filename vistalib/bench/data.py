"""The loader, ours beside the released pipeline in its own order: `vistalib bench data`.

All get the same files and make the same draws, and where the bytes should be the same they are compared before any time
counts. They run in as many processes as training has, in turns, and ratios are taken round by round. Another measurement, in
this process alone, says where the processor time of a sample goes. Files are read from the memory that the system keeps of
them: a slow disk is not seen.

The released order maps the labels of Vistas by masks, and those of Cityscapes not at all: that is what the others are held
against. Copies are those of `vistalib data prepare`; where it says "no colour", the last two steps are left to a device, and
what they take there is not counted.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import cv2
import torch
from torch import Tensor

from vistalib.bench import released_order
from vistalib.bench.data_files import FORMS, Form, draw_files
from vistalib.bench.machine import load
from vistalib.bench.released_order import ReleasedOrder
from vistalib.bench.timing import spread
from vistalib.data import (
    Augmentation,
    AugmentationSettings,
    Prepared,
    StreetDataset,
    TrainLoader,
    augment,
    dataset,
    loader,
    prepare,
    prepared,
    windows,
)
from vistalib.data.dataset import Samples
from vistalib.data.loader import AHEAD
from vistalib.data.prepared import Kind
from vistalib.progress import progress
from vistalib.provenance import provenance

RATIOS: dict[Form, tuple[float, float]] = {"cityscapes": (0.5, 2.0), "vistas": (0.5, 1.0)}  # as released
BATCH = 4
OURS, PLAIN, MASKS = "ours", "released", "released, masks"
CROPS, RAW, JPEG = "ours, no colour", "raw, no colour", "jpeg"  # colours left to a device
REFERENCES: dict[Form, str] = {"cityscapes": PLAIN, "vistas": MASKS}
Record = dict[str, Any]
Start = Callable[[int], Iterator[Any]]  # number of workers -> batches without end
# Stage: the functions that are it. Time in a stage within another counts for the inner one alone.
STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "image": (
        (dataset, "open_image"),
        (windows.PngFile, "__getitem__"),
        (prepared, "read_image"),
        (prepared, "map_pixels"),
        (released_order, "decode_image"),
    ),
    "label": ((StreetDataset, "read_values"), (prepared, "read_label"), (released_order, "decode_label")),
    "map": ((dataset, "open_label"), (windows.MappedLabel, "__getitem__"), (released_order, "map_by_masks")),
    "resize": ((windows.Resized, "__getitem__"), (released_order, "resize")),
    "crop": ((augment, "draw_crop"), (released_order, "crop")),
    "flip": ((augment, "mirror"), (released_order, "mirror")),
    "colour": ((augment, "distort"), (released_order, "distort")),
    "normalise": ((augment, "normalize"), (released_order, "normalize")),
    "collate": ((loader, "collate"), (released_order, "collect")),
}
REST = "rest"


@dataclass(frozen=True)
class DataSettings:
    """What to measure: `images` files of each of `forms`, in `repeats` rounds of `seconds` for everyone, batches of 4 samples.

    `workers` is the number of processes; 0 is this one. Raises `ValueError` for what cannot be measured.
    """

    forms: tuple[Form, ...] = FORMS
    images: int = 4
    seconds: float = 3.0
    repeats: int = 5
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if not self.forms or any(form not in FORMS for form in self.forms):
            raise ValueError(f"forms must be among {', '.join(FORMS)}, got {', '.join(self.forms) or 'none'}")
        for name, least in {"images": 1, "repeats": 1, "workers": 0, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds must be above 0, got {self.seconds}; try 3")


class DataBench:
    """One run: `run` gives the record."""

    def __init__(self, settings: DataSettings) -> None:
        self.settings = settings
        self.load = load()  # before this run makes its own

    def run(self) -> Record:
        """Measure everything, on files that are drawn into a temporary folder."""
        began = time.perf_counter()
        inputs: Record = {}
        rows: list[Record] = []
        with tempfile.TemporaryDirectory() as folder:
            for form in self.settings.forms:
                data = draw_files(form, Path(folder) / form, images=self.settings.images, seed=self.settings.seed)
                inputs[form] = describe(data)
                rows += self._measure(form, data, Path(folder) / f"{form} copies")
        return {
            "facts": provenance(),
            "settings": asdict(self.settings),
            "machine": {"load_before": self.load},
            "inputs": inputs,
            "rows": rows,
            "seconds": time.perf_counter() - began,
        }

    def _measure(self, form: Form, data: StreetDataset, folder: Path) -> Iterator[Record]:
        """One row for each contestant."""
        everyone = contestants(form, data, folder, self.settings.seed)
        compare(everyone)
        stages = {name: self._stages(start) for name, start in everyone.items()}
        speeds: dict[str, list[float]] = {name: [] for name in everyone}
        for turn in progress(range(self.settings.repeats), f"bench data {form}"):
            for place in range(len(everyone)):  # each round begins with another one
                name = list(everyone)[(turn + place) % len(everyone)]
                speeds[name].append(self._speed(everyone[name]))
        for name, speed in speeds.items():
            yield {
                "form": form,
                "contestant": name,
                "speed": spread(speed),
                "ratio": spread([a / b for a, b in zip(speed, speeds[REFERENCES[form]], strict=True)]),
                "processor_seconds": sum(stages[name].values()),
                "stages": stages[name],
                "limits": max(stages[name], key=stages[name].__getitem__),
                "samples_per_second": speed,
            }

    def _speed(self, start: Start) -> float:
        """Samples a second, from when the processes have handed out what they had made before they were asked."""
        batches = start(self.settings.workers)
        for _ in range(AHEAD * self.settings.workers + 1):
            next(batches)
        seconds, samples = self._take(batches, time.perf_counter)
        return samples / seconds

    def _stages(self, start: Start) -> dict[str, float]:
        """Seconds of processor time that each stage of a sample takes in this process, without help from others."""
        threads, taken = torch.get_num_threads(), dict.fromkeys((*STAGES, REST), 0.0)
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        try:
            with stopwatch(taken):
                batches = start(0)
                next(batches)
                taken.update(dict.fromkeys(taken, 0.0))
                seconds, samples = self._take(batches, time.process_time)
        finally:
            torch.set_num_threads(threads)
            cv2.setNumThreads(-1)
        taken[REST] = seconds - sum(taken.values())
        return {stage: each / samples for stage, each in taken.items()}

    def _take(self, batches: Iterator[Any], clock: Callable[[], float]) -> tuple[float, int]:
        """Seconds by a clock, and samples, of as many batches as a round takes."""
        began, samples = clock(), 0
        while samples == 0 or clock() - began < self.settings.seconds:
            next(batches)
            samples += BATCH
        return clock() - began, samples


def contestants(form: Form, data: StreetDataset, folder: Path, seed: int) -> dict[str, Start]:
    """Everyone who is measured on a form, by name, each as a function of the number of workers; copies are made in `folder`."""
    settings = AugmentationSettings(ratio_range=RATIOS[form])
    copies = {}
    for kind in get_args(Kind):
        prepare(data, folder / kind, kind)
        copies[kind] = Prepared(data, folder / kind)

    def ours(samples: Samples, colors_on: str | None, workers: int) -> Iterator[dict[str, Tensor]]:
        loader = TrainLoader(
            samples, Augmentation(settings), batch_size=BATCH, seed=seed, num_workers=workers, colors_on=colors_on
        )
        return loader.batches() if colors_on is None else loader.handed_out()

    found: dict[str, Start] = {OURS: partial(ours, data, None), CROPS: partial(ours, data, "cpu")}
    for name in dict.fromkeys((PLAIN, REFERENCES[form])):
        found[name] = partial(ReleasedOrder(data, settings, seed=seed, masks=name == MASKS).batches, BATCH)
    return found | {RAW: partial(ours, copies["raw"], "cpu"), JPEG: partial(ours, copies["jpeg"], None)}


def compare(everyone: dict[str, Start]) -> None:
    """Raise unless the released order gives the bytes that ours gives: times of something else would say nothing."""
    expected = list(islice(everyone[OURS](0), 2))
    for name in everyone.keys() & {PLAIN, MASKS}:
        for (image, label), batch in zip(everyone[name](0), expected, strict=False):
            if not (torch.equal(image, batch["image"]) and torch.equal(label, batch["label"])):
                raise ArithmeticError(f"{OURS} must give the bytes that {name} gives")


@contextmanager
def stopwatch(taken: dict[str, float]) -> Iterator[None]:
    """Add the processor time of every stage to `taken`, meanwhile."""
    inner: list[float] = []

    def watched(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            inner.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                whole = time.process_time() - began
                taken[stage] += whole - inner.pop()
                if inner:
                    inner[-1] += whole

        return call

    with ExitStack() as patches:
        for stage, places in STAGES.items():
            for owner, name in places:
                patches.enter_context(patch.object(owner, name, watched(getattr(owner, name), stage)))
        yield


def describe(data: StreetDataset) -> Record:
    """What the files are like: size in pixels of the first, bytes of all on average."""
    height, width, _ = data.open(0)[0].shape
    images, labels = ([path(i).stat().st_size for i in range(len(data))] for path in (data.image_path, data.label_path))
    return {"width": width, "height": height, "image_bytes": sum(images) / len(data), "label_bytes": sum(labels) / len(data)}
