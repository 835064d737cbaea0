"""Running a recipe: model, data and training put together, evaluated, and left in a folder that others can open.

The folder holds `log.jsonl` and `checkpoints/` (see `vistalib.train`), and `evaluation.json` with `evaluation.npz`. Every
checkpoint's state carries, as "about", the recipe, the classes with their colours, and the machine: it can be used without
knowing where it came from.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vistalib.data import Augmentation, InMemory, Prepared, StreetDataset, TrainLoader, class_balance, class_pixels
from vistalib.evaluate import Evaluation, evaluate_dataset
from vistalib.evaluate.evaluation import RUN_FILE
from vistalib.models import (
    LoadReport,
    LossSettings,
    Segmentor,
    UPerHead,
    balanced_weights,
    create_model,
    locate,
    synchronize_batch_norm,
)
from vistalib.provenance import provenance
from vistalib.recipes.recipe import Dataset, Recipe, Roots, Runtime
from vistalib.recipes.start import find_start, load_start, recipe_of_run
from vistalib.train import FitResult, by_first, fit, process_group, rank, world_size

# Of a recipe, beside its settings, what a resumed run must share with the one that began.
DECIDES_WEIGHTS = ("model", "num_classes", "train", "augmentation", "batch_size", "class_temperature", "loss")


@dataclass(frozen=True)
class RunResult:
    """What `run` leaves in memory: the trained model, how training went, and the last evaluation."""

    model: Segmentor
    fit: FitResult
    evaluation: Evaluation
    load_report: LoadReport | None


def run(
    recipe: Recipe,
    roots: Roots,
    *,
    folder: str | Path,
    weights: str | Path | None = None,
    resume: bool = False,
    runtime: Runtime = Runtime(),  # noqa: B008  # frozen
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> RunResult:
    """Train `recipe` and evaluate it.

    `folder` receives the run. `weights` names those that the model starts from (see `vistalib.models.locate`): a run,
    a released checkpoint or backbone, a file; what does not fit is left out and named. `resume` continues an interrupted run in
    `folder` exactly. `runtime` is how this machine computes it. `on_log` sees each line of the log (see `vistalib.train.fit`),
    such as `event_files`.

    Under `torchrun` every process calls this: each trains on its slices of the same batches and takes its share of the
    evaluation; batch norm sees the images of all. The folder must be one that all of them see.

    Raises `ValueError` for anything the user can repair: a dataset folder, an unknown model, a checkpoint of another model.
    """
    folder = Path(folder)
    with process_group(runtime.device or usable_device()) as own:
        device = usable_device(own)
        if resume:
            by_first(lambda: _check_resumed(recipe, folder))
        parts = put_together(recipe, roots, weights=weights, resume=resume, runtime=replace(runtime, device=device))
        evaluations: list[Evaluation] = []

        def evaluate(trained: torch.nn.Module) -> dict[str, Any]:
            evaluations.append(evaluate_dataset(trained, parts.validation_data, scale=recipe.evaluation_scale, device=device))
            if rank() == 0:
                evaluations[-1].save(folder / RUN_FILE)
            return scores(evaluations[-1])

        result = fit(
            parts.model,
            parts.loader,
            recipe.settings,
            folder=folder,
            evaluate=evaluate,
            device=device,
            resume=resume,
            on_log=on_log,
            about=parts.about,
        )
        if not evaluations:  # a finished run that was resumed: nothing was left to train
            evaluate(parts.model)
        return RunResult(parts.model, result, evaluations[-1], parts.load_report)


def _check_resumed(recipe: Recipe, folder: Path) -> None:
    """Refuse to go on with other images, draws or losses than the run in `folder` began with; `fit` looks at the settings."""
    before = recipe_of_run(folder)
    if before is None:
        return
    pairs = [(name, getattr(before, name), getattr(recipe, name)) for name in DECIDES_WEIGHTS]
    changed = [f"{name} was {then!r}, now {now!r}" for name, then, now in pairs if then != now]
    if changed:
        raise ValueError(
            f"{folder} must be resumed with its own recipe: {'; '.join(changed)}; set them back, or choose a new folder"
        )


@dataclass(frozen=True)
class Parts:
    """What a run is put together from; `about` goes into its checkpoints."""

    model: Segmentor
    loader: TrainLoader
    validation_data: Dataset
    load_report: LoadReport | None
    about: dict[str, Any]


def put_together(recipe: Recipe, roots: Roots, *, weights: str | Path | None, resume: bool, runtime: Runtime) -> Parts:
    """Open the data, build the model on its device and load its start; arguments and errors are those of `run`."""
    device = usable_device(runtime.device)
    train_data, validation_data = roots.open(recipe.train), roots.open(recipe.validation)
    same_classes(train_data.classes, validation_data.classes)
    num_classes = recipe.num_classes or len(train_data.classes)
    if num_classes < len(train_data.classes):
        raise ValueError(
            f"num_classes must be at least the {len(train_data.classes)} classes of the data, got {num_classes}; "
            "None takes those of the data"
        )
    torch.manual_seed(recipe.settings.seed)
    model = create_model(recipe.model, num_classes=num_classes, recompute_blocks=recipe.recompute_blocks)
    model.set_loss(_numbers(recipe.loss, train_data))
    report = None
    if weights is not None:
        by_first(lambda: locate(weights))  # what has to be fetched is fetched by one
        start = find_start(weights)
        report = load_start(model, start, train_data.classes)
        _say(f"{weights}: {report}")
        if recipe.starts_from is not None and start.made_by not in (None, recipe.starts_from):
            _say(f"{recipe.name} begins with {recipe.starts_from}, and {weights} was made by {start.made_by}")
    elif recipe.starts_from is not None and not resume and rank() == 0:
        warnings.warn(
            f"{recipe.name} begins with the weights of {recipe.starts_from}, and none were given: it starts from random ones; "
            "give them as weights=, or --weights on the command line",
            stacklevel=3,
        )
    _check_batch(recipe, model)
    synchronize_batch_norm(model.to(device))
    temperature = recipe.class_temperature
    loader = TrainLoader(
        _source_of_samples(train_data, runtime),
        Augmentation(recipe.augmentation),
        batch_size=recipe.batch_size,
        seed=recipe.settings.seed,
        num_workers=runtime.num_workers,
        rank=rank(),
        world_size=world_size(),
        balance=None if temperature is None else by_first(lambda: class_balance(train_data, temperature)),
        colors_on=device if runtime.device_colors else None,
    )
    return Parts(model, loader, validation_data, report, _about(recipe, train_data, model, weights))


def scores(evaluation: Evaluation) -> dict[str, Any]:
    """What the log keeps of an evaluation."""
    return {name: value for name, value in evaluation.to_json().items() if name != "confusion"}


def _source_of_samples(data: Dataset, runtime: Runtime) -> StreetDataset:
    """The training data, from where it is read fastest."""
    if runtime.cache is None:
        return InMemory(data) if runtime.in_memory else data
    prepared = Prepared(data, runtime.cache)
    if not prepared.exact:
        _say(f"{runtime.cache} holds {prepared.kind} copies that differ from the images a little, and so will the results")
    return InMemory(prepared) if runtime.in_memory else prepared


def _numbers(loss: LossSettings, data: Dataset) -> LossSettings:
    """`loss` with a weight for every class of the data, where it has any."""
    weights = loss.class_weights
    if weights == "balanced":
        weights = balanced_weights(by_first(lambda: class_pixels(data)))
        each = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(data.classes, weights, strict=True))
        _say(f"balanced class weights: {each}")
    if weights is not None and len(weights) != len(data.classes):
        raise ValueError(
            f"class_weights must have one number for each of the {len(data.classes)} classes of the data, got {len(weights)}; "
            f"their order is {', '.join(data.classes)}"
        )
    return replace(loss, class_weights=weights)


def _check_batch(recipe: Recipe, model: Segmentor) -> None:
    """Refuse a batch that cannot be shared out, and say what batch norm makes of the pieces."""
    ranks, pieces = world_size(), recipe.settings.accumulate
    if recipe.batch_size % (ranks * pieces):
        possible = [n for n in range(1, recipe.batch_size + 1) if recipe.batch_size % (ranks * n) == 0]
        raise ValueError(
            f"batch_size must be a multiple of ranks x accumulate, got batch_size={recipe.batch_size} for {ranks} x {pieces}; "
            + (f"try accumulate={max(n for n in possible if n <= pieces)}" if possible else f"try batch_size={ranks * pieces}")
        )
    if pieces == 1 or recipe.settings.frozen_statistics:
        return
    images = recipe.batch_size // pieces
    if images == 1 and isinstance(model.decode_head, UPerHead):
        raise ValueError(
            f"accumulate={pieces} leaves one image for batch norm, and UperNet's pooling to one pixel a single value, which "
            f"varies in nothing; try accumulate={pieces // 2}, or frozen_statistics with a checkpoint of the same heads"
        )
    _say(
        f"accumulate={pieces}: batch norm takes its statistics from {images} images at a time instead of {recipe.batch_size}, "
        f"and its running averages move {pieces} times a step; frozen_statistics keeps those of the checkpoint instead"
    )


def _say(text: str) -> None:
    if rank() == 0:
        print(text, flush=True)


def _about(recipe: Recipe, data: Dataset, model: Segmentor, weights: str | Path | None) -> dict[str, Any]:
    return {
        "recipe": recipe.to_json(),
        "num_classes": recipe.num_classes or len(data.classes),
        "classes": list(data.classes),
        "colors": np.asarray(data.colors).tolist(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "started_from": None if weights is None else str(weights),
        "facts": provenance(),
    }


def usable_device(name: str | None = None) -> str:
    """`name`, if torch can run there, by default the GPU where there is one; a `ValueError` says what it must be."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # no such name; torch without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(f"the device must be cpu, cuda, cuda:1, ... that torch can use, got {name!r} ({reason})") from None
    return name


def same_classes(trained: tuple[str, ...], scored: tuple[str, ...]) -> None:
    """Refuse to score a model on a dataset whose classes are not the ones it was trained on."""
    if trained != scored:
        first = next((pair for pair in zip(trained, scored, strict=False) if pair[0] != pair[1]), None)
        raise ValueError(
            f"a model must be scored on the classes it was trained on, got {len(scored)} in the dataset for {len(trained)}"
            + (f", first {first[0]!r} against {first[1]!r}" if first else "")
            + "; choose a dataset of the same classes"
        )
