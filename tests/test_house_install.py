"""The install script: where the wheel is kept, when it does nothing, and what it says where it cannot build."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import background
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


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> scatter.Scatter:
    """torch-scatter for the torch of this environment, to be installed into an empty folder; the cache is empty, too."""
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    there = scatter.Scatter(Path(sys.prefix))
    there.site, there.state = tmp_path, background.State(tmp_path, "torch-scatter")
    return there


def test_a_kept_wheel_is_used_again(here: scatter.Scatter, capsys: pytest.CaptureFixture[str]) -> None:
    import sysconfig

    import torch

    key = f"{torch.__version__}-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    wheel = scatter.cache_folder() / "wheels" / key / "torch_scatter-2.1.2-kept.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("torch_scatter/__init__.py", "")
    install.sums(here, waits=False, again=False)
    assert capsys.readouterr().out == "torch-scatter: from the cache\n"
    assert here.installed()


def test_without_a_compiler_the_line_says_what_is_used_instead_until_there_is_one(
    here: scatter.Scatter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = list[object]()
    monkeypatch.setattr(background, "start", lambda *command: started.append(command))
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        bare.delenv("CXX", raising=False)
        install.sums(here, waits=True, again=False)
    missing = "torch-scatter: not built, since there is no C++ compiler; vistalib uses torch's index_add_ instead\n"
    assert (capsys.readouterr().out, started) == (missing, [])
    monkeypatch.setattr(install, "obstacle", lambda: None)
    install.sums(here, waits=False, again=False)
    assert "being built" in capsys.readouterr().out
    assert len(started) == 1


def test_bytecode_is_kept_even_where_it_is_switched_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "large.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    install.Import("large", Path(sys.executable)).work()
    assert list(tmp_path.glob("__pycache__/large.*.pyc"))


def test_make_hands_on_no_word_against_bytecode(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(f"include {ROOT}/Makefile\nsay:\n\t@echo [$$PYTHONDONTWRITEBYTECODE]\n")
    variables = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(["make", "-s", "-C", tmp_path, "say"], capture_output=True, text=True, env=variables).stdout
    assert said == "[]\n"


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
