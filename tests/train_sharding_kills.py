"""Kill one of two ranks that share a model at every touch of the run's folder, resume, and compare; a process of its own.

Usage: train_sharding_kills.py FOLDER EVERY. Both ranks are forked from this process, which keeps to one thread so that they
can be. Either rank ends itself without any clean-up in the place of its n-th file operation, n = 1, 1 + EVERY, ... until a
run gets through; two new ranks resume each run. Prints `kills resumed_differently`.
"""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # these are imported here once, instead of in every child
import torch.distributed.checkpoint.hf_storage
import torch.distributed.fsdp
from train_helpers import bits, settings, steady
from train_kills import KILLED, die_at
from train_ranks import Slices
from train_sharding import parts, score_five

from vistalib.train import fit, process_group, read_log

SHORT = settings(iterations=4, warmup_iters=2, checkpoint_every=3, evaluate_every=4, shard=True)


def ranks(folder: Path, before: Callable[[int], None] = lambda rank: None, *, resume: bool = False) -> list[int]:
    """Train on two ranks, each of which calls `before` with its number first; how the processes ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            ending = 1
            try:
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
                if not resume:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the rank that is left says what it misses
                with process_group("cpu"):
                    before(rank)
                    fit(parts(norms=True), Slices(), SHORT, folder=folder, evaluate=score_five, resume=resume)
                ending = 0
            finally:
                os._exit(ending)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def outcome(folder: Path) -> tuple[dict[str, bytes], str, list[str]]:
    """The bits of the weights, the log without times, and what was left hidden beside the checkpoints."""
    left = [path.name for path in (folder / "checkpoints").glob(".*")]
    return bits(folder), json.dumps(steady(read_log(folder))), left


def main(root: Path, every: int) -> None:
    torch.set_num_threads(1)
    assert ranks(root / "whole") == [0, 0]
    expected = outcome(root / "whole")
    kills, different = 0, 0
    for victim in range(2):
        number = 1
        while True:
            folder = root / f"killed_{victim}_{number}"
            if KILLED not in ranks(folder, lambda rank: die_at(number, folder) if rank == victim else None):  # noqa: B023
                break
            kills += 1
            if ranks(folder, resume=True) != [0, 0] or outcome(folder) != expected:
                print(f"different after a kill of rank {victim} at operation {number}", file=sys.stderr)
                different += 1
            number += every
    print(kills, different)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
