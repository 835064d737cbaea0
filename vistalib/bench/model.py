"""Whole models, ours beside the same architecture as one writes it in PyTorch alone: `vistalib bench model`.

The other side, `grid_sample`, has the same weights and modules, the operator as grid_sample and every convolution of the heads
by its definition, in eager mode. Both get the same numbers, and their logits or gradients are compared before any time counts.
They are timed in turns, and ratios are taken round by round: of wall time, and of processor time, which others who use the
machine disturb far less. Peak memory is that of a fresh process which does nothing but the one call.

An inference is the model's forward in evaluation mode. A step is what training does: forward with the losses at label size,
backward, AdamW. With a single image the pyramid pooling's batch norm keeps its statistics, since one value has none.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any, Literal, get_args
from unittest.mock import patch

import torch
from torch import Tensor

from vistalib.bench.baselines import Implementation, baselines
from vistalib.bench.machine import load
from vistalib.bench.parts import by_part
from vistalib.bench.timing import seconds, spread
from vistalib.bench.workload import Workload, sizes
from vistalib.models import Segmentor, UPerHead, convolution, create_model, list_models
from vistalib.models.variants import BACKBONES
from vistalib.ops import module as layer
from vistalib.ops.definition import split
from vistalib.progress import progress
from vistalib.provenance import peak_memory_mb, provenance
from vistalib.recipes.run import usable_device
from vistalib.train import TrainSettings, parameter_groups

Way = Literal["forward", "step"]
WAYS: tuple[Way, ...] = get_args(Way)
PRECISIONS = ("float32", "bfloat16")
OURS, REFERENCE = "ours", "grid_sample"
CLASSES = 150  # what was released
# Relative L2 distance of logits, and of gradients, which batch norm over few values makes so uncertain that the same step twice
# is 0.006 apart on a tiny image; something else is about 1 away.
AGREES = {"forward": {"float32": 1e-3, "bfloat16": 0.1}, "step": {"float32": 0.05, "bfloat16": 0.5}}
Record = dict[str, Any]
Call = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True)
class ModelSettings:
    """What to measure: every model, forward and training step, on `images` images of `crop` (HEIGHTxWIDTH).

    Models are named in full, or by a size: "t" stands for "upernet_internimage_t". `precision` bfloat16 is by autocast.
    `profile` adds one call of each under PyTorch's profiler, `memory` one in a fresh process. Raises `ValueError` for what does
    not exist.
    """

    device: str = "cpu"
    models: tuple[str, ...] = ("upernet_internimage_t",)
    crop: str = "512x1024"
    images: int = 1
    directions: tuple[Way, ...] = WAYS
    precision: str = "float32"
    repeats: int = 3
    threads: int | None = None
    seed: int = 0
    memory: bool = True
    profile: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        usable_device(self.device)
        names = {size: f"upernet_internimage_{size}" for size in BACKBONES}
        object.__setattr__(self, "models", tuple(names.get(name, name) for name in self.models))
        sizes(self.crop, "HEIGHTxWIDTH")
        chosen = {"models": (self.models, list_models()), "directions": (self.directions, WAYS)}
        for name, (got, allowed) in (chosen | {"precision": ((self.precision,), PRECISIONS)}).items():
            if not got or any(one not in allowed for one in got):
                raise ValueError(f"{name} must be among {', '.join(allowed)}, got {', '.join(got) or 'none'}")
        for name in ("images", "repeats", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class ModelBench:
    """One run: `run` gives the record."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings, self.device = settings, torch.device(settings.device)
        self.load = load()  # before this run makes its own

    def run(self) -> Record:
        """Measure everything."""
        began, settings = time.perf_counter(), self.settings
        before = torch.get_num_threads()
        torch.set_num_threads(settings.threads or before)
        try:
            cases = [(model, way) for model in settings.models for way in settings.directions]
            rows = [row for model, way in progress(cases, "bench model") for row in self._measure(model, way)]
            facts = provenance()
        finally:
            torch.set_num_threads(before)
        return {
            "facts": facts,
            "settings": asdict(settings),
            "machine": {"load_before": self.load},
            "rows": rows,
            "seconds": time.perf_counter() - began,
        }

    def _measure(self, name: str, way: Way) -> Iterator[Record]:
        """One row for each contestant."""
        everyone = contestants()
        memory = {who: self._peak_memory(name, way, who) for who in everyone}
        call = make_call(name, way, self.settings)
        with formulation(everyone[REFERENCE]):
            expected = [tensor.clone() for tensor in call()]
        trials: dict[str, Callable[[], tuple[float, float]]] = {}
        errors, parts = {}, {}
        for who, one in everyone.items():
            with formulation(one):
                errors[who] = _distance(call(), expected)
                parts[who] = by_part(call, self.device) if self.settings.profile else None
            trials[who] = _timed(call, one, self.device)
            if not errors[who] <= AGREES[way][self.settings.precision]:
                raise ArithmeticError(f"{who} must compute what {REFERENCE} does, got a relative distance of {errors[who]:.2g}")
        times: dict[str, list[tuple[float, float]]] = {who: [] for who in trials}
        for turn in range(self.settings.repeats):
            for who in _turned(list(trials), turn):
                times[who].append(trials[who]())
        for who, taken in times.items():
            wall, processor = (list(column) for column in zip(*taken, strict=True))
            theirs = [list(column) for column in zip(*times[REFERENCE], strict=True)]
            yield {
                "model": name,
                "crop": self.settings.crop,
                "images": self.settings.images,
                "direction": way,
                "implementation": who,
                "error": errors[who],
                "time": spread(wall),
                "processor_time": spread(processor),
                "ratio": spread([a / b for a, b in zip(theirs[0], wall, strict=True)]),
                "processor_ratio": spread([a / b for a, b in zip(theirs[1], processor, strict=True)]),
                "peak_memory_mb": memory[who],
                "seconds": wall,
                "processor_seconds": processor,
                "parts": parts[who],
            }

    def _peak_memory(self, name: str, way: Way, who: str) -> float | None:
        if not self.settings.memory:
            return None
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            return fresh.submit(peak_memory, name, way, who, self.settings).result()


def contestants() -> dict[str, Implementation | None]:
    """Ours first, then the grid_sample form, then the released operator where it can be imported and runs."""
    names = (REFERENCE, "DCNv3") if torch.cuda.is_available() else (REFERENCE,)
    return {OURS: None} | {one.name: one for one in baselines()[0] if one.name in names}


@contextmanager
def formulation(one: Implementation | None) -> Iterator[None]:
    """Every model as its definition meanwhile, with another's operator, softmax outside; None leaves it ours."""

    def theirs(value: Tensor, offset: Tensor, mask: Tensor, *, groups: int, offset_scale: float, **_: Any) -> Tensor:
        assert one is not None
        images, height, width, channels = value.shape
        work = Workload("layer", None, images, height, width, channels, groups, offset_scale)
        weights = split(mask, groups, -1).softmax(-1).flatten(-2).to(value.dtype)
        return one.bind(work, value.device)(*one.adapt(work, value, offset.to(value.dtype), weights))

    if one is None:
        yield
    else:
        with patch.object(layer, "dcnv3", theirs), patch.object(convolution, "written_out", lambda x: True):
            yield


def make_call(name: str, way: Way, settings: ModelSettings) -> Call:
    """A model with random weights and a batch; calling it gives what is to be compared: the logits, or all gradients."""
    torch.manual_seed(settings.seed)
    device, crop = torch.device(settings.device), sizes(settings.crop, "HEIGHTxWIDTH")
    model = create_model(name, num_classes=CLASSES).to(device)
    model.backbone.init_weights()  # so that offsets are not all zero
    image = torch.randn(settings.images, 3, *crop, device=device)
    label = torch.randint(CLASSES, (settings.images, *crop), device=device)
    return _inference(model, image, settings) if way == "forward" else _step(model, image, label, settings)


def _inference(model: Segmentor, image: Tensor, settings: ModelSettings) -> Call:
    model.eval()

    def call() -> Sequence[Tensor]:
        with torch.inference_mode(), _precision(settings):
            return (model(image),)

    return call


def _step(model: Segmentor, image: Tensor, label: Tensor, settings: ModelSettings) -> Call:
    model.train()
    if isinstance(model.decode_head, UPerHead) and len(image) == 1:
        model.decode_head.ppm.eval()
    groups = parameter_groups(model, TrainSettings(iterations=1, learning_rate=1e-9, layer_decay=1.0))  # weights stay, nearly
    optimizer = torch.optim.AdamW(groups, lr=1e-9, fused=True)  # as in a training

    def call() -> Sequence[Tensor]:
        torch.manual_seed(settings.seed)  # the same paths and channels dropped every time
        optimizer.zero_grad(set_to_none=True)
        with _precision(settings):
            losses = model.loss(image, label)
        torch.autograd.backward([value for key, value in losses.items() if "loss" in key])
        optimizer.step()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    return call


def peak_memory(name: str, way: Way, who: str, settings: ModelSettings) -> float:
    """Peak memory of this process in MB after one call, to be asked in a fresh one; on CUDA, what the allocator held."""
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    with formulation(contestants()[who]):
        make_call(name, way, settings)()
    return peak_memory_mb()


def _timed(call: Call, one: Implementation | None, device: torch.device) -> Callable[[], tuple[float, float]]:
    def timed() -> tuple[float, float]:
        with formulation(one):
            began = time.process_time()
            wall = seconds(call, device)
            return wall, time.process_time() - began

    return timed


def _precision(settings: ModelSettings) -> Any:
    kind = torch.device(settings.device).type
    return nullcontext() if settings.precision == "float32" else torch.autocast(kind, torch.bfloat16)


def _turned(names: list[str], turn: int) -> list[str]:
    """Each round begins with another one."""
    place = turn % len(names)
    return names[place:] + names[:place]


def _distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Relative L2 distance of all tensors together."""
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(found, expected, strict=True))
    return float((apart / sum(float(b.double().square().sum()) for b in expected)) ** 0.5)
