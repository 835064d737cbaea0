"""What two ranks do, side by side; `test_train_ranks.py` starts both, with the variables that torchrun would set.

Usage: train_ranks.py FOLDER. In FOLDER lie the runs `alone_first` (one process, killed at iteration 7) and, afterwards,
`whole`, `killed` and its copies; `rank_<r>.json` says how each of the attempts ended on this rank.
"""

import json
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from train_helpers import Noise, plain, settings

from vistalib.evaluate import ConfusionMatrix
from vistalib.train import fit, process_group, rank, world_size

BATCH = 4  # images of all ranks


class Power(Exception):
    """The power fails."""


class Slices(Noise):
    """The slices of one rank of the global batches; something happens in the place of iteration `at`."""

    def __init__(self, at: int | None = None, happens: Any = None) -> None:
        super().__init__(batch_size=BATCH)
        self.at, self.happens = at, happens

    def batches(self, start: int) -> Iterator[dict[str, Tensor]]:
        share = BATCH // world_size()
        for iteration, batch in enumerate(super().batches(start), start):
            batch = {name: tensor[rank() * share : (rank() + 1) * share] for name, tensor in batch.items()}
            if iteration == self.at:
                self.happens(batch)
            yield batch


def fail(_: dict[str, Tensor]) -> None:
    raise Power


def spoil_on_rank_1(batch: dict[str, Tensor]) -> None:
    if rank() == 1:
        batch["image"][0] = float("nan")


def signal_to_rank_1(_: dict[str, Tensor]) -> None:
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def shared_score(model: torch.nn.Module) -> dict[str, float]:
    """Six images, of which each rank scores its own."""
    counts = ConfusionMatrix(3)
    for number in range(rank(), 6, world_size()):
        batch = next(Noise(batch_size=1).batches(10_000 + number))
        counts.update(model(batch["image"]).argmax(1), batch["label"])
    counts.all_reduce()
    return {"mean_iou": counts.mean_iou(), "pixels": float(counts.matrix.sum())}


def train(folder: Path, loader: Noise | None = None, *, resume: bool = False, **changes: Any) -> str:
    """How a run ended."""
    seen: list[int] = []
    try:
        fit(
            plain(),
            loader or Slices(),
            settings(**changes),
            folder=folder,
            evaluate=shared_score,
            resume=resume,
            on_log=lambda line: seen.append(line["iteration"]),
        )
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return f"finished, {len(seen)} lines heard"


def main(root: Path) -> None:
    warnings.simplefilter("error")
    with process_group("cpu") as device:
        ends = {"device": device, "whole": train(root / "whole")}
        ends["killed"] = train(root / "killed", Slices(7, fail))
        if rank() == 0:
            shutil.copytree(root / "killed", root / "to_one")
        ends["resumed"] = train(root / "killed", resume=True)
        ends["from_one"] = train(root / "alone_first", resume=True)
        ends["second"] = train(root / "whole")
        ends["spoiled"] = train(root / "spoiled", Slices(4, spoil_on_rank_1))
        ends["told"] = train(root / "told", Slices(5, signal_to_rank_1))
        ends["told_resumed"] = train(root / "told", resume=True)
        ends["accumulated"] = train(root / "accumulated", accumulate=2)
        (root / f"rank_{rank()}.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
