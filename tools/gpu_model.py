"""Whole models on a GPU, for tools/gpu.py: training steps and inference, by our operator and by those of others in one run."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from vistalib.bench.model import CLASSES, ModelSettings, contestants, formulation, make_call
from vistalib.bench.timing import seconds, spread
from vistalib.models import Segmentor, create_model

Record = dict[str, Any]


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


def multiply_peak(device: torch.device, sizes: Sizes) -> float:
    """Operations a second of a bf16 matrix product of random numbers."""
    a, b = (torch.randn(sizes.side, sizes.side, device=device).bfloat16() for _ in range(2))
    for _ in range(3):
        a @ b
    times = [seconds(lambda: a @ b, device) for _ in range(sizes.repeats)]
    return 2 * sizes.side**3 / sorted(times)[len(times) // 2]


def training(device: torch.device, sizes: Sizes) -> Iterator[Record]:
    """Forward, backward and optimizer at the batch a GPU had when released, and at the largest that fits, ours."""
    peak = multiply_peak(device, sizes)
    for name in sizes.models:
        for who, one in contestants().items():
            with formulation(one):
                yield _step(name, who, sizes.batch, device, sizes, peak)
        batch, fitting = 2 * sizes.batch, sizes.batch
        while batch <= sizes.largest and "failed" not in _step(name, "ours", batch, device, sizes, peak, quick=True):
            fitting, batch = batch, 2 * batch
        yield _step(name, "ours", fitting, device, sizes, peak) | {"largest_that_fits": True}


def _step(name: str, who: str, batch: int, device: torch.device, sizes: Sizes, peak: float, *, quick: bool = False) -> Record:
    row: Record = {"model": name, "operator": who, "batch": batch, "crop": list(sizes.crop), "precision": "bf16"}
    try:
        return row | _timed_step(name, batch, device, sizes, peak, quick)
    except torch.OutOfMemoryError as error:
        return row | {"failed": str(error).splitlines()[0]}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _timed_step(name: str, batch: int, device: torch.device, sizes: Sizes, peak: float, quick: bool) -> Record:
    crop = "x".join(map(str, sizes.crop))
    step = make_call(name, "step", ModelSettings(str(device), (name,), crop, batch, precision="bfloat16"))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with FlopCounterMode(display=False) as counted:  # of matrix products and convolutions; also the first, slow step
        step()
    times = _times(step, device, 1 if quick else sizes.warmup, 1 if quick else sizes.repeats)
    median = spread(times)["median"]
    return {
        "seconds": spread(times),
        "repeats": len(times),
        "images_per_second": batch / median,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "multiply_flops": counted.get_total_flops(),
        "share_of_multiply_peak": counted.get_total_flops() / median / peak,
        "multiply_peak_flops_per_second": peak,
    }


def inference(device: torch.device, sizes: Sizes) -> Iterator[Record]:
    """A whole image at a time: plain, and at six scales each with its mirror image, as the released multi-scale test."""
    for name in sizes.inference:
        torch.manual_seed(0)
        model = create_model(name, num_classes=CLASSES).to(device).eval()
        for who, one in contestants().items():
            with formulation(one):
                for scales in ((1.0,), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)):
                    yield _inference(model, name, who, scales, device, sizes)


def _inference(model: Segmentor, name: str, who: str, scales: tuple[float, ...], device: torch.device, sizes: Sizes) -> Record:
    images = [torch.randn(1, 3, *(32 * round(scale * side / 32) for side in sizes.image), device=device) for scale in scales]
    flips = (False, True) if len(scales) > 1 else (False,)
    row: Record = {"model": name, "operator": who, "image": list(sizes.image), "scales": list(scales), "flip": len(flips) > 1}

    @torch.inference_mode()
    def look() -> None:
        for image in images:
            for flip in flips:
                with torch.autocast(device.type, torch.bfloat16):
                    model.predict(image.flip(-1) if flip else image)

    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        times = _times(look, device, 1, sizes.repeats if len(scales) == 1 else 3)
    except torch.OutOfMemoryError as error:
        return row | {"failed": str(error).splitlines()[0]}
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return row | {"seconds": spread(times), "repeats": len(times), "peak_memory_bytes": memory}


def _times(call: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> list[float]:
    for _ in range(warmup):
        call()
    return [seconds(call, device) for _ in range(repeats)]
