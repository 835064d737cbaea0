"""A recipe for a dataset of one's own: every value follows from the images, the checkpoint and the machine by a plain rule.

`own_recipe` is a function of what was found (`own_facts`) and looks at nothing itself. Rates, layer decay and warm-up are those
of the released finetuning (`released`) and of the demo (`small`). The lengths are a judgement, and stand here as constants. The
costs of the models, for sharing out a batch, were measured: the bytes that autograd keeps for a pixel of the crop, with 19
classes in float32, at 128x256 pixels; those of H and G are scaled by width and depth. Letters: H, W height and width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vistalib.data import AugmentationSettings
from vistalib.data.augment import fitted_size
from vistalib.models.variants import VARIANTS
from vistalib.recipes.machine import Machine
from vistalib.recipes.recipe import Recipe, Source
from vistalib.recipes.released import CROP, LARGE, SCALE
from vistalib.train import TrainSettings

MULTIPLE = 32  # how much smaller than the image the last map is
CPU_SCALE, CPU_CROP = (1024, 512), (192, 384)  # (width, height), (height, width)
TINY_SCALE, TINY_CROP = (512, 288), (192, 256)  # on a CPU: more and smaller crops teach a small network more in the same time
TINY = ("nano", "micro")
EPOCHS, EPOCHS_FROM_SCRATCH = 100, 200
ON_GPU, TINY_ON_CPU, ON_CPU = (1000, 80_000), (500, 3000), (300, 1000)  # least and most iterations
COSTS = {  # size: (million parameters, thousand bytes a pixel)
    "nano": (1, 0.6),
    "micro": (6, 1.5),
    "t": (59, 7.7),
    "s": (80, 9.1),
    "b": (129, 11.5),
    "l": (256, 17.1),
    "xl": (368, 20.9),
    "h": (1120, 40.0),
    "g": (3000, 70.0),
}


@dataclass(frozen=True)
class OwnData:
    """What was found in a folder: its splits, their numbers of images, the classes, and sizes (H, W) of some images."""

    root: Path
    splits: tuple[str, str]
    images: int
    validation: int
    classes: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def usual_size(self) -> tuple[int, int]:
        """The (H, W) of the image in the middle, by area."""
        return sorted(self.sizes, key=lambda size: (size[0] * size[1], size))[len(self.sizes) // 2]


@dataclass(frozen=True)
class OwnStart:
    """What was found in a checkpoint: the model it is of, the classes that its outputs stand for, and what made it."""

    source: str
    model: str
    classes: tuple[str, ...] = ()
    made_by: str | None = None


@dataclass(frozen=True)
class Decision:
    """A choice as a sentence, and the options that change it."""

    text: str
    options: tuple[str, ...]


def own_recipe(data: OwnData, start: OwnStart | None, machine: Machine, *, model: str | None = None) -> Recipe:
    """The recipe for `data` that begins with `start`, or with random weights, on `machine`.

    `model` is one of `list_models()` (default: that of `start`, or a small one); `ValueError` for any other.
    """
    model = model or (start.model if start else f"upernet_internimage_{'nano' if machine.is_cpu else 'micro'}")
    if model not in VARIANTS:
        raise ValueError(f"model must be a name that list_models() gives, got {model!r}; try one of {', '.join(VARIANTS)}")
    size = VARIANTS[model].size
    bounds = (SCALE, CROP) if not machine.is_cpu else (TINY_SCALE, TINY_CROP) if size in TINY else (CPU_SCALE, CPU_CROP)
    scale, crop = _sizes(data, *bounds)
    least, most = ON_GPU if not machine.is_cpu else TINY_ON_CPU if size in TINY else ON_CPU
    batch_size = _batch_size(data.images, 16 if not machine.is_cpu else 8 if size in TINY else 4)
    epochs = EPOCHS if start else EPOCHS_FROM_SCRATCH
    iterations = _round(min(max(epochs * data.images / batch_size, least), most))
    return Recipe(
        name=data.root.resolve().name or "own",
        model=model,
        num_classes=None,
        train=Source("folder", data.splits[0]),
        validation=Source("folder", data.splits[1]),
        augmentation=AugmentationSettings(scale=scale, ratio_range=(0.5, 2.0), crop=crop),
        settings=TrainSettings(
            iterations=iterations,
            learning_rate=_peak_rate(size, start),
            layer_decay=1.0 if size in ("t", "s", "b") else 0.94,
            clip_norm=None if size in ("t", "s", "b") else 1.0 if size in TINY else 0.1,
            warmup_iters=min(1500, iterations // 10),
            precision="auto",
            accumulate=_pieces(model, batch_size, crop, machine),
            log_every=max(1, min(50, iterations // 100)),
            checkpoint_every=iterations // 10,
            evaluate_every=iterations // 10,
        ),
        batch_size=batch_size,
        evaluation_scale=scale,
        starts_from=start.made_by if start else None,
    )


def own_decisions(recipe: Recipe, data: OwnData, start: OwnStart | None, machine: Machine) -> list[Decision]:
    """What `own_recipe` chose, in sentences."""
    settings, (height, width), (h, w) = recipe.settings, data.usual_size, recipe.augmentation.crop
    where = "a CPU" if machine.is_cpu else "a GPU"
    epochs = settings.iterations * recipe.batch_size / data.images
    fitted = recipe.evaluation_scale[::-1]  # height, width
    shown = "as they are" if fitted == (height, width) else f"at {'x'.join(map(str, fitted))}"
    decay = f", {settings.layer_decay} times as fast with every layer below" if settings.layer_decay < 1 else ""
    clip = "are not clipped" if settings.clip_norm is None else f"are clipped at {settings.clip_norm:g}"
    like = "the demo trains" if VARIANTS[recipe.model].size in TINY else "the released recipes train"
    return [
        Decision(
            f"The model is {recipe.model}, for {where}, and starts from {start.source if start else 'random weights'}.",
            ("--model", "--weights"),
        ),
        Decision(_about_classes(data, start), ("--train.map", "--validation.map")),
        Decision(
            f"{data.images} images of {data.splits[0]} are trained on, {data.validation} of {data.splits[1]} are scored on.",
            ("--train.split", "--validation.split"),
        ),
        Decision(
            f"Images are mostly {height}x{width} (height x width) and are shown to the network {shown}; for training they are "
            "half to twice as large.",
            ("--evaluation-size", "--augmentation.size"),
        ),
        Decision(
            f"Crops are {h}x{w}: multiples of {MULTIPLE} that fit into the images, and no more than {where} trains well on.",
            ("--augmentation.crop",),
        ),
        Decision(f"{recipe.batch_size} images make a batch.", ("--batch-size",)),
        Decision(_about_memory(recipe, machine), ("--settings.accumulate",)),
        Decision(
            f"{settings.iterations} iterations show each image about {_few(epochs)} times; --estimate tells how long that is.",
            ("--settings.iterations",),
        ),
        Decision(
            f"The heads learn at a rate of {settings.learning_rate:g} at most{decay}; gradients {clip}: as {like} this size.",
            ("--settings.learning-rate", "--settings.layer-decay", "--settings.clip-norm"),
        ),
        Decision(
            f"The precision is {settings.precision}; auto is bf16 on GPUs that have it, fp16 on others, fp32 on a CPU.",
            ("--settings.precision",),
        ),
        Decision(f"The rate rises over the first {settings.warmup_iters} iterations.", ("--settings.warmup-iters",)),
        Decision(
            f"The model is scored every {settings.evaluate_every} iterations and saved every {settings.checkpoint_every}; the "
            f"last {settings.keep} checkpoints and the best are kept.",
            ("--settings.evaluate-every", "--settings.checkpoint-every", "--settings.keep"),
        ),
    ]


def as_given(decisions: Sequence[Decision], chosen: Recipe, given: Recipe) -> list[Decision]:
    """The decisions about `chosen` where `given` keeps it; where it has another value, that value, as it was asked for."""
    before, now = dict(chosen.options()), dict(given.options())
    told = []
    for decision in decisions:
        changed = [f"{option} {now[option]}" for option in decision.options if before.get(option) != now.get(option)]
        told.append(replace(decision, text=f"As you say: {', '.join(changed)}.") if changed else decision)
    return told


def _sizes(data: OwnData, box: tuple[int, int], most: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The scale (width, height) that images are fitted into, and the crop (height, width) that lies within nine of ten."""
    height, width = data.usual_size
    fits = max(height, width) <= max(box) and min(height, width) <= min(box)
    scale = (width, height) if fits else fitted_size(height, width, box)
    fitted = [fitted_size(*size, scale) for size in data.sizes]  # (width, height)
    short, long = most
    bounds = (long, short) if scale[1] > scale[0] else (short, long)
    h, w = (sorted(size[side] for size in fitted)[len(fitted) // 10] for side in (1, 0))
    return scale, (_multiple(min(h, bounds[0])), _multiple(min(w, bounds[1])))


def _multiple(pixels: int) -> int:
    return max(MULTIPLE, pixels // MULTIPLE * MULTIPLE)


def _batch_size(images: int, most: int) -> int:
    """A power of two, no more than there are images, but two, as batch norm wants them."""
    return int(2 ** math.floor(math.log2(max(2, min(most, images)))))


def _round(iterations: float) -> int:
    """To two digits."""
    step = int(10 ** (math.floor(math.log10(iterations)) - 1))
    return round(iterations / step) * step


def _peak_rate(size: str, start: OwnStart | None) -> float:
    if size in TINY:
        return {"nano": 1.0, "micro": 0.5}[size] * (3e-3 if start else 1e-2)
    return 2e-5 if size in (*LARGE, "h", "g") else 6e-5


def _pieces(model: str, batch_size: int, crop: tuple[int, int], machine: Machine) -> int:
    """Into how many pieces a batch must be cut to fit into the memory; UperNet's batch norm needs two images in each."""
    most = batch_size // (2 if VARIANTS[model].head == "upernet" else 1)
    pieces = 1
    while pieces < most and machine.memory is not None and _bytes(model, batch_size // pieces, crop) > 0.8 * machine.memory:
        pieces *= 2
    return pieces


def _bytes(model: str, images: int, crop: tuple[int, int]) -> float:
    """About the memory of a step: weights, gradients and two moments, and what autograd keeps."""
    parameters, pixel = COSTS[VARIANTS[model].size]
    return parameters * 16e6 + pixel * 1e3 * images * crop[0] * crop[1]


def _few(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def _about_classes(data: OwnData, start: OwnStart | None) -> str:
    known = [name for name in data.classes if start and name in start.classes]
    text = f"The {len(data.classes)} classes are those of {data.root / 'classes.json'}"
    if not known:
        return f"{text}; all begin anew."
    new = [name for name in data.classes if name not in known]
    return f"{text}; the checkpoint knows {', '.join(known)}" + (f"; new are {', '.join(new)}." if new else ".")


def _about_memory(recipe: Recipe, machine: Machine) -> str:
    pieces = recipe.settings.accumulate
    need = _bytes(recipe.model, recipe.batch_size // pieces, recipe.augmentation.crop) / 1e9
    there = "memory that is not known" if machine.memory is None else f"the {machine.memory / 1e9:.0f} GB of memory"
    how = "at once" if pieces == 1 else f"in {pieces} pieces, one after the other"
    short = machine.memory is not None and need > 0.8 * machine.memory / 1e9
    tight = "; that may be too much: a smaller --augmentation.crop or --batch-size needs less" if short else ""
    return f"A batch is computed {how}: about {need:.2g} GB of {there}{tight}."
