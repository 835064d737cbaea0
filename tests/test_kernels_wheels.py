"""Wheels that bring the compiled library along: what is in them, and when that library is taken."""

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from kernels_helpers import library

vistalib_kernels = pytest.importorskip("vistalib_kernels")
build = pytest.importorskip("vistalib_kernels.build")
USE = """
import torch
from vistalib_kernels import build, extension
value, offset, mask = torch.randn(1, 4, 4, 8), torch.zeros(1, 4, 4, 18), torch.zeros(1, 4, 4, 9)
mask[..., 4] = 1  # the centre alone: the output is the value
pairs = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
output = extension.forward(value, offset, mask, groups=1, **pairs, offset_scale=1.0, mask_is_logits=False)
print(extension.load().path, torch.equal(output, value), sep="\\n")
"""


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that brings a library along, and an empty cache."""
    made = dataclasses.asdict(build.Built("", 1.0, "c++", "13.0", ("90",), ""))
    (tmp_path / build.RECORD).write_text(json.dumps(made | {"key": build.shipped_key()}))
    (tmp_path / build.LIBRARY).write_text("machine code")
    monkeypatch.setattr(build, "SHIPPED", tmp_path)
    monkeypatch.setenv("VISTALIB_KERNELS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_library_from_the_wheel_is_taken_where_it_fits(shipped: Path) -> None:
    assert build.find() == build.Built(str(shipped / build.LIBRARY), 1.0, "c++", "13.0", ("90",), "")


def test_a_library_for_something_else_is_not_taken(shipped: Path) -> None:
    record = json.loads((shipped / build.RECORD).read_text())
    (shipped / build.RECORD).write_text(json.dumps(record | {"key": "0" * 16}))
    assert build.find() is None


@pytest.mark.parametrize(("cuda", "fits"), [("13.0", True), ("13.2", True), ("12.8", False), (None, False)], ids=str)
def test_a_library_from_the_wheel_serves_one_major_version_of_cuda(
    cuda: str | None, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(version: str | None) -> str:
        monkeypatch.setattr(torch.version, "cuda", version)
        build.shipped_key.cache_clear()
        return str(build.shipped_key())

    try:
        assert (key("13.1") == key(cuda)) == fits
    finally:
        build.shipped_key.cache_clear()


def test_a_library_that_was_built_here_comes_first(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = build.folder()
    own.mkdir(parents=True)
    made = dataclasses.asdict(build.Built("", 2.0, "c++", None, (), ""))
    (own / build.RECORD).write_text(json.dumps(made | {"key": build.key()}))
    assert build.find().path == str(own / build.LIBRARY)


@pytest.mark.slow
def test_the_wheel_of_this_torch_runs_where_it_is_installed(tmp_path: Path) -> None:
    library()  # skips where there is no C++ compiler
    site, wheels = tmp_path / "site", tmp_path / "wheels"
    command = [sys.executable, str(ROOT / "tools" / "wheels.py"), "--architectures", "90", "--out", str(wheels)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    compiled, pure = sorted(wheels.iterdir(), key=lambda path: "none-any" in path.name)
    major, version = (torch.version.cuda or "").partition(".")[0], vistalib_kernels.__version__
    assert compiled.name.startswith(f"vistalib_kernels-{version}+{f'cu{major}' if major else 'cpu'}-py3-none-")
    parts = {"vistalib_kernels/built/vistalib_kernels.so", "vistalib_kernels/built/build.json"}
    inside = [set(zipfile.ZipFile(path).namelist()) for path in (compiled, pure)]
    assert parts <= inside[0]
    assert not parts & inside[1]
    install = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(site), str(compiled)]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "VISTALIB_KERNELS_CACHE": str(tmp_path / "cache")}
    used = subprocess.run([sys.executable, "-c", USE], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert used.stdout.splitlines() == [str(site / "vistalib_kernels/built/vistalib_kernels.so"), "True"], used.stderr
