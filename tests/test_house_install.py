"""The install script: where the wheel is kept, when it does nothing, and what it says where it cannot build."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import install
import scatter


@pytest.mark.parametrize(
    ("variable", "ending"), [("VISTALIB_CACHE", ""), ("XDG_CACHE_HOME", "vistalib")], ids=["own variable", "system variable"]
)
def test_the_cache_follows_the_environment(variable: str, ending: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VISTALIB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert scatter.cache_folder() == tmp_path / ending


def test_a_kept_wheel_is_used_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sysconfig

    import torch

    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path))
    key = f"{torch.__version__}-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    wheel = tmp_path / "wheels" / key / "torch_scatter-2.1.2-kept.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    assert scatter.provide(Path(sys.executable), ROOT / "constraints.txt", again=False, say=print) == (wheel, "from the cache")


def test_without_a_compiler_the_note_says_what_is_used_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    wheel, note = scatter.provide(Path(sys.executable), ROOT / "constraints.txt", again=False, say=print)
    assert (wheel, note) == (None, "not built, since there is no C++ compiler; vistalib uses torch's index_add_ instead")


def test_the_fingerprint_changes_when_a_compiler_appears(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scatter, "obstacle", lambda: None)
    with_compiler = install.fingerprint(True)
    monkeypatch.setattr(scatter, "obstacle", lambda: "there is no C++ compiler")
    assert install.fingerprint(True) != with_compiler


def test_help_and_a_wrong_option_answer_without_installing() -> None:
    command = [sys.executable, str(ROOT / "tools/install.py")]
    assert subprocess.run([*command, "--help"], capture_output=True).returncode == 0
    assert subprocess.run([*command, "--extras", "nothing"], capture_output=True).returncode == 2


def test_pip_failing_is_told_with_its_last_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(os.environ, "PIP_NO_INDEX", "1")
    job = install.Pip("nothing", tmp_path / "bin" / "python", "--dry-run", "no-such-package-of-vistalib")
    job.command[0] = sys.executable
    with pytest.raises(install.Failure, match="No matching distribution found for no-such-package-of-vistalib"):
        install.run_jobs(job)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Collecting seaborn>=0.13\n", "collecting seaborn>=0.13"),
        ("  Downloading pyarrow-26.0.1-cp311.whl (45.1 MB)\n", "downloading pyarrow-26.0.1-cp311.whl"),
        ("Processing ./wheels/torch-2.13.0-cp311.whl\n", "processing torch-2.13.0-cp311.whl"),
        ("Installing collected packages: mpmath, sympy, torch\n", "installing 3 packages"),
        ("WARNING: something else\n", None),
    ],
    ids=["collecting", "downloading", "local file", "installing", "other"],
)
def test_pips_output_becomes_a_few_words(line: str, said: str | None) -> None:
    assert install.headline(line) == said
