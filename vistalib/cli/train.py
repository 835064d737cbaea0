"""`vistalib demo` and `vistalib train`."""

import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vistalib.cli.estimate import print_estimate
from vistalib.cli.own import OwnTraining
from vistalib.cli.parts import Chosen, Datasets, UsageError, app
from vistalib.cli.scores import check_scores_writable, print_scores
from vistalib.files import check_writable, write_json

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.recipes import Recipe


@app.command
def demo() -> None:
    """Draw streets, pretrain, finetune, evaluate, compare, report: the whole story in ten minutes on two cores."""
    demo_command([])


def demo_command(arguments: Sequence[str]) -> None:
    """`demo [option ...]`: the options have the defaults of `DemoSettings`, which brings torch along."""
    from vistalib.recipes.demo import DemoSettings, run_demo
    from vistalib.viz import write_report

    def command(
        settings: Annotated[DemoSettings, tyro.conf.arg(name="")] = DemoSettings(),  # noqa: B008  # frozen
        *,
        out: Path = Path("demo"),
        data: Chosen[Path | None] = None,
    ) -> None:
        """Run the demo and print its scores.

        Args:
            settings: How much of everything.
            out: New folder for the runs, the record and the report; an interrupted demo goes on in it.
            data: Folder for the drawn streets (default: OUT/streets); streets drawn before are used again.
        """
        record = run_demo(out, settings, data=data)
        report = write_report(out)
        scored = [(f"{run['title']}, {found['mode']}", found) for run in record["runs"] for found in run["evaluations"]]
        width = max(len(title) for title, _ in scored)
        print(f"\n{'':{width}}   mIoU   pixel accuracy")
        for title, found in scored:
            print(f"{title:{width}}{100 * found['mean_iou']:6.1f}%{100 * found['pixel_accuracy']:16.1f}%")
        print(f"\n{record['seconds'] / 60:.1f} minutes, {record['peak_memory_mb'] / 1000:.1f} GB of memory at most")
        print(f"The report: {report.resolve()}")

    tyro.cli(command, prog="vistalib demo", args=arguments, description=demo.__doc__)


@dataclass(frozen=True)
class Training(Datasets):
    """Train a recipe, or a recipe made for your own data, and evaluate it."""

    out: Path | None = None
    """Folder for the run: log, checkpoints, evaluation (default: runs/RECIPE, or runs/ and the name of your data's folder)."""
    start_from: Annotated[str | None, tyro.conf.arg(name="from", aliases=["--start-from"])] = None
    """What to start from: a run folder, a weight file, a released name, an address or a Hub id; what does not fit is named."""
    resume: bool = False
    """Continue the run in OUT exactly where its last checkpoint was written."""
    device: str | None = None
    """Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one)."""
    workers: int = 2
    """Processes that decode and crop."""
    accumulate: int | None = None
    """Pieces into which each rank cuts its share of a batch, where memory is short (default: the recipe's, 1)."""
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


@dataclass(frozen=True)
class _BeforeRecipe(Training):
    """What the recipe for one's own data depends on."""

    model: str | None = None


def _train(recipe: "Recipe", training: Training) -> None:
    from vistalib.recipes import estimate, event_files, run

    if training.print:
        options = recipe.options()
        width = max(len(option) for option, _ in options)
        print(*(f"{option:{width}}  {value}".rstrip() for option, value in options), sep="\n")
        return
    if training.json is not None:
        (check_writable if training.estimate else check_scores_writable)(training.json)
    out = training.out or Path("runs") / recipe.name
    arguments: dict[str, Any] = {
        "folder": out,
        "start_from": training.start_from,
        "resume": training.resume,
        "device": training.device,
        "num_workers": training.workers,
        "in_memory": training.in_memory,
        "cache": training.cache,
        "device_colors": training.device_colors,
    }
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
        print(f"The run lies in {out}; next: vistalib predict {photographs} --model {shlex.quote(str(out))}")
        if training.json is not None:
            result.evaluation.save(training.json)


@app.command
def train(recipe: tyro.conf.Positional[str]) -> None:
    """Train and evaluate: a recipe by its name, or your own data by `vistalib train --data FOLDER --from CHECKPOINT`.

    Behind either, `--print` shows every value, `--help` explains it, `--estimate` foretells hours, memory and disk.

    Args:
        recipe: Name of a recipe; `vistalib zoo` lists them.
    """
    train_command([recipe])


def train_command(arguments: Sequence[str]) -> None:
    """`train RECIPE [option ...]` or `train --data FOLDER [option ...]`: the options have the defaults of the recipe."""
    from vistalib.recipes import Recipe, get_recipe

    own = None
    if arguments[0].startswith("-"):
        given = [argument for argument in arguments if argument not in ("-h", "--help")]  # which shows what is chosen below
        before, _ = tyro.cli(_BeforeRecipe, args=given, return_unknown_args=True, add_help=False)
        own = OwnTraining(before, before.model)
        name, options, recipe = "--data FOLDER", arguments, own.recipe
    else:
        name, *options = arguments
        try:
            recipe = get_recipe(name)
        except ValueError as error:
            raise UsageError(str(error)) from None

    def command(
        training: Annotated[Training, tyro.conf.arg(name="")], recipe: Annotated[Recipe, tyro.conf.arg(name="")] = recipe
    ) -> None:
        if training.accumulate is not None:
            recipe = replace(recipe, settings=replace(recipe.settings, accumulate=training.accumulate))
        if own is not None and not training.print:
            own.tell(recipe)
        _train(recipe, training)

    tyro.cli(command, prog=f"vistalib train {name}", args=options, description=Training.__doc__)
