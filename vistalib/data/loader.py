"""Batches for training: decoded and augmented in worker processes, in an order that only the seed decides.

Layout: image (B, 3, h, w) float32, label (B, h, w) int64, sample (B,) int64. Letters: B batch of this rank; h, w crop.

Colours are changed and normalised by the workers, or, with `colors_on`, on a device by the process that trains. The bytes are
the same; it is worth it where there are few cores for a fast GPU.
"""

import signal
import time
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from vistalib.data.augment import Augmentation
from vistalib.data.dataset import Samples
from vistalib.data.device_colors import DeviceColors, packed
from vistalib.data.sampler import ClassBalance, Sampler

Sample = dict[str, Tensor]
AHEAD = 2  # batches that a worker makes before it is asked


class TrainLoader:
    """Endless batches of augmented samples; sample n is the same for any number of workers and ranks, and after any resume.

    `batch_size` is that of all ranks together; each of the `world_size` ranks yields its equal share of every batch.
    `num_workers=0` decodes in this process. `balance` draws rare classes more often. `colors_on` is a device on which colours
    are changed; batches are then there.
    Raises `ValueError` when the ranks cannot share a batch equally, and for less than no workers.
    """

    def __init__(
        self,
        dataset: Samples,
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        balance: ClassBalance | None = None,
        colors_on: str | torch.device | None = None,
    ) -> None:
        if batch_size < 1 or world_size < 1 or batch_size % world_size:
            nearest = max(1, round(batch_size / max(world_size, 1))) * max(world_size, 1)
            raise ValueError(
                f"batch_size (of all ranks together) must be a positive multiple of world_size, got batch_size={batch_size} "
                f"and world_size={world_size}; try batch_size={nearest}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}; ranks count from 0")
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {num_workers}; 0 decodes in this process")
        self.sampler = Sampler(len(dataset), seed, balance)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.num_workers = num_workers
        self._finish = _with_long_labels if colors_on is None else DeviceColors(colors_on)
        self._samples = _AugmentedSamples(dataset, augmentation, self.sampler, colors=colors_on is None)

    def batches(self, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of steps `start`, `start + 1`, ... without end, each a dict of "image", "label" and "sample".

        A sample that cannot be read raises `ValueError` with the file's name, from a worker too.
        """
        return map(self._finish, self.handed_out(start))

    def handed_out(self, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches as workers hand them out: labels are uint8, an eighth of the bytes; images, too, with `colors_on`."""
        loader = DataLoader(
            self._samples,
            batch_sampler=_Steps(self, start),
            num_workers=self.num_workers,
            prefetch_factor=AHEAD if self.num_workers else None,
            collate_fn=collate,
            worker_init_fn=start_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # it draws a seed that nothing here uses: not from the model's stream
        )
        for batch in loader:
            if isinstance(batch, str):
                raise ValueError(batch)
            yield batch


def loader_speed(loader: TrainLoader, seconds: float = 5.0) -> float:
    """Samples a second of one rank, from when the workers have handed out what they had made before they were asked."""
    batches = loader.batches()
    for _ in range(AHEAD * loader.num_workers + 1):
        next(batches)
    began, samples = time.perf_counter(), 0
    while samples == 0 or time.perf_counter() - began < seconds:
        samples += len(next(batches)["sample"])
    return samples / (time.perf_counter() - began)


def _with_long_labels(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    label = batch["label"].long()
    return batch | {"label": label.pin_memory() if batch["label"].is_pinned() else label}


class _Steps:
    """The sample numbers of one rank, step after step; picklable, so that it can start again anywhere."""

    def __init__(self, loader: TrainLoader, start: int) -> None:
        self.loader, self.start = loader, start

    def __iter__(self) -> Iterator[list[int]]:
        step, loader = self.start, self.loader
        while True:
            yield list(loader.sampler.step(step, batch_size=loader.batch_size, rank=loader.rank, world_size=loader.world_size))
            step += 1


class _AugmentedSamples(Dataset[Sample | str]):
    """Sample number -> augmented sample; a user's mistake comes back as its sentence, which a worker's traceback would bury."""

    def __init__(self, dataset: Samples, augmentation: Augmentation, sampler: Sampler, *, colors: bool) -> None:
        self.dataset, self.augmentation, self.sampler, self.colors = dataset, augmentation, sampler, colors

    def __getitem__(self, n: int) -> Sample | str:
        index, seed = self.sampler[n]
        rng = np.random.RandomState(seed)
        try:
            opened = self.dataset.open(index)
            if not self.colors:
                return packed(self.augmentation.crop(*opened, rng), self.augmentation.settings.crop) | {
                    "sample": torch.tensor(n)
                }
            image, label = self.augmentation(*opened, rng)
        except ValueError as error:
            return str(error)
        return {"image": image, "label": label, "sample": torch.tensor(n)}


def collate(samples: list[Sample | str]) -> Sample | str:
    """A batch of samples, or the sentence that one of them is."""
    whole: list[Sample] = []
    for sample in samples:
        if isinstance(sample, str):
            return sample
        whole.append(sample)
    return {key: default_collate([sample[key] for sample in whole]) for key in whole[0]}  # in a worker, in memory it shares


def start_worker(_: int) -> None:
    """What a process does before its first sample.

    Ctrl-C, `timeout`, batch systems and containers tell all processes of a training to stop, not the first alone. It is for the
    first to end them, when it has written its checkpoint: without its workers it could not finish the step.
    """
    cv2.setNumThreads(0)  # the workers are the parallelism, and OpenCV's own threads do not survive a fork
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
