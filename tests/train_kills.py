"""Kill a run at every touch of its folder, resume it, and compare; `test_train_resume.py` calls `main` in a process of its own.

Each run is forked from this process, which keeps to one thread so that it can be. A child ends itself without any clean-up in
the place of its n-th file operation (open, rename, remove, make or remove a folder, sync), n = 1, 1 + every, ... until a run
gets through; this process resumes it. Prints `kills resumed_differently`.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
from train_helpers import Noise, score, settings, steady, tiny

from vistalib.train import fit, load_checkpoint, read_log

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
KILLED = 9


def die_at(number: int, folder: Path) -> None:
    """End this process in the place of its `number`-th operation on files under `folder`."""
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(KILLED)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and str(arguments[0]).startswith(str(folder)):
            count()

    sync = os.fsync

    def counted_sync(handle: int) -> None:
        count()
        sync(handle)

    sys.addaudithook(hook)
    os.fsync = counted_sync


def killed(folder: Path, number: int) -> bool:
    """Train in a child that dies at its `number`-th operation; whether it came to that."""
    child = os.fork()
    if child == 0:
        try:
            die_at(number, folder)
            train(folder, resume=False)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED), status
    return status == KILLED


def train(folder: Path, *, resume: bool) -> str:
    """Train, and give what came of it: the bits of the weights, and the log without times."""
    fit(tiny(), Noise(), settings(), folder=folder, evaluate=score, resume=resume)
    weights = load_checkpoint(folder).model
    digest = hashlib.sha256(b"".join(name.encode() + value.numpy().tobytes() for name, value in sorted(weights.items())))
    return digest.hexdigest() + json.dumps(steady(read_log(folder)))


def main(root: Path, every: int) -> None:
    torch.set_num_threads(1)
    expected = train(root / "whole", resume=False)
    number, kills, different = 1, 0, 0
    while killed(folder := root / f"killed_{number}", number):
        kills += 1
        ending = train(folder, resume=True)
        if ending != expected or list((folder / "checkpoints").glob(".*")):
            print(f"different after a kill at operation {number}")
            different += 1
        number += every
    print(kills, different)
