"""Which backend a call gets, and what is said when one is missing, broken or not built."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import run_with_torch
from ops_helpers import random_inputs

from vistalib.ops import backend_status, backends, dcnv3

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
    assert list(rows) == ["torch", "cpp", "numba", "numba-cuda", "cuda"]
    assert rows["torch"].usable


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["numba-cuda", "cuda"])
def test_without_a_gpu_the_kernels_for_gpus_say_so(name: str) -> None:
    row = next(row for row in backend_status() if row.name == name)
    assert (row.usable, row.reason, row.repair) == (False, "PyTorch finds no NVIDIA GPU here", None)


@pytest.mark.parametrize("name", ["numba-cuda", "cuda"])
def test_kernels_for_gpus_refuse_tensors_of_cpus(name: str) -> None:
    inputs = random_inputs()
    with pytest.raises(ValueError, match=f"backend '{name}' runs on CUDA tensors, got device cpu"):
        dcnv3(*inputs.tensors, **inputs.settings, backend=name)


def test_without_its_package_numba_cuda_names_the_command() -> None:
    printed = run_with_torch(
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


def test_a_backend_that_does_not_exist_is_a_value_error() -> None:
    inputs = random_inputs()
    with pytest.raises(ValueError, match="backend must be one of auto, torch, cpp, numba, numba-cuda, cuda, got 'fast'"):
        dcnv3(*inputs.tensors, **inputs.settings, backend="fast")


@pytest.mark.parametrize("name", ["numba", "cpp"])
def test_kernels_for_cpus_refuse_tensors_of_other_devices(name: str) -> None:
    inputs = random_inputs()
    with pytest.raises(ValueError, match=f"backend '{name}' runs on CPU tensors, got device meta"):
        dcnv3(*(tensor.to("meta") for tensor in inputs.tensors), **inputs.settings, backend=name)


class Kernels:
    """Kernels that give `answer` when asked whether they are usable."""

    def __init__(self, answer: bool | Exception) -> None:
        self.answer = answer

    def status(self) -> tuple[bool, str, None]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, "so it is", None


@pytest.fixture
def nothing_found_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_usable", set())


@pytest.fixture
def determinism(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


# What a machine with a GPU would answer; None: not installed.
@pytest.mark.parametrize(
    ("cuda", "numba_cuda", "determinism", "taken"),
    [
        pytest.param(True, True, False, "cuda", id="compiled-first"),
        pytest.param(False, True, False, "numba-cuda", id="then-numba"),
        pytest.param(None, False, False, "torch", id="then-torch"),
        pytest.param(None, True, True, "torch", id="numba-is-not-deterministic"),
        pytest.param(True, True, True, "cuda", id="compiled-is-deterministic"),
    ],
    indirect=["determinism"],
)
@pytest.mark.usefixtures("nothing_found_yet", "determinism")
def test_auto_takes_on_cuda_the_first_that_is_usable(
    cuda: bool | None, numba_cuda: bool | None, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {
        name: answer if answer is None else Kernels(answer) for name, answer in (("cuda", cuda), ("numba-cuda", numba_cuda))
    }
    monkeypatch.setattr(backends, "_load", there.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backends.choose_backend("auto", "cuda") == taken


@pytest.mark.usefixtures("nothing_found_yet")
def test_auto_does_not_pass_over_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Kernels(RuntimeError("x.so does not load; run: it again"))
    monkeypatch.setattr(backends, "_load", {"cuda": broken, "numba-cuda": Kernels(True)}.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match="does not load; run: it again"):
        backends.choose_backend("auto", "cuda")


@pytest.mark.usefixtures("nothing_found_yet")
def test_auto_never_takes_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_load", {"numba": None, "cpp": Kernels(True)}.__getitem__)
    assert backends.choose_backend("auto", "cpu") == "torch"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was built."""
    extension = pytest.importorskip("vistalib_kernels.extension")
    monkeypatch.setattr(backends, "_usable", set())
    monkeypatch.setattr(extension, "_loaded", None)
    monkeypatch.setenv("VISTALIB_KERNELS_CACHE", str(tmp_path))


@pytest.mark.usefixtures("empty_cache")
def test_a_twin_that_was_not_built_names_the_command() -> None:
    inputs = random_inputs()
    with pytest.raises(RuntimeError, match="'cpp' cannot be used: not built; run: python -m vistalib kernels build, or pass"):
        dcnv3(*inputs.tensors, **inputs.settings, backend="cpp")


@pytest.mark.usefixtures("empty_cache")
def test_a_library_that_does_not_load_is_broken() -> None:
    from vistalib_kernels import build

    made = build.Built("", 1.0, "c++", None, (), "")
    build.folder().mkdir(parents=True)
    (build.folder() / build.LIBRARY).write_text("no library")
    (build.folder() / build.RECORD).write_text(json.dumps(dataclasses.asdict(made) | {"key": build.key()}))
    row = next(row for row in backend_status() if row.name == "cpp")
    assert "does not load: " in row.reason
    assert (row.usable, row.repair) == (False, "python -m vistalib kernels build --again")


def test_the_first_error_of_the_gpu_kernels_is_kept(tmp_path: Path) -> None:
    package = tmp_path / "vistalib_kernels"
    package.mkdir()
    (package / "__init__.py").write_text("attempts = []\n")
    (package / "numba_cuda.py").write_text(
        "from vistalib_kernels import attempts\nattempts.append(None)\nraise OSError(f'attempt {len(attempts)}')\n"
    )
    (tmp_path / "numba_cuda.py").write_text("")
    printed = run_with_torch(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from vistalib.ops.backends import kernels\n"
        "for attempt in range(2):\n    try:\n        kernels('numba-cuda')\n"
        "    except RuntimeError as error:\n        print(error)"
    )
    assert [line.partition("; run")[0] for line in printed.splitlines()] == [
        "backend 'numba-cuda' is installed but does not load: OSError: attempt 1"
    ] * 2


@pytest.mark.parametrize("package", ["numba", "vistalib_kernels"])
def test_without_the_package_auto_works_and_numba_names_the_command(package: str) -> None:
    printed = run_with_torch(
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
    printed = run_with_torch(
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
    printed = run_with_torch(
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
    printed = run_with_torch(f"import sys; sys.modules[{lacking!r}] = None\n{CALL}\nprint(error('auto'))")
    assert printed.startswith("RuntimeError: backend 'numba' is installed but does not load: ModuleNotFoundError")
    assert lacking in printed


def test_importing_the_room_imports_no_numba() -> None:
    assert run_with_torch("import sys, vistalib.ops; print('numba' in sys.modules)") == "False"
