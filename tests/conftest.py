"""Every test starts from the same seeds and keeps to one thread, so that results and times do not depend on the company."""

import gc
import os
import random
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["VISTALIB_CACHE"] = str(Path(__file__).resolve().parent.parent / "build" / "cache for tests")
os.environ["VISTALIB_KERNELS_CACHE"] = str(Path(__file__).resolve().parent.parent / "build" / "kernels for tests")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What thousands of tests and PyTorch are made of stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # code under test may use the global generator; that must not make a test vary
    torch.manual_seed(0)
