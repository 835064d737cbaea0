"""`vistalib kernels build`: what it builds, what it says, and what `vistalib doctor` repeats of a failure."""

import sys
from pathlib import Path

import pytest
import torch
from kernels_helpers import library

from vistalib.cli import main
from vistalib.files import read_json

pytest.importorskip("vistalib_kernels")
FAILING = f"#!{sys.executable}\nimport sys\nprint('cc1plus: error: No space left on device')\nsys.exit(1)\n"


@pytest.fixture
def failing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a C++ compiler that cannot write."""
    compiler = tmp_path / "c++"
    compiler.write_text(FAILING)
    compiler.chmod(0o755)
    monkeypatch.setenv("VISTALIB_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(compiler))


def test_the_record_of_a_build_says_by_what_and_for_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library()
    assert main(["kernels", "build", "--json", str(tmp_path / "built.json")]) == 0
    record = read_json(tmp_path / "built.json")
    assert set(record) == {"path", "seconds", "compiler", "cuda", "architectures", "note"}
    assert Path(record["path"]).exists()
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"already built: {record['path']}"
    assert last.startswith(f"for CPUs by {record['compiler']}, and for ")


@pytest.mark.usefixtures("failing_compiler")
def test_a_failed_build_ends_with_the_first_error_and_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "build"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("vistalib: c++ failed: cc1plus: error: No space left on device\nthe disk is full: make room")
    assert "Traceback" not in said


@pytest.mark.usefixtures("failing_compiler")
def test_doctor_repeats_why_a_build_failed_and_what_helps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vistalib_kernels import extension

    monkeypatch.setattr(extension, "_loaded", None)  # a test before this one may have built it
    main(["kernels", "build"])
    capsys.readouterr()
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "not usable  the last build failed: c++ failed: cc1plus: error: No space left on device" in said
    assert "make room" in said
    assert "run: python -m vistalib kernels build" in said


@pytest.mark.parametrize("name", ["9.0", "sm_90", "hopper"])
def test_an_architecture_is_a_number(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "build", "--architectures", name]) == 1
    assert f"must be compute capabilities without a point, got {name!r}" in capsys.readouterr().err


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_architectures_need_a_torch_with_cuda(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTALIB_KERNELS_CACHE", str(tmp_path))
    assert main(["kernels", "build", "--architectures", "90"]) == 1
    assert "nothing can be built for GPUs: this torch was built for CPUs" in capsys.readouterr().err
