"""The training loop in plain PyTorch: steps, and between them a diary, checkpoints and evaluations.

A run is a function of its settings, its model and its loader alone: torch's generator is seeded anew for every iteration
from (seed, iteration), and the loader gives the batches of any iteration on request. So a run that was killed and resumed
on the same CPU, with the same threads and versions, ends in the same bits as one that never was. Several processes that
`torch.distributed` joins are one run: all call `fit`, each with its slices of the same batches (see `distributed`).
"""

import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

import vistalib
from vistalib.progress import progress
from vistalib.provenance import peak_memory_mb
from vistalib.threads import say_if_spinning
from vistalib.train import checkpoint as store
from vistalib.train.distributed import any_rank, barrier, by_first, rank, share_buffers, world_size
from vistalib.train.guard import FiniteGuard, Interrupted, StopSignals, run_lock
from vistalib.train.log import NAME as LOG
from vistalib.train.log import JsonLog, Line, Window
from vistalib.train.precision import float32_products
from vistalib.train.schedule import learning_rate
from vistalib.train.settings import TrainSettings
from vistalib.train.sharding import gather, is_sharded, part_of, read_parts, shard, whole, write_parts
from vistalib.train.step import Batch, Stepper, check_statistics, freeze, make_optimizer, train_mode

# Settings that a resumed run need not share: how often it is written down, and how the machine it moved to computes.
MAY_CHANGE = ("log_every", "checkpoint_every", "evaluate_every", "keep", "accumulate", "compile", "cuda_graphs", "shard")
Evaluate = Callable[[Any], Mapping[str, Any]]


class Loader(Protocol):
    """Where batches come from.

    Each is {"image": (B, 3, H, W) float, "label": (B, H, W) int64, "sample": (B,) int64}; the same iteration, the same batch.
    """

    def batches(self, start: int) -> Iterator[Any]:
        """The batches of iterations start, start + 1, ... without end."""
        ...


@dataclass(frozen=True)
class FitResult:
    """Where a finished run lies and how well it did, last and best (None: not evaluated); `seconds` are those of this call."""

    folder: Path
    iterations: int
    last: Path
    last_mean_iou: float | None
    best: Path | None
    best_mean_iou: float | None
    seconds: float


def fit(
    model: nn.Module,
    loader: Loader,
    settings: TrainSettings,
    *,
    folder: str | Path,
    evaluate: Evaluate | None = None,
    device: str | torch.device = "cpu",
    resume: bool = False,
    on_log: Callable[[Line], None] | None = None,
    about: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train `model` in place for `settings.iterations` iterations; everything the run leaves lies in `folder`.

    `model.loss(image, label)` gives a dict of scalars; those whose key contains "loss" are summed. `evaluate(model)` gives a
    dict of plain values with "mean_iou"; it is called every `evaluate_every` iterations and at the end, on the model in eval
    mode, by every rank, and must give all of them the same. With `settings.ema_decay` it sees the averaged weights, and these
    are what the model has in the end. `on_log` sees each line of the log. `about` (plain values: the
    model's name, its classes) goes into every checkpoint's state. `resume=True` goes on from the newest whole checkpoint, or
    begins where there is none. With `settings.shard` and several ranks, `model` holds its weights only in `evaluate` and after
    the call: what is trained is its twin (see `sharding`).

    SIGTERM and SIGINT write a checkpoint after the current step and raise `Interrupted` (exit status 75). Raises
    `NonFiniteLoss` when the loss or its gradient is not finite; `ValueError` for a folder that holds a run already or is in
    use, and for a checkpoint of other settings or of another model; `OSError` when the folder cannot be written.
    """
    folder, device, began = Path(folder), torch.device(device), time.monotonic()
    if settings.warmup_iters > settings.iterations:
        warnings.warn(
            f"warmup_iters={settings.warmup_iters} is longer than the run of {settings.iterations} iterations", stacklevel=2
        )
    with ExitStack() as held, StopSignals() as signals:
        by_first(lambda: _claim(held, folder, resume))
        freeze(model.to(device), settings)
        train_mode(model, settings)
        trained = shard(model) if settings.shard and world_size() > 1 else model
        optimizer = make_optimizer(trained, settings)
        found = _restore(folder / store.CHECKPOINTS, trained, optimizer, settings)
        check_statistics(trained, settings)
        step = Stepper(trained, optimizer, settings, FiniteGuard(device))
        step.average.swap()  # a checkpoint's model has the averaged weights
        if found.scaler:
            step.scaler.load_state_dict(found.scaler)
        start, pool = found.iteration, held.enter_context(ThreadPoolExecutor(1))
        log = held.enter_context(JsonLog(folder, until=start, writes=rank() == 0))
        held.enter_context(float32_products(step.precision))
        run = _Run(folder, model, step, settings, log, signals, evaluate, on_log, dict(about or {}), pool, found.window)
        if run.evaluation_due(start) and not log.has_evaluation(start):  # stopped between a checkpoint and its evaluation
            run.evaluate_now(start)
        steps: Iterable[int] = range(start, settings.iterations)
        if rank() == 0:
            say_if_spinning(device)
            steps = progress(steps, "training", total=settings.iterations, start=start)
        for iteration, batch in zip(steps, run.waiting_for(loader.batches(start)), strict=False):
            run.window.add(step(batch, iteration))
            run.after_step(iteration + 1)
        step.average.swap()
        return run.result(time.monotonic() - began)


@dataclass
class _Run:
    """What a run does between its steps; `done` counts finished iterations."""

    folder: Path
    model: nn.Module
    step: Stepper
    settings: TrainSettings
    log: JsonLog
    signals: StopSignals
    evaluate: Evaluate | None
    on_log: Callable[[Line], None] | None
    about: dict[str, Any]
    pool: ThreadPoolExecutor  # of one thread: it writes checkpoints while the training goes on
    window: Window
    writing: Future[None] | None = None
    since: float = field(default_factory=time.monotonic)  # the moment of the last line of the log
    waited: float = 0.0  # seconds of data loading since then
    steps: int = 0

    @property
    def trained(self) -> nn.Module:
        """The model, or its twin that is shared out among the ranks."""
        return self.step.model

    @property
    def parent(self) -> Path:
        return self.folder / store.CHECKPOINTS

    def waiting_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass the batches on, noting how long each was waited for."""
        before = time.monotonic()
        for batch in batches:
            self.waited += time.monotonic() - before
            self.steps += 1
            yield batch
            before = time.monotonic()
        raise ValueError("loader.batches(start) must go on without end, it stopped; let it begin the next epoch by itself")

    def after_step(self, done: int) -> None:
        """Log, save and evaluate, where it is time to."""
        last, stop = done == self.settings.iterations, any_rank(self.signals.requested)
        if done % self.settings.log_every == 0 or last:
            self.log_window(done)
        evaluate = self.evaluation_due(done)
        if evaluate or last or stop or done % self.settings.checkpoint_every == 0:
            saved = self.save(done)
            if stop and not (last and not evaluate):
                self.written()
                raise Interrupted(saved)
        if evaluate:
            self.evaluate_now(done)

    def log_window(self, done: int) -> None:
        self.step.guard.check()
        scale = {"loss_scale": self.step.scaler.get_scale()} if self.step.scaler.is_enabled() else {}
        memory = peak_memory_mb()
        self.write(
            {
                "kind": "train",
                "iteration": done,
                "lr": learning_rate(done - 1, self.settings),
                **self.window.means(),
                **scale,
                "seconds": (time.monotonic() - self.since) / self.steps,
                "data_seconds": self.waited / self.steps,
                "memory_mb": memory if memory == memory else None,  # not known on every system
            }
        )
        self.window = Window()
        self.restart_clock()

    def save(self, done: int) -> Path:
        """Begin to write a checkpoint; the training waits for a copy of its tensors, and for the checkpoint before."""
        self.step.guard.check()
        state = {
            "settings": asdict(self.settings),
            "window": self.window.state(),
            "scaler": self.step.scaler.state_dict(),
            "about": self.about,
            "versions": {"vistalib": vistalib.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        }
        by_first(self.get_ready_to_write)
        with self.step.average.in_place():
            model, optimizer = self.trained.state_dict(), store.optimizer_tensors(self.step.optimizer)
            sharded = is_sharded(self.trained)
            if sharded:
                parts = write_parts(self.parent, model | optimizer)
            elif rank() == 0:
                model, optimizer = store.snapshot(model), store.snapshot(optimizer)
        if rank() == 0 and sharded:
            shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (model, optimizer)]
            self.writing = self.pool.submit(self.join_checkpoint, done, parts, shapes, state)
        elif rank() == 0:
            self.writing = self.pool.submit(self.write_checkpoint, done, model, optimizer, state)
        return self.parent / store.name_of(done)

    def get_ready_to_write(self) -> None:
        self.wait_for_writing()
        self.log.sync()

    def write_checkpoint(self, done: int, model: store.Tensors, optimizer: store.Tensors, state: dict[str, Any]) -> None:
        store.save_checkpoint(self.parent, done, model=model, optimizer=optimizer, state=state)
        self.keep_best()

    def join_checkpoint(self, done: int, parts: Path, shapes: list[dict[str, torch.Size]], state: dict[str, Any]) -> None:
        try:
            model, optimizer = (read_parts(parts, names) for names in shapes)
            self.write_checkpoint(done, model, optimizer, state)
        finally:
            shutil.rmtree(parts, ignore_errors=True)

    def wait_for_writing(self) -> None:
        """Return once the checkpoint that was begun lies on the disk; raises what went wrong with it."""
        if self.writing is not None:
            self.writing.result()
            self.writing = None

    def written(self) -> None:
        """`wait_for_writing`, on every rank."""
        self.wait_for_writing()
        barrier()

    def evaluation_due(self, done: int) -> bool:
        last = done == self.settings.iterations
        return self.evaluate is not None and done > 0 and (done % self.settings.evaluate_every == 0 or last)

    def evaluate_now(self, done: int) -> None:
        """Evaluate the weights that iteration `done`'s checkpoint holds; so a signal need not wait for the end of it."""
        assert self.evaluate is not None
        since = time.monotonic()
        share_buffers(self.trained)
        try:
            interruptible = self.signals.raising(self.parent / store.name_of(done))
            with self.step.average.in_place(), whole(self.model, self.trained) as model, torch.no_grad(), interruptible:
                result = dict(self.evaluate(model.eval()))
        except Interrupted:
            self.wait_for_writing()  # what it says of the checkpoint must be true
            raise
        train_mode(self.model, self.settings)
        if "mean_iou" not in result:
            raise ValueError(f"evaluate must return a dict with 'mean_iou', got the keys {sorted(result)}; add it")
        self.write({"kind": "evaluation", "iteration": done, **result, "seconds": time.monotonic() - since})
        self.written()
        if rank() == 0:
            self.keep_best()
        self.restart_clock()

    def keep_best(self) -> None:
        best, best_mean_iou = self.best()
        store.keep_only(self.parent, self.settings.keep, best=best, best_mean_iou=best_mean_iou)

    def best(self) -> tuple[Path | None, float | None]:
        """The evaluated checkpoint with the highest mean IoU (the first of equals) that is still there, and that mean IoU."""
        best, best_mean_iou = None, None
        for line in self.log.evaluations():
            folder = self.parent / store.name_of(line["iteration"])
            if line["mean_iou"] is not None and folder.is_dir() and (best_mean_iou is None or line["mean_iou"] > best_mean_iou):
                best, best_mean_iou = folder, line["mean_iou"]
        return best, best_mean_iou

    def result(self, seconds: float) -> FitResult:
        self.written()
        gather(self.trained, into=self.model)
        best, best_mean_iou = self.best()
        evaluations = self.log.evaluations()
        last_mean_iou = evaluations[-1]["mean_iou"] if evaluations else None
        last = store.checkpoints(self.parent)[-1]
        return FitResult(self.folder, self.settings.iterations, last, last_mean_iou, best, best_mean_iou, seconds)

    def write(self, line: Line) -> None:
        self.log.write(line)
        if self.on_log is not None and rank() == 0:
            self.on_log(line)

    def restart_clock(self) -> None:
        self.since, self.waited, self.steps = time.monotonic(), 0.0, 0


def _claim(held: ExitStack, folder: Path, resume: bool) -> None:
    """Lock `folder` for as long as `held` is, and refuse to begin where a run lies already."""
    held.enter_context(run_lock(folder))
    log = folder / LOG
    if not resume and ((log.exists() and log.stat().st_size) or store.checkpoints(folder / store.CHECKPOINTS)):
        raise ValueError(
            f"{folder} already holds a run; go on with resume=True (--resume on the command line), or choose a new folder"
        )


@dataclass(frozen=True)
class _Found:
    """What a run goes on from beside its tensors: the iterations done, the open window of the log, the loss scale."""

    iteration: int = 0
    window: Window = field(default_factory=Window)
    scaler: dict[str, Any] = field(default_factory=dict)


def _restore(parent: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: TrainSettings) -> _Found:
    """Load the newest whole checkpoint, if there is one; every rank reads it."""
    newest = by_first(lambda: store.tidy(parent))
    if newest is None:
        return _Found()
    found = store.read_checkpoint(newest, optimizer=True)
    before, now = found.state["settings"], json.loads(json.dumps(asdict(settings)))
    changed = [
        f"{name} was {before[name]!r}, now {now[name]!r}"
        for name in now
        if name in before and name not in MAY_CHANGE and before[name] != now[name]
    ]
    if changed:
        raise ValueError(
            f"{newest} must be resumed with its own settings: {'; '.join(changed)}; set them back, or choose a new folder"
        )
    shapes, theirs = ({name: tensor.shape for name, tensor in state.items()} for state in (model.state_dict(), found.model))
    if different := [name for name in {**shapes, **theirs} if shapes.get(name) != theirs.get(name)]:
        raise ValueError(
            f"{newest} is of another model: {len(different)} tensors differ in name or shape, first {different[0]}; "
            "build the model that the run began with, or choose a new folder"
        )
    ours = model.state_dict()
    model.load_state_dict({name: part_of(value, like=ours[name]) for name, value in found.model.items()})
    parameters = dict(model.named_parameters())
    moments = {key: part_of(value, like=parameters[key.rpartition("/")[0]]) for key, value in found.optimizer.items()}
    store.restore_optimizer(optimizer, moments)
    return _Found(found.state["iteration"], Window(found.state["window"]), found.state.get("scaler", {}))
