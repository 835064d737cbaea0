"""Threads sleep while they wait: what each order of imports makes of it, and what a run says where it is too late."""

import os
import subprocess
import sys

import pytest

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


def test_the_policy_is_there_when_a_room_loads_torch() -> None:
    """OpenMP reads it when PyTorch is loaded and shows what it took where it is asked to."""
    shown = python("import vistalib.ops", OMP_DISPLAY_ENV="TRUE").stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown or "OMP_WAIT_POLICY='PASSIVE'" in shown


@pytest.mark.parametrize(
    ("before", "threads", "device", "said"),
    [
        ("import torch", 2, "cpu", 1),
        ("import vistalib", 2, "cpu", 0),
        pytest.param("import torch", 1, "cpu", 0, marks=pytest.mark.slow),
        pytest.param("import torch", 2, "cuda", 0, marks=pytest.mark.slow),
    ],
    ids=["torch first", "vistalib first", "one thread", "a GPU"],
)
def test_a_run_says_once_that_torch_came_first(before: str, threads: int, device: str, said: int) -> None:
    code = f"{before}\nimport vistalib\n{RUN.format(threads=threads, device=device)}"
    assert python(code).stderr.count(NOTICE) == said


def test_who_chose_is_not_told() -> None:
    code = f"import torch, vistalib\n{RUN.format(threads=2, device='cpu')}"
    assert NOTICE not in python(code, OMP_WAIT_POLICY="PASSIVE").stderr
