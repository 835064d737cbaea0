"""What two ranks do with a model that they share out; `test_train_sharding.py` starts both, or lets torchrun do it.

Usage: train_sharding.py FOLDER. In FOLDER lie the run `alone_first` (one process, killed at iteration 7) and, afterwards,
those named in `main`; `rank_<r>.json` says how each ended on this rank, and what it held of the model and the optimizer.
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
from torch import Tensor, nn
from train_helpers import Noise, Tiny, settings
from train_ranks import Slices, fail, spoil_on_rank_1

from vistalib.evaluate import ConfusionMatrix
from vistalib.train import fit, process_group, rank, world_size
from vistalib.train.guard import FiniteGuard
from vistalib.train.sharding import shard, whole
from vistalib.train.step import Stepper, make_optimizer


class Parts(Tiny):
    """A model of three units, one of them nested, with a parameter of one row, of which the second rank has none."""

    def __init__(self, *, norm: nn.Module, drop: float) -> None:
        super().__init__()
        self.norm, self.drop = norm, nn.Dropout(drop)
        self.body = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(2))
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image)).relu()
        for block in self.body:
            x = block(x)
        return self.head(self.drop(x * self.gain))

    def units(self) -> list[nn.Module]:
        return [*self.body, self.head]


def parts(*, norms: bool = False) -> Parts:
    """The same for any number of ranks, unless it has `norms`, which are of a rank alone, and dropout."""
    torch.manual_seed(0)
    return Parts(norm=nn.BatchNorm2d(8), drop=0.2) if norms else Parts(norm=nn.GroupNorm(2, 8), drop=0.0)


class Double(Slices):
    """The slices in float64."""

    def batches(self, start: int) -> Iterator[dict[str, Tensor]]:
        return ({**batch, "image": batch["image"].double()} for batch in super().batches(start))


def score_five(model: nn.Module) -> dict[str, float]:
    """Five images of two ranks: one has more than the other, and `evaluate_dataset` moves the model, as here."""
    counts, dtype = ConfusionMatrix(3), next(model.parameters()).dtype
    model.to("cpu")
    for number in range(rank(), 5, world_size()):
        batch = next(Noise(batch_size=1).batches(10_000 + number))
        counts.update(model(batch["image"].to(dtype)).argmax(1), batch["label"])
    counts.all_reduce()
    return {"mean_iou": counts.mean_iou(), "pixels": float(counts.matrix.sum())}


def train(folder: Path, model: nn.Module, loader: Noise | None = None, *, resume: bool = False, **changes: Any) -> str:
    """How a run ended."""
    try:
        result = fit(model, loader or Slices(), settings(**changes), folder=folder, evaluate=score_five, resume=resume)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return f"finished with {result.last_mean_iou}, then {score_five(model.eval())['mean_iou']}"


def held() -> dict[str, int]:
    """Numbers that this rank keeps between steps, and how many all ranks together need to keep."""
    model = parts()
    numbers = sum(parameter.numel() for parameter in model.parameters())
    twin = shard(model)
    optimizer = make_optimizer(twin, settings())
    step, batch = Stepper(twin, optimizer, settings(), FiniteGuard(torch.device("cpu"))), next(Slices().batches(0))
    step(batch, 0)
    before = [parameter.to_local().clone() for parameter in twin.parameters()]
    spoil_on_rank_1(batch)
    step(batch, 1)
    own = [parameter.to_local() for parameter in twin.parameters()]
    moments = [state[name].to_local() for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    left = sum(parameter.numel() for parameter in model.parameters())
    with whole(model, twin):
        lent = sum(parameter.numel() for parameter in model.parameters())
    again = sum(parameter.numel() for parameter in model.parameters())
    return {
        "numbers": numbers,
        "weights": sum(tensor.numel() for tensor in own),
        "memory": sum(tensor.untyped_storage().nbytes() for tensor in own) // 4,
        "moments": sum(tensor.numel() for tensor in moments),
        "left": left,
        "lent": lent,
        "left_again": again,
        "changed": sum(not torch.equal(*pair) for pair in zip(before, own, strict=True)),
    }


def main(root: Path) -> None:
    import resource  # not on Windows, where this file is imported too

    warnings.simplefilter("error")
    with process_group("cpu"):
        ends: dict[str, Any] = {"held": held()}
        for name, changes in {
            "": {},
            "_accumulated": {"accumulate": 2},
            "_frozen": {"frozen": ("stem", "body.0")},
            "_bf16": {"precision": "bf16"},
            "_fp16": {"precision": "fp16"},
            "_averaged": {"ema_decay": 0.5},
        }.items():
            length = {"iterations": 6} if changes else {}
            ends[f"copied{name}"] = train(root / f"copied{name}", parts(), **changes, **length)
            ends[f"sharded{name}"] = train(root / f"sharded{name}", parts(), shard=True, **changes, **length)
        for kind, shared in {"copied": False, "sharded": True}.items():
            ends[f"{kind}_norms"] = train(root / f"{kind}_norms", parts(norms=True), shard=shared)
            ends[f"{kind}_double"] = train(root / f"{kind}_double", parts().double(), Double(), shard=shared)
        ends["killed"] = train(root / "killed", parts(norms=True), Slices(7, fail), shard=True)
        ends["killed_plain"] = train(root / "killed_plain", parts(), Slices(7, fail), shard=True)
        average = {"ema_decay": 0.5, "iterations": 6}
        ends["killed_averaged"] = train(root / "killed_averaged", parts(), Slices(4, fail), shard=True, **average)
        ends["resumed_averaged"] = train(root / "killed_averaged", parts(), resume=True, shard=True, **average)
        if rank() == 0:
            for name in ("to_one", "to_copies"):
                shutil.copytree(root / "killed_plain", root / name)
        ends["resumed"] = train(root / "killed", parts(norms=True), resume=True, shard=True)
        ends["to_copies"] = train(root / "to_copies", parts(), resume=True)
        ends["from_one"] = train(root / "alone_first", parts(), resume=True, shard=True)
        ends["spoiled"] = train(root / "spoiled", parts(), Slices(4, spoil_on_rank_1), shard=True)
        if rank() == 0:
            (root / "in_the_way").mkdir()
            (root / "in_the_way/checkpoints").write_text("a file")
        ends["in_the_way"] = train(root / "in_the_way", parts(), shard=True)
        if rank() == 1:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))
        ends["full"] = train(root / "full", parts(), shard=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        (root / f"rank_{rank()}.json").write_text(json.dumps(ends))


def killed_once(root: Path) -> None:
    """Under torchrun: rank 1 of the first attempt is killed in iteration 7, and the attempt after it resumes."""

    def die(_: dict[str, Tensor]) -> None:
        if rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    with process_group("cpu"):
        fit(
            parts(norms=True),
            Slices(7, die),
            settings(shard=True),
            folder=root / "restarted",
            evaluate=score_five,
            resume=True,
        )


if __name__ == "__main__":
    (killed_once if "TORCHELASTIC_RUN_ID" in os.environ else main)(Path(sys.argv[1]))
