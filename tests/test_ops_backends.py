"""Which backend a call gets, and what is said when one is missing, broken or not built."""

from pathlib import Path

import pytest
import torch
from helpers import run_python
from ops_helpers import random_inputs

from vistalib.ops import backend_status, dcnv3

CALL = """
import torch
from vistalib.ops import backend_status, dcnv3
tensors = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 18), torch.ones(1, 2, 2, 9)
call = lambda backend: dcnv3(*tensors, groups=1, backend=backend)
def error(backend):
    try:
        call(backend)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
status = {row.name: row for row in backend_status()}["numba"]
"""


def test_status_has_a_row_for_every_backend() -> None:
    rows = {row.name: row for row in backend_status()}
    assert list(rows) == ["torch", "numba", "numba-cuda", "cuda"]
    assert rows["torch"].usable
    assert rows["cuda"].reason == "not part of this version"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_kernels_for_gpus_say_so() -> None:
    row = next(row for row in backend_status() if row.name == "numba-cuda")
    assert (row.usable, row.reason, row.repair) == (False, "PyTorch finds no NVIDIA GPU here", None)


def test_numba_cuda_refuses_tensors_of_cpus() -> None:
    inputs = random_inputs()
    with pytest.raises(ValueError, match="backend 'numba-cuda' runs on CUDA tensors, got device cpu"):
        dcnv3(*inputs.tensors, **inputs.settings, backend="numba-cuda")


def test_without_its_package_numba_cuda_names_the_command() -> None:
    printed = run_python(
        "import sys; sys.modules['numba_cuda'] = None\n"
        "from vistalib.ops.backends import choose_backend\n"
        "try:\n    choose_backend('numba-cuda', 'cuda')\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    assert printed.startswith("backend 'numba-cuda' is not installed; run: python -m pip install \"vistalib-kernels[cu1")


def test_auto_takes_numba_on_cpus() -> None:
    pytest.importorskip("numba")
    inputs = random_inputs()
    auto = dcnv3(*inputs.tensors, **inputs.settings)
    assert torch.equal(auto, dcnv3(*inputs.tensors, **inputs.settings, backend="numba"))
    assert not torch.equal(auto, dcnv3(*inputs.tensors, **inputs.settings, backend="torch"))


def test_auto_takes_torch_on_other_devices() -> None:
    inputs = random_inputs()
    assert dcnv3(*(tensor.to("meta") for tensor in inputs.tensors), **inputs.settings).shape == inputs.grad_output.shape


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cuda", "not part of this version"),
        ("fast", "backend must be one of auto, torch, numba, numba-cuda, cuda, got 'fast'"),
    ],
)
def test_a_backend_that_does_not_exist_is_a_value_error(name: str, sentence: str) -> None:
    inputs = random_inputs()
    with pytest.raises(ValueError, match=sentence):
        dcnv3(*inputs.tensors, **inputs.settings, backend=name)


def test_numba_refuses_tensors_of_other_devices() -> None:
    inputs = random_inputs()
    with pytest.raises(ValueError, match="runs on CPU tensors, got device meta"):
        dcnv3(*(tensor.to("meta") for tensor in inputs.tensors), **inputs.settings, backend="numba")


@pytest.mark.parametrize("package", ["numba", "vistalib_kernels"])
def test_without_the_package_auto_works_and_numba_names_the_command(package: str) -> None:
    printed = run_python(
        f"import sys; sys.modules[{package!r}] = None\n{CALL}\n"
        "print(call('auto').sum().item(), status.usable, status.reason, status.repair, error('numba'), sep=' | ')"
    )
    command = "python -m pip install vistalib-kernels"
    assert printed == (
        f"32.0 | False | not installed | {command} | ModuleNotFoundError: backend 'numba' is not installed; run: {command}"
    )


def test_a_broken_package_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    package = tmp_path / "vistalib_kernels"
    package.mkdir()
    (package / "__init__.py").write_text('raise ImportError("libfoo.so.1: cannot open shared object file")\n')
    printed = run_python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{CALL}\n"
        "print(status.usable, error('auto'), call('torch').sum().item(), sep=' | ')"
    )
    usable, said, by_torch = printed.split(" | ")
    assert usable == "False"
    assert said.startswith("RuntimeError: backend 'numba' is installed but does not load: ImportError: libfoo.so.1")
    assert by_torch == "32.0"


def test_the_first_error_of_a_broken_package_is_the_one_that_is_told(tmp_path: Path) -> None:
    package = tmp_path / "vistalib_kernels"
    package.mkdir()
    (package / "__init__.py").write_text("attempts = []\n")
    (package / "numba_cpu.py").write_text(
        "from vistalib_kernels import attempts\n"
        "attempts.append(None)\n"
        "raise OSError(f'attempt {len(attempts)}: no space left')\n"
    )
    printed = run_python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{CALL}\n"
        "from vistalib.cli import main\n"
        "print(error('auto'), error('numba'), status.reason, sep='\\n')\nmain(['doctor'])"
    )
    assert "attempt 2" not in printed
    auto, numba, reason, *doctor = printed.splitlines()
    for line in (auto, numba, reason, next(line for line in doctor if "numba " in line and "usable" in line)):
        assert "is installed but does not load: OSError: attempt 1: no space left" in line
    assert "python -m pip install --force-reinstall vistalib-kernels" in auto
    assert any("python -m pip install --force-reinstall vistalib-kernels" in line for line in doctor)


@pytest.mark.parametrize("lacking", ["vistalib_kernels.simd", "llvmlite"])
def test_a_package_with_a_part_missing_is_broken(lacking: str) -> None:
    printed = run_python(f"import sys; sys.modules[{lacking!r}] = None\n{CALL}\nprint(error('auto'))")
    assert printed.startswith("RuntimeError: backend 'numba' is installed but does not load: ModuleNotFoundError")
    assert lacking in printed


def test_importing_the_room_imports_no_numba() -> None:
    assert run_python("import sys, vistalib.ops; print('numba' in sys.modules)") == "False"
