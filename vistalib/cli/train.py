"""`vistalib demo` and `vistalib train`."""

import os
import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vistalib.cli.estimate import print_estimate
from vistalib.cli.own import OwnTraining
from vistalib.cli.parts import Chosen, Datasets, UsageError
from vistalib.cli.recipe_options import recipe_options, with_options
from vistalib.cli.scores import check_scores_writable, print_scores
from vistalib.files import check_writable, write_json

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.recipes import Recipe


def _demo_settings() -> Any:
    from vistalib.recipes.demo import DemoSettings

    return DemoSettings


def demo(
    settings: Annotated[Any, tyro.conf.arg(name="", constructor_factory=_demo_settings)],
    *,
    out: Path = Path("demo"),
    data: Chosen[Path | None] = None,
) -> None:
    """Draw streets, pretrain, finetune, evaluate, compare, report: the whole story in ten minutes on two cores.

    Args:
        settings: How much of everything.
        out: New folder for the runs, the record and the report; an interrupted demo goes on in it.
        data: Folder for the drawn streets (default: OUT/streets); streets drawn before are used again.
    """
    from vistalib.recipes.demo import run_demo
    from vistalib.viz import write_report

    record = run_demo(out, settings, data=data)
    report = write_report(out)
    scored = [(f"{run['title']}, {found['mode']}", found) for run in record["runs"] for found in run["evaluations"]]
    width = max(len(title) for title, _ in scored)
    print(f"\n{'':{width}}   mIoU   pixel accuracy")
    for title, found in scored:
        print(f"{title:{width}}{100 * found['mean_iou']:6.1f}%{100 * found['pixel_accuracy']:16.1f}%")
    print(f"\n{record['seconds'] / 60:.1f} minutes, {record['peak_memory_mb'] / 1000:.1f} GB of memory at most")
    print(f"The report: {report.resolve()}")


@dataclass(frozen=True)
class Training(Datasets):
    """Train a recipe, or a recipe made for your own data, and evaluate it."""

    out: Chosen[Path | None] = None
    """Folder for the run: log, checkpoints, evaluation (default: runs/RECIPE, or runs/ and the name of your data's folder)."""
    weights: Annotated[Chosen[str | None], tyro.conf.arg(aliases=["--from", "--start-from"])] = None
    """What to begin with: a run's folder, weight file, released name, address or Hub id; what does not fit is named (default:
    random weights)."""
    resume: bool = False
    """Continue the run in OUT exactly where its last checkpoint was written."""
    device: Chosen[str | None] = None
    """Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one)."""
    workers: int = 2
    """Processes that decode and crop."""
    in_memory: bool = False
    """Decode every image once and keep it, for datasets that fit into memory."""
    cache: Path | None = None
    """Folder that `vistalib data prepare` made of the training images."""
    device_colors: bool = False
    """Change colours on the device instead of in the workers, with the same result: for a fast GPU with few cores."""
    tensorboard: bool = False
    """Write event files for TensorBoard into OUT/tensorboard."""
    print: bool = False
    """Print every value of the recipe, as the option that sets it, and do nothing else."""
    estimate: bool = False
    """Measure a few steps and foretell hours, memory and disk, and do nothing else."""
    json: Path | None = None
    """File for the scores, or for what --estimate foretells."""


def _train(recipe: "Recipe", training: Training) -> None:
    from vistalib.recipes import Runtime, estimate, event_files, run

    if training.print:
        options = recipe.options()
        width = max(len(option) for option, _ in options)
        print(*(f"{option:{width}}  {value}".rstrip() for option, value in options), sep="\n")
        return
    if training.json is not None:
        (check_writable if training.estimate else check_scores_writable)(training.json)
    out = training.out or Path("runs") / recipe.name
    runtime = Runtime(training.device, training.workers, training.in_memory, training.cache, training.device_colors)
    arguments: dict[str, Any] = {"folder": out, "weights": training.weights, "resume": training.resume, "runtime": runtime}
    speaks = os.environ.get("RANK", "0") == "0"  # torchrun starts several processes: one of them speaks
    if training.estimate:
        foretold = estimate(recipe, training.roots(), **arguments)
        if speaks:
            print_estimate(foretold)
            if training.json is not None:
                write_json(training.json, foretold.to_json())
        return
    with event_files(out) if training.tensorboard else nullcontext() as on_log:
        result = run(recipe, training.roots(), on_log=on_log, **arguments)
    if speaks:
        print_scores(result.evaluation)
        photographs = "photo.jpg"
        if training.folder is not None and recipe.validation.kind == "folder":
            photographs = shlex.quote(str(training.folder / "images" / recipe.validation.split))
        print(f"The run lies in {out}; next: vistalib predict {photographs} --weights {shlex.quote(str(out))}")
        if training.json is not None:
            result.evaluation.save(training.json)


def train(
    recipe: tyro.conf.Positional[Chosen[str | None]] = None,
    *,
    training: Annotated[Training, tyro.conf.arg(name="")],
    given: Annotated[Any, tyro.conf.arg(name="", constructor_factory=recipe_options)],
) -> None:
    """Train and evaluate: a recipe by its name, or your own data by `vistalib train --data FOLDER --weights WEIGHTS`.

    `vistalib train RECIPE --print` shows every value of a recipe; the options below replace them. Every option is the same
    for all recipes, and for your own data, whose recipe follows from the images, the checkpoint and the machine.

    Args:
        recipe: Name of a recipe (`vistalib zoo` lists them); left out, --data FOLDER has to be there.
        training: What the command does.
        given: What replaces the recipe's values.
    """
    from vistalib.recipes import get_recipe

    if recipe is None:
        own = OwnTraining(training, given.get("model"))
        chosen = with_options(own.recipe, given)
        if not training.print:
            own.tell(chosen)
    else:
        try:
            named = get_recipe(recipe)
        except ValueError as error:
            raise UsageError(str(error)) from None
        chosen = with_options(named, given)
    _train(chosen, training)
