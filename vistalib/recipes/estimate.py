"""What a run will take, foretold from a short probe: hours, memory and disk.

The probe is a run: everything is put together as for one and trained for a few steps on real batches, into a folder beside
the run's, which is removed again. What is foretold are products: steps left x seconds a step, images x seconds an image,
checkpoints kept x bytes of one.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vistalib.files import writing
from vistalib.provenance import peak_memory_mb
from vistalib.recipes.machine import this_machine
from vistalib.recipes.probe import bytes_below, measure
from vistalib.recipes.recipe import Recipe, Roots, Runtime
from vistalib.recipes.run import put_together, usable_device
from vistalib.train import TrainSettings, by_first, process_group, world_size
from vistalib.train.checkpoint import CHECKPOINTS, checkpoints, iteration_of, newest_whole

Range = tuple[float, float, float]  # low, mean, high


@dataclass(frozen=True)
class Estimate:
    """What a probe measured on one machine, and what follows for the run.

    `done` and `iterations` count steps, `step_seconds` are the probe's (waiting for data included, `data_seconds` of them on
    average), `image_seconds` those of evaluated images. Memory is the peak of one process, and what the device has, in bytes
    (None: not known). `checkpoint_bytes` is one checkpoint; `checkpoints_left` of them may lie in the folder in the end, and
    `checkpoints_at_most` while it runs. `other_bytes` are the log and all else in the folder. `there_bytes` lie there already.
    """

    recipe: str
    device: str
    ranks: int
    done: int
    iterations: int
    step_seconds: tuple[float, ...]
    data_seconds: float
    evaluations: int
    images: int
    image_seconds: tuple[float, ...]
    memory_bytes: int | None
    memory_there: int | None
    checkpoint_bytes: int
    checkpoints_left: int
    checkpoints_at_most: int
    other_bytes: int
    there_bytes: int
    free_bytes: int

    @property
    def training_hours(self) -> Range:
        """All steps that are left as fast as the fastest tenth of the probe's, as their mean, as the slowest tenth."""
        return _hours(self.iterations - self.done, self.step_seconds)

    @property
    def evaluation_hours(self) -> Range:
        """The same of all evaluations."""
        return _hours(self.evaluations * self.images / self.ranks, self.image_seconds)

    @property
    def disk_left(self) -> int:
        """Bytes of the folder in the end."""
        return self.checkpoints_left * self.checkpoint_bytes + self.other_bytes

    @property
    def disk_at_most(self) -> int:
        """Bytes of the folder while the last checkpoint is written."""
        return self.checkpoints_at_most * self.checkpoint_bytes + self.other_bytes

    def warnings(self) -> list[str]:
        """What will not do, with the options that help."""
        found = []
        if self.disk_at_most - self.there_bytes > self.free_bytes:
            found.append(
                f"the disk has {self.free_bytes / 1e9:.1f} GB left, and the run needs "
                f"{(self.disk_at_most - self.there_bytes) / 1e9:.1f} GB: --settings.keep 1 keeps fewer checkpoints, and --out "
                "takes another disk"
            )
        if self.memory_bytes is not None and self.memory_there is not None and self.memory_bytes > 0.9 * self.memory_there:
            found.append(
                f"{self.memory_bytes / 1e9:.1f} of {self.memory_there / 1e9:.1f} GB of memory leave little room: a larger "
                "--accumulate, --recompute-blocks or a smaller --augmentation.crop needs less, and so does a run without "
                "--in-memory"
            )
        if self.data_seconds > 0.1 * float(np.mean(self.step_seconds)):
            found.append(
                f"{self.data_seconds:.2f} s of a step are spent waiting for images: more --workers, --cache or --in-memory "
                "help, and --device-colors on a GPU"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return asdict(self) | {
            "training_hours": self.training_hours,
            "evaluation_hours": self.evaluation_hours,
            "disk_left": self.disk_left,
            "disk_at_most": self.disk_at_most,
            "warnings": self.warnings(),
        }


def estimate(
    recipe: Recipe,
    roots: Roots,
    *,
    folder: str | Path,
    weights: str | Path | None = None,
    resume: bool = False,
    runtime: Runtime = Runtime(),  # noqa: B008  # frozen
    seconds: float = 60.0,
) -> Estimate:
    """Foretell what `run` with the same arguments takes, from a probe of about `seconds`, or of two steps where they are slow.

    `folder` is not touched. With `resume` the iterations that the run there still has are counted. Under `torchrun` every
    process calls this. Raises `ValueError` where `run` does, for a run that is finished, and where the memory of the GPU does
    not do; `NotWritten` where nothing can be written beside `folder`.
    """
    folder = Path(folder)
    with process_group(runtime.device or usable_device()) as own:
        device = usable_device(own)
        begun = checkpoints(folder / CHECKPOINTS) if resume else []
        newest = newest_whole(folder / CHECKPOINTS) if resume else None
        done = 0 if newest is None else iteration_of(newest)
        if done >= recipe.settings.iterations:
            raise ValueError(
                f"{folder} must hold a run that is not finished, got one of {done} iterations; leave out resume to "
                "estimate it anew"
            )
        there = bytes_below(folder) if resume else 0
        plan = _Plan(recipe.settings, [iteration_of(path) for path in begun], done)
        parts = put_together(recipe, roots, weights=weights, resume=resume, runtime=replace(runtime, device=device))
        with _beside(folder) as (probe, free), _enough_memory(recipe):
            measured = measure(recipe, parts, probe, device, seconds=seconds)
        memory = peak_memory_mb()
        return Estimate(
            recipe=recipe.name,
            device=device,
            ranks=world_size(),
            done=done,
            iterations=recipe.settings.iterations,
            step_seconds=measured.step_seconds,
            data_seconds=measured.data_seconds,
            evaluations=len(plan.evaluations),
            images=len(parts.validation_data),
            image_seconds=measured.image_seconds,
            memory_bytes=round(memory * 1e6) if memory > 0 else None,
            memory_there=this_machine(device).memory,
            checkpoint_bytes=measured.files.checkpoint,
            checkpoints_left=plan.left,
            checkpoints_at_most=plan.at_most,
            other_bytes=(there - sum(map(bytes_below, begun)) if begun else measured.files.rest)
            + len(plan.lines) * measured.files.line
            + len(plan.evaluations) * measured.files.evaluation,
            there_bytes=there,
            free_bytes=free,
        )


class _Plan:
    """After which iterations a run writes what, from `done` on, with checkpoints of `begun` there already."""

    def __init__(self, settings: TrainSettings, begun: list[int], done: int) -> None:
        def due(every: int) -> set[int]:
            return {i for i in range(done + 1, settings.iterations + 1) if i % every == 0} | {settings.iterations}

        self.lines, self.evaluations = due(settings.log_every), due(settings.evaluate_every)
        saved = sorted({*begun, *due(settings.checkpoint_every), *self.evaluations})
        last = saved[-settings.keep :]
        best = any(i not in last for i in {*begun, *self.evaluations})  # one of those may be the best, and is kept then
        self.left = len(last) + best
        self.at_most = min(len(saved), self.left + 1)


@contextmanager
def _beside(folder: Path) -> Iterator[tuple[Path, int]]:
    """A folder on the disk where `folder` is or will be, and the bytes that are free there; removed in the end."""
    existing = next(path for path in folder.absolute().parents if path.is_dir())
    made: list[Path] = []

    def make() -> tuple[Path, int]:
        free = shutil.disk_usage(existing).free
        with writing(folder):
            made.append(Path(tempfile.mkdtemp(prefix=".estimate.", dir=existing)))
        return made[0], free

    try:
        yield by_first(make)
    finally:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _enough_memory(recipe: Recipe) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"a step must fit into the memory of the device, got more ({str(error).splitlines()[0]}); try --accumulate "
            f"{2 * recipe.settings.accumulate}, --recompute-blocks, or a smaller --augmentation.crop"
        ) from None


def _hours(times: float, seconds: tuple[float, ...]) -> Range:
    low, high = np.quantile(seconds, (0.1, 0.9))
    mean = np.mean(seconds)  # which a single slow step may take beyond the slowest tenth of a few
    return (
        times * float(min(low, mean)) / 3600,
        times * float(mean) / 3600,
        times * float(max(high, mean)) / 3600,
    )
