"""The `vistalib` command: what the rooms do, behind one name, typed and checked by tyro.

Exit status: 0 done, 1 failed (one message says what and how to repair it), 2 wrong usage, 75 a training was interrupted and
has written a checkpoint, 130 anything else was interrupted. VISTALIB_TRACEBACK=1 shows where a failure came from.
"""

import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from vistalib.files import check_writable, replacing, write_json

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.recipes import Dataset, Recipe, Roots

INTERRUPTED = 75  # vistalib.train.Interrupted ends with it
app = tyro.extras.SubcommandApp()


class UsageError(ValueError):
    """The command line itself is wrong: exit status 2."""


@dataclass(frozen=True)
class Datasets:
    """Where the datasets lie."""

    vistas: Path | None = None
    """Folder of Mapillary Vistas: it holds training/ and validation/."""
    cityscapes: Path | None = None
    """Folder of Cityscapes: it holds leftImg8bit/ and gtFine/."""
    folder: Path | None = None
    """Folder of your own data: it holds images/, labels/ and classes.json."""

    def roots(self) -> "Roots":
        """The folders as `recipes` wants them."""
        from vistalib.recipes import Roots

        return Roots(vistas=self.vistas, cityscapes=self.cityscapes, folder=self.folder)

    def only(self, split: str | None, *, training: bool) -> "Dataset":
        """The one dataset that was given; `split` None is its training or its validation split."""
        from vistalib.recipes import DEFAULT_SPLITS, Source

        given = [kind for kind in DEFAULT_SPLITS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise UsageError(
                f"one dataset is needed, got {len(given)}; give one of --vistas DIR, --cityscapes DIR, --folder DIR"
            )
        return self.roots().open(Source(given[0], split or DEFAULT_SPLITS[given[0]][0 if training else 1]))


Given = Annotated[Datasets, tyro.conf.arg(name="")]


@app.command
def demo(
    *,
    out: Path = Path("demo"),
    seed: int = 0,
    data: Path | None = None,
    vistas: tuple[int, int] = (112, 16),
    cityscapes: tuple[int, int] = (12, 32),
    shrink: int = 1,
) -> None:
    """Draw streets, pretrain, finetune, evaluate, compare, report: the whole story in ten minutes on two cores.

    Args:
        out: New folder for the runs, the record and the report; an interrupted demo goes on in it.
        seed: Seed of the weights and of the order of the images.
        data: Folder for the drawn streets (default: OUT/streets); streets drawn before are used again.
        vistas: Images drawn for training and validation in the Vistas layout.
        cityscapes: Images drawn for training and validation in the Cityscapes layout.
        shrink: Divide every number of iterations by this, to try the machinery.
    """
    from vistalib.recipes.demo import DemoSettings, run_demo
    from vistalib.viz import write_report

    record = run_demo(out, DemoSettings(seed, vistas, cityscapes, shrink), data=data)
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
    """Train a recipe and evaluate it."""

    out: Path | None = None
    """Folder for the run: log, checkpoints, evaluation (default: runs/RECIPE)."""
    start_from: Path | None = None
    """Run folder, checkpoint or weight file to start from; what does not fit is named."""
    resume: bool = False
    """Continue the run in OUT exactly where its last checkpoint was written."""
    device: str | None = None
    """Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one)."""
    workers: int = 2
    """Processes that decode and crop."""
    in_memory: bool = False
    """Decode every image once and keep it, for datasets that fit into memory."""


def _train(recipe: "Recipe", training: Training) -> None:
    from vistalib.recipes import run

    out = training.out or Path("runs") / recipe.name
    result = run(
        recipe,
        training.roots(),
        folder=out,
        start_from=training.start_from,
        resume=training.resume,
        device=training.device,
        num_workers=training.workers,
        in_memory=training.in_memory,
    )
    scored = result.evaluation
    print(f"mIoU {100 * scored.mean_iou:.2f}%, pixel accuracy {100 * scored.pixel_accuracy:.2f}%; the run lies in {out}")


@app.command
def train(recipe: tyro.conf.Positional[str]) -> None:
    """Train a recipe and evaluate it; `vistalib train RECIPE --help` lists every option and every value.

    Args:
        recipe: Name of a recipe; `vistalib zoo` lists them.
    """
    _train_command([recipe])


def _train_command(arguments: Sequence[str]) -> None:
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


@app.command
def evaluate(
    run: tyro.conf.Positional[Path],
    datasets: Given,
    *,
    split: str | None = None,
    multi_scale: bool = False,
    out: Path | None = None,
    device: str = "cpu",
    json: Path | None = None,
) -> None:
    """Score a trained run on a dataset: mIoU, IoU of every class, pixel accuracy.

    Args:
        run: Folder that `vistalib train` wrote.
        datasets: The one dataset to score on.
        split: Split to score (default: the validation split).
        multi_scale: Average probabilities over six scales and their mirror images.
        out: New folder for the label maps, as PNGs that the Cityscapes server accepts.
        device: Where to run: cpu, cuda, cuda:1, ...
        json: File for the figures.
    """
    from vistalib.evaluate import MULTI_SCALES, evaluate_dataset
    from vistalib.recipes import open_run, same_classes

    if json is not None:
        check_writable(json)
    dataset = datasets.only(split, training=False)
    trained = open_run(run, device=device)
    same_classes(trained.classes, dataset.classes)
    scales = MULTI_SCALES if multi_scale else (1.0,)
    scored = evaluate_dataset(
        trained.model, dataset, scale=trained.scale, scales=scales, flip=multi_scale, device=device, export=out
    )
    width = max(map(len, dataset.classes))
    for name, value in scored.to_json()["iou"].items():
        print(f"{name:{width}}  {'    -' if value is None else f'{100 * value:5.1f}'}")
    print(f"\nmIoU {100 * scored.mean_iou:.2f}%, pixel accuracy {100 * scored.pixel_accuracy:.2f}%, {scored.images} images")
    if json is not None:
        write_json(json, scored.to_json())


@app.command
def predict(
    run: tyro.conf.Positional[Path],
    images: tyro.conf.Positional[tuple[Path, ...]],
    *,
    out: Path = Path("predictions"),
    device: str = "cpu",
) -> None:
    """Label photographs with a trained run: for each a label map, and the photograph with the classes drawn over it.

    Args:
        run: Folder that `vistalib train` wrote.
        images: Photographs (JPEG or PNG).
        out: Folder for NAME_labels.png and NAME_overlay.jpg.
        device: Where to run: cpu, cuda, cuda:1, ...
    """
    from PIL import Image

    from vistalib.data import read_image
    from vistalib.evaluate import predict_labels
    from vistalib.progress import progress
    from vistalib.recipes import open_run
    from vistalib.viz import overlay

    if not images:
        raise UsageError("predict needs at least one image; give the photographs after the run's folder")
    stems = [path.stem for path in images]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise UsageError(
            f"every photograph must have a name of its own, got {twice!r} twice; label them in two calls, into two --out"
        )
    trained = open_run(run, device=device)
    for path in progress(images, "predict"):
        image = read_image(path)
        labels = predict_labels(trained.model, image, scale=trained.scale)
        with replacing(out / f"{path.stem}_labels.png") as beside:
            Image.fromarray(labels).save(beside)
        with replacing(out / f"{path.stem}_overlay.jpg") as beside:
            Image.fromarray(overlay(image, labels, trained.colors)).save(beside, quality=92)
    print(f"{len(images)} images labelled in {out}")


@app.command
def zoo(*, json: Path | None = None) -> None:
    """List the models with their parameters, and the recipes.

    Args:
        json: File for the table.
    """
    import torch

    from vistalib.models import create_model, list_models
    from vistalib.recipes import list_recipes

    table = {}
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
        table[name] = sum(parameter.numel() for parameter in model.parameters())
    print(f"{'model (150 classes)':34}{'parameters':>14}")
    for name, parameters in table.items():
        print(f"{name:34}{parameters:>14,}")
    print("\nrecipes")
    for name in list_recipes():
        print(f"  {name}")
    if json is not None:
        write_json(json, {"parameters": table, "recipes": list_recipes()})


@app.command
def doctor(*, json: Path | None = None) -> None:
    """Say what this installation can do, and how to repair what it cannot.

    Args:
        json: File for the same as JSON.
    """
    from vistalib.ops import backend_status
    from vistalib.provenance import provenance

    facts, backends = provenance(), [dataclasses.asdict(status) for status in backend_status()]
    for name, value in facts.items():
        if name != "versions":
            print(f"{name:10}  {'-' if value is None else value}")
    for package, version in facts["versions"].items():
        print(f"{package:24}{version or f'not installed; run: python -m pip install {package}'}")
    print("\nbackends of DCNv3")
    for backend in backends:
        print(f"  {backend['name']:12}{'usable' if backend['usable'] else 'not usable':12}{backend['reason']}")
        if backend["repair"] is not None:
            print(f"{'':26}run: {backend['repair']}")
    if json is not None:
        write_json(json, {"facts": facts, "backends": backends})


def data_make(
    root: tyro.conf.Positional[Path],
    *,
    layout: Literal["vistas", "cityscapes"] = "vistas",
    num_images: tuple[int, int] = (80, 20),
    seed: int = 0,
    size: tuple[int, int] = (512, 1024),
) -> None:
    """Draw synthetic streets in the layout of Mapillary Vistas or of Cityscapes.

    Args:
        root: New folder for the dataset.
        layout: Whose folders, file names and labels to write.
        num_images: Images for training and for validation.
        seed: Another seed draws other streets.
        size: Height and width of the images in pixels.
    """
    from vistalib.data import synthesize

    splits = ("training", "validation") if layout == "vistas" else ("train", "val")
    synthesize(root, layout=layout, num_images=dict(zip(splits, num_images, strict=True)), seed=seed, size=size)
    print(f"{sum(num_images)} images in {root}")


def data_index(datasets: Given, *, split: str | None = None, json: Path | None = None) -> None:
    """Count a dataset: its images, and how many of their pixels each class has.

    Args:
        datasets: The one dataset to count.
        split: Split to count (default: the training split).
        json: File for the counts.
    """
    from vistalib.data import class_pixels

    dataset = datasets.only(split, training=True)
    pixels = class_pixels(dataset)
    width, total = max(map(len, dataset.classes)), max(1, sum(pixels))
    print(f"{len(dataset)} images, {total:,} labelled pixels")
    for name, count in zip(dataset.classes, pixels, strict=True):
        print(f"{name:{width}}{count:>18,}{100 * count / total:9.3f}%")
    if json is not None:
        write_json(json, {"images": len(dataset), "pixels": dict(zip(dataset.classes, pixels, strict=True))})


DataCommand = (
    Annotated[None, tyro.conf.subcommand("make", constructor=data_make)]
    | Annotated[None, tyro.conf.subcommand("index", constructor=data_index)]
)


@app.command
def data(command: Annotated[DataCommand, tyro.conf.arg(name="")]) -> None:
    """Draw synthetic streets, or count a dataset."""


T = TypeVar("T")
Chosen = Annotated[T, tyro.conf.arg(help_behavior_hint="")]  # its default depends on the device; the help tells it in words


def bench_op(
    *,
    models: Chosen[tuple[str, ...]] = (),
    stages: Chosen[tuple[int, ...]] = (),
    crops: Chosen[tuple[str, ...]] = (),
    images: Chosen[int | None] = None,
    shape: Chosen[str | None] = None,
    groups: Chosen[int | None] = None,
    dtypes: Chosen[tuple[str, ...]] = (),
    backends: Chosen[tuple[str, ...]] = (),
    offsets: Chosen[tuple[str, ...]] = (),
    directions: Chosen[tuple[Literal["forward", "backward", "both"], ...]] = (),
    modes: Chosen[tuple[Literal["eager", "compiled", "graph"], ...]] = (),
    caches: Chosen[tuple[Literal["cold", "warm"], ...]] = (),
    repeats: Chosen[int | None] = None,
    threads: Chosen[int | None] = None,
    device: Chosen[str | None] = None,
    seed: int = 0,
    quick: bool = False,
    json: Path | None = None,
    figure: Path | None = None,
) -> None:
    """Time DCNv3 against the machine's floor and against how others compute it, in turns, in one run.

    Args:
        models: Sizes whose calls to time: t, s, b, l, xl, nano, micro (default: t on a CPU, t to xl on a GPU).
        stages: Stages of the backbone (default: 1 2 3 4).
        crops: HEIGHTxWIDTH of the images (default: 512x1024, on a GPU the whole 1024x2048, too).
        images: Images in a call (default: 1 on a CPU, 2 on a GPU).
        shape: NxHxWxC of one call instead of a model's, with --groups.
        groups: Groups of that call.
        dtypes: float32, bfloat16, float16, float64 (default: float32 on a CPU, the first three on a GPU).
        backends: Ours to time (default: all that run here; `vistalib doctor` lists them).
        offsets: normal:DEVIATION or uniform:REACH in pixels (default: normal:0.5 uniform:4).
        directions: Forward, backward, and both as in a training step (default: all).
        modes: Eager, by torch.compile, as a CUDA graph (default: eager on a CPU, all on a GPU).
        caches: Cold, the caches just overwritten; warm, the same call just made (default: cold on a CPU, both on a GPU).
        repeats: Rounds (default: 5 on a CPU, 20 on a GPU).
        threads: Threads on a CPU (default: as many as PyTorch takes).
        device: Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one).
        seed: Seed of the tensors.
        quick: One stage and three rounds, to see whether all works; what is given besides holds.
        json: File for the record: every time taken, what it must cost, machine, versions and commit.
        figure: File (.svg, .png, .pdf) for times against floors and the roofline.
    """
    chosen = {name: value for name, value in locals().items() if name not in ("device", "quick", "json", "figure")}
    from vistalib.bench import OperatorBench, operator_settings, table
    from vistalib.viz import plot_bench

    if figure is not None and figure.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"the figure must be a .svg, .png or .pdf, got {figure}")
    try:
        settings = operator_settings(chosen, device=device, quick=quick)
    except ValueError as error:
        raise UsageError(str(error)) from None
    for path in filter(None, (json, figure)):
        check_writable(path)
    run = OperatorBench(settings)
    print(f"vistalib: this will take about {run.estimate():.0f} s", file=sys.stderr)
    if run.load is not None and run.load > 0.5:
        print(
            f"vistalib: others use this machine (load {run.load:.1f}): times are too long, and ratios too uncertain to quote",
            file=sys.stderr,
        )
    record = run.run()
    print(*table(record), sep="\n")
    if json is not None:
        write_json(json, record)
    if figure is not None:
        with replacing(figure) as beside:
            plot_bench(record).savefig(beside)


# `bench model` and `bench data` will stand beside it.
BenchCommand = Annotated[None, tyro.conf.subcommand("op", constructor=bench_op)] | Annotated[None, tyro.conf.Suppress]


@app.command
def bench(command: Annotated[BenchCommand, tyro.conf.arg(name="")]) -> None:
    """Measure how fast it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.formatwarning = lambda message, *_, **__: f"vistalib: {message}\n"  # a sentence for users, without a line of code
    try:
        if arguments[:1] == ["train"] and len(arguments) > 2:
            _train_command(arguments[1:])
        else:
            app.cli(
                prog="vistalib",
                args=arguments or ["--help"],
                description=__doc__,
                config=(tyro.conf.PositionalMetavarFromFieldName,),
            )
    except UsageError as error:
        return _failed(error, 2)
    except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:
        return _failed(error, 1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            print(f"vistalib: {stop}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("vistalib: interrupted", file=sys.stderr)
        return 130
    return 0


def _failed(error: Exception, status: int) -> int:
    if os.environ.get("VISTALIB_TRACEBACK"):
        raise error
    print(f"vistalib: {error}", file=sys.stderr)
    return status
