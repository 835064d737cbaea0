"""The whole story on two CPU cores: streets are drawn, a network is pretrained, finetuned, evaluated and compared.

Four runs share one model and one schedule shape. `pretrain` sees streets in the Vistas layout, `finetune` continues on the
few streets in the Cityscapes layout; the controls `scratch` and `scratch_total` see those few alone, for the finetuning
budget and for the budget of both stages. Those that do not need each other run side by side. The folder that this leaves is
read by `vistalib.viz.write_report` and by the book.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vistalib.data import Cityscapes, synthesize
from vistalib.evaluate import MULTI_SCALES, Evaluation, evaluate_dataset, predict_labels, scripts_check
from vistalib.files import read_json, replacing, write_json
from vistalib.provenance import peak_memory_mb, provenance
from vistalib.recipes import small
from vistalib.recipes.jobs import Job, run_jobs
from vistalib.recipes.recipe import Recipe, Roots, Runtime
from vistalib.recipes.run import run
from vistalib.recipes.sampling import sampling_pattern

RECORD = "demo.json"
EXAMPLES = 3  # validation images kept with their predictions
COMMANDS = (
    "vistalib train upernet_internimage_l_512x1024_80k_mapillary --vistas VISTAS --cityscapes CITYSCAPES --out runs/pretrain",
    "vistalib train upernet_internimage_l_512x1024_160k_mapillary2cityscapes --cityscapes CITYSCAPES "
    "--weights runs/pretrain --out runs/finetune",
    "vistalib evaluate runs/finetune --cityscapes CITYSCAPES --multi-scale --out predictions",
)


@dataclass(frozen=True)
class DemoSettings:
    """How much of everything; the defaults fit ten minutes on two cores."""

    seed: int = 0
    """Seed of the weights and of the order of the images; the streets stay the same."""
    vistas: tuple[int, int] = (112, 16)
    """Images drawn for training and validation in the Vistas layout."""
    cityscapes: tuple[int, int] = (12, 32)
    """Images drawn for training and validation in the Cityscapes layout."""
    iterations: tuple[int, int] = (small.PRETRAIN, small.FINETUNE)
    """Iterations of the two stages; 2 2 tries the machinery."""
    enlarge: int = 1
    """Multiply the sides of images and crops by this; at 4 the streets are as large as they were drawn."""

    def __post_init__(self) -> None:
        counts = (*self.vistas, *self.cityscapes, *self.iterations)
        if self.seed < 0 or min(counts) < 1 or not 1 <= self.enlarge <= 4:
            raise ValueError(
                "vistas, cityscapes and iterations must be at least 1, enlarge from 1 to 4 and seed at least 0, "
                f"got {self}; the defaults are {DemoSettings()}"
            )


@dataclass(frozen=True)
class Stage:
    """One of the runs of a demo; `starts_from` names the one whose weights it begins with."""

    name: str
    title: str
    recipe: Recipe
    starts_from: str | None = None
    multi_scale: bool = False
    """Whether it is evaluated at several scales, too."""


def run_demo(folder: str | Path, settings: DemoSettings, *, data: str | Path | None = None) -> dict[str, Any]:
    """Run the demo into `folder` and return its record, which also lies there as `demo.json`.

    `data` is where the streets are drawn (default: `folder`/streets); streets drawn before with the same numbers are used
    again. An interrupted demo goes on (`resumed` in the record then says that its times are too short), a finished one is
    only read. Beside the record lie `examples.npz` (images, truth, predictions), `sampling.npz` (where the network looked)
    and `runs/`. Raises `ValueError` when `folder` holds something else.
    """
    folder, began = Path(folder), time.monotonic()
    streets = Path(data) if data is not None else folder / "streets"
    resumed = _claim(folder, settings)
    if (folder / RECORD).exists():
        print(f"{folder} holds this demo already, finished; delete it to run it again", flush=True)
        return dict(read_json(folder / RECORD))
    facts, seconds = provenance(), dict[str, float]()
    with _timed(seconds, "draw the streets"):
        roots = draw_streets(streets, settings)
    stages = demo_stages(settings)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        predictions = Path(scratch) / "predictions"
        lines = (f"  {stage.title}: {stage.recipe.settings.iterations} iterations" for stage in stages)
        print("\nFour trainings, side by side where they do not need each other:", *lines, sep="\n", flush=True)
        with _timed(seconds, "train and evaluate"):
            trained = _train(stages, roots, folder, predictions)
        with _timed(seconds, "check from outside"):
            (_, multi_scale) = trained["finetune"].evaluations
            check = scripts_check(multi_scale, predictions, streets / "cityscapes" / "gtFine" / "val")
    validation = Cityscapes(streets / "cityscapes", "val")
    _save_examples(folder, validation, {name: one.examples for name, one in trained.items() if name != "pretrain"})
    _save_arrays(folder / "sampling.npz", trained["finetune"].sampling)
    record = {
        "facts": facts,
        "settings": dataclasses.asdict(settings),
        "classes": list(validation.classes),
        "colors": validation.colors.tolist(),
        "runs": [trained[stage.name].record(stage) for stage in stages],
        "stages": [{"name": name, "seconds": round(value, 1)} for name, value in seconds.items()],
        "seconds": round(time.monotonic() - began, 1),
        "resumed": resumed,
        # Three of them run at a time, the first two stages one after the other.
        "peak_memory_mb": round(peak_memory_mb() + sum(trained[stage.name].peak_memory_mb for stage in stages[1:])),
        "scripts_check": check,
        "commands": list(COMMANDS),
    }
    write_json(folder / RECORD, record)
    return record


def _train(stages: list[Stage], roots: Roots, folder: Path, predictions: Path) -> dict[str, "_Trained"]:
    """What became of each stage, by its name; the label maps of the finetuned network go to `predictions`."""
    jobs = []
    for stage in stages:
        work = partial(_train_stage, stage, roots, folder / "runs", predictions if stage.name == "finetune" else None)
        jobs.append(Job(stage.name, stage.recipe.settings.iterations, work, needs=stage.starts_from))
    titles = {stage.name: stage.title for stage in stages}
    trained = {}
    for name, one in run_jobs(jobs, "training", folder=folder):
        trained[name] = one
        print(f"{titles[name]}: mIoU {100 * one.evaluations[0].mean_iou:.1f}%, {one.seconds:.0f} s", flush=True)
    return trained


def _train_stage(stage: Stage, roots: Roots, runs: Path, export: Path | None, report: Callable[[int], None]) -> "_Trained":
    """One run, in a process of its own."""
    began = time.monotonic()
    result = run(
        stage.recipe,
        roots,
        folder=runs / stage.name,
        weights=None if stage.starts_from is None else runs / stage.starts_from,
        resume=True,
        runtime=Runtime("cpu", num_workers=0, in_memory=True),
        on_log=lambda line: report(line["iteration"]),
    )
    model, evaluations = result.model, [result.evaluation]
    scale, validation = stage.recipe.evaluation_scale, roots.open(stage.recipe.validation)
    assert isinstance(validation, Cityscapes)
    if stage.multi_scale:
        evaluations.append(evaluate_dataset(model, validation, scale=scale, scales=MULTI_SCALES, flip=True, export=export))
    examples = np.stack([predict_labels(model, validation.read(i)[0], scale=scale) for i in _chosen(validation)])
    sampling = sampling_pattern(model, validation, scale=scale) if export else {}
    return _Trained(tuple(evaluations), examples, sampling, time.monotonic() - began, peak_memory_mb())


@dataclass(frozen=True)
class _Trained:
    """What the process of one run tells of it."""

    evaluations: tuple[Evaluation, ...]
    examples: np.ndarray[Any, Any]  # (EXAMPLES, H, W), predictions for some validation images
    sampling: dict[str, np.ndarray[Any, Any]]  # of the one whose label maps are exported
    seconds: float
    peak_memory_mb: float

    def record(self, stage: Stage) -> dict[str, Any]:
        return {
            "name": stage.name,
            "title": stage.title,
            "dataset": stage.recipe.validation.kind,
            "seed": stage.recipe.settings.seed,
            "iterations": stage.recipe.settings.iterations,
            "folder": f"runs/{stage.name}",
            "seconds": round(self.seconds, 1),
            "evaluations": [evaluation.to_json() for evaluation in self.evaluations],
        }


def draw_streets(root: Path, settings: DemoSettings, *, workers: int | None = None) -> Roots:
    """Draw both datasets under `root`, or use those that a demo with the same numbers drew there.

    `workers` is the number of processes that draw (default: see `synthesize`); it changes nothing but the time.
    """
    vistas, cityscapes = root / "vistas", root / "cityscapes"
    training, validation = settings.vistas
    synthesize(vistas, layout="vistas", num_images={"training": training, "validation": validation}, seed=1, workers=workers)
    training, validation = settings.cityscapes
    synthesize(cityscapes, layout="cityscapes", num_images={"train": training, "val": validation}, seed=2, workers=workers)
    return Roots(vistas=vistas, cityscapes=cityscapes)


def demo_stages(settings: DemoSettings) -> list[Stage]:
    """The runs of a demo, in their order."""
    first, second = settings.iterations
    size = settings.enlarge

    def seeded(recipe: Recipe) -> Recipe:
        return dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, seed=settings.seed))

    finetuned = seeded(small.finetune(second, size, pretrained=first))
    return [
        Stage("pretrain", "Pretrained on Vistas streets", seeded(small.pretrain(first, size))),
        Stage("finetune", "Pretrained, then finetuned", finetuned, starts_from="pretrain", multi_scale=True),
        Stage("scratch", "From scratch, finetuning budget", seeded(small.scratch(second, size))),
        Stage(
            "scratch_total", "From scratch, total budget", seeded(small.scratch_total(first + second, size)), multi_scale=True
        ),
    ]


def _claim(folder: Path, settings: DemoSettings) -> bool:
    """Whether `folder` holds this demo already, begun; refuse another one's, mark a new one."""
    mark, wanted = folder / "settings.json", dataclasses.asdict(settings)
    wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
    if mark.exists():
        found = read_json(mark)
        if found != wanted:
            raise ValueError(f"{folder} holds a demo of other settings ({found}); give another folder, or delete it")
        return True
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        what = "a file" if folder.is_file() else "a folder with other files in it"
        raise ValueError(f"the demo needs a new or empty folder, got {folder}, {what}; give another folder")
    write_json(mark, wanted)
    return False


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def _chosen(validation: Cityscapes) -> list[int]:
    """The images that are kept with their predictions."""
    return [int(i) for i in np.linspace(0, len(validation) - 1, min(EXAMPLES, len(validation))).round()]


def _save_examples(folder: Path, validation: Cityscapes, predictions: dict[str, np.ndarray[Any, Any]]) -> None:
    pairs = [validation.read(i) for i in _chosen(validation)]
    images, targets = np.stack([image for image, _ in pairs]), np.stack([target for _, target in pairs])
    arrays = {f"prediction_{name}": labels for name, labels in predictions.items()}
    _save_arrays(folder / "examples.npz", {"image": images, "target": targets, **arrays})


def _save_arrays(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    with replacing(path) as beside:
        np.savez_compressed(beside, allow_pickle=False, **arrays)


__all__ = ["DemoSettings", "Stage", "demo_stages", "draw_streets", "run_demo"]
