"""Whole models on a GPU, for tools/gpu.py: training steps and inference, ours and others', in one run.

A step is the one that training takes (`vistalib.train`): forward, losses, backward, gradient norm, clipping, AdamW, in bfloat16
with the settings of the released recipe, on a batch that lies on the device. It is measured in eager mode by every operator
there is, then ours in variants: weights in channels-last memory, as a CUDA graph, compiled, both; eager and as a graph in the
fast tier of our kernels, too. What a variant refuses is told in its row. Inference is of whole images.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from typing import NamedTuple

import torch
from gpu_part import FAST, Budget, Record, attempt, backend_of
from torch.utils.flop_counter import FlopCounterMode

from vistalib.bench.baselines import Implementation
from vistalib.bench.model import CLASSES, OURS, contestants, formulation
from vistalib.bench.parts import by_part
from vistalib.bench.timing import seconds, spread
from vistalib.evaluate import MULTI_SCALES
from vistalib.models import Segmentor, create_model
from vistalib.recipes import get_recipe
from vistalib.train.guard import FiniteGuard
from vistalib.train.precision import float32_products
from vistalib.train.step import Stepper, make_optimizer, train_mode

RECIPE = "upernet_internimage_l_512x1024_80k_mapillary"
UNMOVED = 1e-12  # a rate that changes no weight
EAGER, GRAPH = "eager", "graph"
# name: whether weights are in channels-last memory, and what the settings of the training say
VARIANTS: dict[str, tuple[bool, Record]] = {
    EAGER: (False, {}),
    "channels last": (True, {}),
    GRAPH: (True, {"cuda_graphs": True}),
    "compiled": (True, {"compile": True}),
    "compiled, graph": (True, {"compile": True, "cuda_graphs": True}),
}
QUICK, COMPILED = ("channels last", GRAPH), ("compiled", "compiled, graph")
LONGEST = 4.0  # seconds of one row's timed calls, where three took that long
LEAST = 3  # timed calls
COMPILING = 150.0  # seconds that must be left to begin with compiling


class Sizes(NamedTuple):
    """What is measured: the released training's crop and the evaluation's image on a GPU, something tiny for a rehearsal."""

    models: tuple[str, ...]
    crop: tuple[int, int]
    inference: tuple[str, ...]
    image: tuple[int, int]
    batch: int
    largest: int  # batch beyond which nobody looks
    warmup: int
    repeats: int
    side: int  # of the matrices whose product gives the peak


FULL = Sizes(
    tuple(f"{head}_internimage_{size}" for size in ("l", "xl") for head in ("upernet", "segformer")),
    (512, 1024),
    tuple(f"upernet_internimage_{size}" for size in ("t", "s", "b", "l", "xl")),
    (1024, 2048),
    2, 64, 3, 15, 8192,
)  # fmt: skip
TOY = Sizes(("upernet_internimage_nano",), (64, 64), ("upernet_internimage_nano",), (64, 128), 2, 4, 1, 2, 256)


class Bench:
    """Measures on one device; a row is what was asked for, and its times or the reason why there are none."""

    def __init__(self, device: torch.device, sizes: Sizes) -> None:
        self.device, self.sizes = device, sizes
        self._flops: dict[str, float] = {}  # of an image of each model, by products and convolutions, counted in eager mode

    @cached_property
    def peak(self) -> float:
        """Operations a second of a product of matrices."""
        return multiply_peak(self.device, self.sizes)

    def training(self, budget: Budget) -> Iterator[Record]:
        """Steps of all models: eager by all operators, ours in variants, at the largest batch; then what must be compiled."""
        sizes = self.sizes
        for name in sizes.models:
            for who, one in contestants().items():
                yield self.step(name, sizes.batch, who, one)
            for variant in QUICK:
                yield self.step(name, sizes.batch, variant=variant)
            for variant in (EAGER, GRAPH):
                yield self.step(name, sizes.batch, FAST, variant=variant)
            yield self.step(name, self._largest(name), variant="channels last") | {"largest_that_fits": True}
        rehearsal = self.device.type == "cpu"  # in which compiling would take longer than all the rest
        with torch.compiler.set_stance("force_eager" if rehearsal else "default"):
            for name, variant in product(sizes.models, COMPILED):
                if budget.left < COMPILING:
                    return
                yield self.step(name, sizes.batch, variant=variant)

    def step(
        self, name: str, batch: int, who: str = OURS, one: Implementation | None = None, *, variant: str = EAGER
    ) -> Record:
        """The row of a step with `batch` images by the operator `one`, or by ours in a variant, in the tier of `who`."""
        asked = {"model": name, "operator": who, "variant": variant, "batch": batch, "crop": list(self.sizes.crop)}
        with backend_of(who):
            row = attempt(partial(self._timed_step, name, batch, one, variant), self.device)
        return asked | {"precision": "bf16"} | row

    def _timed_step(self, name: str, batch: int, one: Implementation | None, variant: str) -> Record:
        with formulation(one), float32_products("bf16"):
            call = self._call(name, batch, variant)
            reset_peak_memory(self.device)
            if variant == EAGER and name not in self._flops:
                with FlopCounterMode(display=False) as counted:
                    call()
                self._flops[name] = counted.get_total_flops() / batch
            times = self._times(call, self.sizes.warmup)
            memory = peak_memory(self.device)
            parts = [by_part(call, self.device), by_part(call)] if variant == EAGER and one is None else []
        if variant in COMPILED:
            torch.compiler.reset()
        median, flops = spread(times)["median"], batch * self._flops.get(name, 0.0)
        row: Record = {
            "seconds": spread(times),
            "repeats": len(times),
            "images_per_second": batch / median,
            "peak_memory_bytes": memory,
            "multiply_flops": flops,
            "share_of_multiply_peak": flops / median / self.peak,
        }
        if parts:  # where the device is not busy, it waits for the host, which takes its own time to start kernels
            device, host = parts
            row |= {"parts": device, "host_parts": host, "share_busy": sum(device.values()) / median}
        return row

    def _call(self, name: str, batch: int, variant: str) -> Callable[[], object]:
        """A training step of a new model with random weights."""
        channels_last, changes = VARIANTS[variant]
        device, crop = self.device, self.sizes.crop
        settings = replace(get_recipe(RECIPE).settings, precision="bf16", learning_rate=UNMOVED, **changes)
        model = self._model(name)
        if channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs
        train_mode(model, settings)
        step = Stepper(model, make_optimizer(model, settings), settings, FiniteGuard(device))
        images = {
            "image": torch.randn(batch, 3, *crop, device=device),
            "label": torch.randint(CLASSES, (batch, *crop), device=device),
            "sample": torch.arange(batch),
        }
        return partial(step, images, 0)

    def _model(self, name: str) -> Segmentor:
        torch.manual_seed(0)
        with self.device:
            model = create_model(name, num_classes=CLASSES)
            model.backbone.init_weights()  # so that offsets are not all zero
        return model

    def _largest(self, name: str) -> int:
        """The largest batch that fits, doubling from the usual one."""

        def twice(batch: int) -> Record:
            call = self._call(name, batch, "channels last")
            call(), call()
            return {}

        fitting = self.sizes.batch
        while 2 * fitting <= self.sizes.largest and "failed" not in attempt(partial(twice, 2 * fitting), self.device):
            fitting *= 2
        return fitting

    def inference(self) -> Iterator[Record]:
        """A whole image at a time: plain, and at six scales each with its mirror image, as the released multi-scale test."""
        for who, one in contestants().items():
            for name in self.sizes.inference:
                for scales in ((1.0,), MULTI_SCALES):
                    asked = {"model": name, "operator": who, "image": list(self.sizes.image), "scales": list(scales)}
                    row = attempt(partial(self._inference, name, one, scales), self.device)
                    yield asked | {"flip": len(scales) > 1, "precision": "bf16"} | row

    @torch.inference_mode()
    def _inference(self, name: str, one: Implementation | None, scales: tuple[float, ...]) -> Record:
        model = self._model(name).eval()
        sides = [[32 * round(scale * side / 32) for side in self.sizes.image] for scale in scales]
        images = [torch.randn(1, 3, *each, device=self.device) for each in sides]
        views = [view for image in images for view in ([image] if len(scales) == 1 else [image, image.flip(-1)])]

        def look() -> None:
            for view in views:
                with torch.autocast(self.device.type, torch.bfloat16):
                    model.predict(view)

        with formulation(one), float32_products("bf16"):
            reset_peak_memory(self.device)
            times = self._times(look, 1)
        return {"seconds": spread(times), "repeats": len(times), "peak_memory_bytes": peak_memory(self.device)}

    def _times(self, call: Callable[[], object], warmup: int) -> list[float]:
        """Seconds of some calls; of few where they take long."""
        for _ in range(warmup):
            call()
        times: list[float] = []
        while len(times) < self.sizes.repeats and (len(times) < LEAST or sum(times) < LONGEST):
            times.append(seconds(call, self.device))
        return times


def multiply_peak(device: torch.device, sizes: Sizes) -> float:
    """Operations a second of a bf16 matrix product of random numbers."""
    a, b = (torch.randn(sizes.side, sizes.side, device=device).bfloat16() for _ in range(2))
    for _ in range(3):
        a @ b
    times = [seconds(lambda: a @ b, device) for _ in range(sizes.repeats)]
    return 2 * sizes.side**3 / spread(times)["median"]


def reset_peak_memory(device: torch.device) -> None:
    """Begin to watch the memory of a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that a GPU's tensors took since then."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
