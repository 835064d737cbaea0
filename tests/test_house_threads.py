"""Threads sleep while they wait: what each order of imports makes of it, and what a run says where it is too late."""

import os
import subprocess
import sys

import pytest
from helpers import run_with_torch

NOTICE = "import vistalib` before `import torch"
RUN = """
import torch
from vistalib.threads import say_if_spinning
torch.set_num_threads({threads})
say_if_spinning("{device}"), say_if_spinning("{device}")
"""


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    return subprocess.run([sys.executable, "-c", code], env=clean | variables, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ({"GOMP_SPINCOUNT": "1000"}, "None"),
        ({"KMP_BLOCKTIME": "200"}, "None"),
    ],
    ids=["nothing said", "a policy", "GNU's spin count", "LLVM's block time"],
)
def test_threads_sleep_unless_the_user_chose_otherwise(variables: dict[str, str], expected: str) -> None:
    assert python("import os, vistalib; print(os.environ.get('OMP_WAIT_POLICY'))", **variables).stdout.strip() == expected


def test_a_run_is_quiet_where_vistalib_came_first_and_the_policy_is_there() -> None:
    """OpenMP reads it when PyTorch is loaded and shows what it took where it is asked to."""
    shown = python(f"import vistalib\n{RUN.format(threads=2, device='cpu')}", OMP_DISPLAY_ENV="TRUE").stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown or "OMP_WAIT_POLICY='PASSIVE'" in shown
    assert NOTICE not in shown


@pytest.mark.parametrize(
    ("threads", "device", "chosen", "said"),
    [(2, "cpu", None, 1), (1, "cpu", None, 0), (2, "cuda", None, 0), (2, "cpu", "PASSIVE", 0)],
    ids=["threads", "one thread", "a GPU", "who chose"],
)
def test_a_run_says_once_that_torch_came_first(threads: int, device: str, chosen: str | None, said: int) -> None:
    clean = "import os, sys\nsys.stderr = sys.stdout\nos.environ.pop('OMP_WAIT_POLICY', None)\n"
    clean += f"os.environ['OMP_WAIT_POLICY'] = {chosen!r}\n" if chosen else ""
    assert run_with_torch(f"{clean}import vistalib\n{RUN.format(threads=threads, device=device)}").count(NOTICE) == said
