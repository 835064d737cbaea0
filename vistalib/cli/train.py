"""`vistalib demo` and `vistalib train`."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vistalib.cli.parts import Chosen, Datasets, UsageError, app

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
    """Train a recipe and evaluate it."""

    out: Path | None = None
    """Folder for the run: log, checkpoints, evaluation (default: runs/RECIPE)."""
    start_from: str | None = None
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


def _train(recipe: "Recipe", training: Training) -> None:
    from vistalib.recipes import event_files, run

    if training.accumulate is not None:
        recipe = replace(recipe, settings=replace(recipe.settings, accumulate=training.accumulate))
    if training.print:
        options = recipe.options()
        width = max(len(option) for option, _ in options)
        print(*(f"{option:{width}}  {value}".rstrip() for option, value in options), sep="\n")
        return
    out = training.out or Path("runs") / recipe.name
    with event_files(out) if training.tensorboard else nullcontext() as on_log:
        result = run(
            recipe,
            training.roots(),
            folder=out,
            start_from=training.start_from,
            resume=training.resume,
            device=training.device,
            num_workers=training.workers,
            in_memory=training.in_memory,
            cache=training.cache,
            device_colors=training.device_colors,
            on_log=on_log,
        )
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several processes: one of them speaks
        scored = result.evaluation
        print(f"mIoU {100 * scored.mean_iou:.2f}%, pixel accuracy {100 * scored.pixel_accuracy:.2f}%; the run lies in {out}")


@app.command
def train(recipe: tyro.conf.Positional[str]) -> None:
    """Train a recipe and evaluate it; `vistalib train RECIPE --print` shows every value, `--help` explains it.

    Args:
        recipe: Name of a recipe; `vistalib zoo` lists them.
    """
    train_command([recipe])


def train_command(arguments: Sequence[str]) -> None:
    """`train RECIPE [option ...]`: the options depend on the recipe, which gives their defaults."""
    from vistalib.recipes import Recipe, get_recipe

    name, *options = arguments
    try:
        recipe = get_recipe(name)
    except ValueError as error:
        raise UsageError(str(error)) from None

    def command(
        training: Annotated[Training, tyro.conf.arg(name="")], recipe: Annotated[Recipe, tyro.conf.arg(name="")] = recipe
    ) -> None:
        _train(recipe, training)

    tyro.cli(command, prog=f"vistalib train {name}", args=options, description=Training.__doc__)
