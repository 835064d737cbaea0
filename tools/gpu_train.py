"""Real trainings on a GPU, for tools/gpu.py: as long as the time allows, scored on images that were not trained on.

How many iterations that is follows from a short probe (`vistalib.recipes.estimate`). What is reported is the score against the
time of training, that of evaluations left out, and then what only a trained network can show: that bfloat16 gives the same
labels as float32 on a CPU, and how far the offsets reach.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from gpu_agree import label_agreement
from gpu_offsets import offset_histograms
from gpu_part import Budget, Options, Record, attempt

from vistalib.data import AugmentationSettings
from vistalib.evaluate import MULTI_SCALES, evaluate_dataset
from vistalib.models import save_pretrained
from vistalib.recipes import (
    Estimate,
    Recipe,
    Roots,
    RunResult,
    Runtime,
    estimate,
    look_at_folder,
    own_recipe,
    run,
    this_machine,
)
from vistalib.recipes.demo import DemoSettings, Stage, demo_stages, draw_streets
from vistalib.recipes.released import cityscapes, mapillary
from vistalib.train import read_log
from vistalib.train.log import NAME as LOG
from vistalib.train.log import Line

MODEL, TOY_MODEL = "upernet_internimage_t", "upernet_internimage_nano"
SCRATCH, FINETUNE = 1e-3, 3e-4  # rates; the released 6e-5 starts from weights of ImageNet
BATCH = 8  # of streets; photographs come sixteen at a time
AVERAGE = 0.999  # of the weights over steps
PROBE, STARTING, AFTERWARDS = 8.0, 10.0, 45.0  # seconds
EVALUATIONS = 5
SHOWN = 4  # images on which labels and offsets are looked at
STREETS = DemoSettings(vistas=(400, 2), cityscapes=(100, 25), enlarge=4)
TOY_STREETS = DemoSettings(vistas=(2, 1), cityscapes=(2, 2))
SHARES = {"pretrain": 0.5, "finetune": 0.25, "small pretrain": 0.15, "small finetune": 0.1}  # of the time
SMALL = "streets_small"  # folder of the small checkpoint


def train(options: Options) -> Record:
    """InternImage-T from random weights on one's own photographs, in the sizes that `own_recipe` chooses for them."""
    if options.folder is None:
        return {"skipped": "no photographs were given; --folder DIR names data in the folder layout"}
    budget, roots = options.budget(), Roots(folder=options.folder)
    chosen = own_recipe(look_at_folder(options.folder), None, this_machine(options.device.type), model=MODEL)
    recipe = from_random_weights(chosen, SCRATCH)
    result, record = trained(recipe, roots, options, "photographs", seconds=budget.left - AFTERWARDS)
    return record | of_trained(result, recipe, roots, options) | {"multi_scale": multi_scale(result, recipe, roots, options)}


def streets(options: Options) -> Record:
    """Pretrained on drawn streets in the Vistas layout, finetuned on those in the Cityscapes layout: T, then a small model."""
    budget, settings = options.budget(), TOY_STREETS if options.dry_run else STREETS
    roots = draw_streets(options.out / "streets", settings, workers=options.drawers)
    seconds = budget.left - AFTERWARDS
    runs = {
        stage.name: attempt(partial(_stage, stage, roots, options, SHARES[stage.name] * seconds), options.device)
        for stage in street_stages(settings)
    }
    failed = [name for name, found in runs.items() if "failed" in found]
    record: Record = {"images": {"vistas": settings.vistas, "cityscapes": settings.cityscapes}, "runs": runs}
    return record | ({"failed": f"the runs {', '.join(failed)}"} if failed else {})


def street_stages(settings: DemoSettings) -> list[Stage]:
    """The released schedules of T, shortened, then those of the demo's small model at the size of the streets."""
    first = replace(from_random_weights(mapillary("upernet", "t"), SCRATCH), batch_size=BATCH, starts_from=None)
    second = replace(from_random_weights(cityscapes("t"), FINETUNE), batch_size=BATCH, starts_from=first.name)
    return [
        Stage("pretrain", "InternImage-T on Vistas streets", first),
        Stage("finetune", "InternImage-T, finetuned", second, starts_from="pretrain"),
        *(
            replace(stage, name=f"small {stage.name}", starts_from=stage.starts_from and f"small {stage.starts_from}")
            for stage in demo_stages(settings)[:2]
        ),
    ]


def _stage(stage: Stage, roots: Roots, options: Options, seconds: float) -> Record:
    start = None if stage.starts_from is None else options.out / "runs" / stage.starts_from
    result, record = trained(stage.recipe, roots, options, stage.name, seconds=seconds, weights=start)
    if stage.name == "finetune":
        record |= of_trained(result, stage.recipe, roots, options)
    if stage.name == "small finetune":
        record["checkpoint"] = keep_small(result, stage.recipe, roots, options.out / SMALL)
    return record


def from_random_weights(recipe: Recipe, learning_rate: float) -> Recipe:
    """The recipe for a training without a checkpoint from ImageNet: one rate for all layers, weights averaged."""
    settings = replace(
        recipe.settings, learning_rate=learning_rate, layer_decay=1.0, clip_norm=1.0, ema_decay=AVERAGE, precision="auto"
    )
    return replace(recipe, settings=settings)


def trained(
    recipe: Recipe, roots: Roots, options: Options, name: str, *, seconds: float, weights: Path | None = None
) -> tuple[RunResult, Record]:
    """Train for about `seconds`, evaluations among them, into the folder runs/`name`, which is made anew."""
    budget, folder = Budget(seconds), options.out / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    how: Record = {"weights": weights, "runtime": Runtime(options.device.type, options.readers, in_memory=True)}
    if options.dry_run:
        recipe = toy(recipe)
    foretold = estimate(recipe, roots, folder=folder, seconds=0.0 if options.dry_run else PROBE, **how)
    recipe = lasting(recipe, 2 if options.dry_run else iterations_within(budget.left - STARTING, foretold))
    began = time.perf_counter()
    result = run(recipe, roots, folder=folder, **how)
    taken = time.perf_counter() - began
    shutil.copyfile(folder / LOG, options.out / f"{name.replace(' ', '-')}.log.jsonl")
    return result, {
        "recipe": recipe.to_json(),
        "step_seconds": float(np.mean(foretold.step_seconds)),
        "data_seconds": foretold.data_seconds,
        "image_seconds": float(np.mean(foretold.image_seconds)),
        "run_seconds": taken,
        "readers": options.readers,
        "curve": curve(read_log(folder)),
        "mean_iou": result.evaluation.mean_iou,
        "evaluation": result.evaluation.to_json(),
    }


def iterations_within(seconds: float, foretold: Estimate) -> int:
    """How many steps there is time for, beside EVALUATIONS evaluations; a multiple of their number."""
    scoring = EVALUATIONS * foretold.images * float(np.mean(foretold.image_seconds))
    steps = int((seconds - scoring) / float(np.mean(foretold.step_seconds)))
    return EVALUATIONS * max(1, steps // EVALUATIONS)


def lasting(recipe: Recipe, iterations: int) -> Recipe:
    """The recipe with so many iterations."""
    settings = replace(
        recipe.settings,
        iterations=iterations,
        warmup_iters=iterations // 10,
        log_every=max(1, iterations // 100),
        checkpoint_every=iterations,
        evaluate_every=max(1, iterations // EVALUATIONS),
        keep=1,
    )
    return replace(recipe, settings=settings)


def toy(recipe: Recipe) -> Recipe:
    """The recipe for a rehearsal: a tiny model on tiny images."""
    crops = AugmentationSettings(scale=(128, 64), crop=(64, 64))
    classes = recipe.num_classes and 19
    return replace(recipe, model=TOY_MODEL, num_classes=classes, augmentation=crops, batch_size=2, evaluation_scale=(128, 64))


def curve(log: Sequence[Line]) -> list[Record]:
    """Each evaluation of a run: iterations, seconds of training until then without evaluations, mean IoU."""
    found, before, spent = [], 0, 0.0
    for line in log:
        if line["kind"] == "train":
            spent += (line["iteration"] - before) * line["seconds"]
            before = line["iteration"]
        else:
            found.append({"iteration": line["iteration"], "training_seconds": spent, "mean_iou": line["mean_iou"]})
    return found


def of_trained(result: RunResult, recipe: Recipe, roots: Roots, options: Options) -> Record:
    """What only a trained network can show: labels in bfloat16 against float32 on a CPU, and how far the offsets reach."""
    data, device = roots.open(recipe.validation), options.device
    images = [data.read(int(i))[0] for i in np.linspace(0, len(data) - 1, min(SHOWN, len(data))).round()]
    how: Record = {"scale": scale_of(recipe, options), "device": device}
    return {
        "labels": attempt(lambda: label_agreement(result.model, images, **how), device),
        "offsets": attempt(lambda: offset_histograms(result.model, images, **how), device),
    }


def multi_scale(result: RunResult, recipe: Recipe, roots: Roots, options: Options) -> Record:
    """The score at six scales, each with its mirror image."""
    data, scale = roots.open(recipe.validation), scale_of(recipe, options)

    def score() -> Record:
        scored = evaluate_dataset(result.model, data, scale=scale, scales=MULTI_SCALES, flip=True, device=options.device)
        return {"mode": scored.mode, "mean_iou": scored.mean_iou, "images": scored.images, "seconds": scored.seconds}

    return attempt(score, options.device)


def scale_of(recipe: Recipe, options: Options) -> tuple[int, int]:
    """(width, height) that images are fitted into."""
    return (toy(recipe) if options.dry_run else recipe).evaluation_scale


def keep_small(result: RunResult, recipe: Recipe, roots: Roots, folder: Path) -> Record:
    """Write the trained model to `folder` as safetensors with its card; the size and the score."""
    data, score = roots.open(recipe.validation), result.evaluation.mean_iou
    save_pretrained(
        result.model,
        folder,
        classes=data.classes,
        colors=data.colors.tolist(),
        scale=recipe.evaluation_scale,
        licence="mit",
        datasets=("synthetic streets of vistalib",),
        measured={"synthetic Cityscapes val, single scale": score},
    )
    size = (folder / "model.safetensors").stat().st_size
    return {"folder": folder.name, "bytes": size, "mean_iou": score}
