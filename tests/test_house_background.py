"""torch-scatter built behind the demo's back, by real processes: one at a time, in nobody's way, safe against interruptions.

The environment is a folder whose Python pretends to be pip: it waits for the file `go on`, then leaves a wheel.
"""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import background
import install
import scatter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the pretended Python is a script that starts with #!")

PIP = """#!{python} -IS
import os, pathlib, subprocess, sys, time, zipfile
here = pathlib.Path({here!r})
with (here / "builds").open("a") as builds:
    builds.write(f"{{os.getpid()}}\\n")
compiler = subprocess.Popen(["sleep", "240"])
(here / "compiler").write_text(str(compiler.pid))
while not (here / "go on").exists():
    time.sleep(0.02)
compiler.kill()
if (here / "fail").exists():
    sys.exit("no such header")
wheel = pathlib.Path(sys.argv[sys.argv.index("--wheel-dir") + 1], "torch_scatter-2.1.2-any.whl")
with zipfile.ZipFile(wheel, "w") as archive:
    archive.writestr("torch_scatter/__init__.py", "")
    archive.writestr("torch_scatter-2.1.2.dist-info/METADATA", "Name: torch-scatter\\nVersion: 2.1.2\\n")
"""


FRONT = "import install; install.sums(install.Scatter(install.Path({!r})), waits=True, again=False)"


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with torch in name only; its builds wait for the file `go on` beside it."""
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(install, "obstacle", lambda: None)
    return make(tmp_path / "venv", tmp_path)


def make(folder: Path, here: Path) -> Path:
    site = Path(sysconfig.get_path("platlib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "torch-2.13.0.dist-info").mkdir(parents=True)
    (site / "torch-2.13.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.13.0\n")
    (folder / "pyvenv.cfg").touch()
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(PIP.format(python=sys.executable, here=str(here)))
    (folder / "bin" / "python").chmod(0o755)
    return folder


def begin(venv: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, str(ROOT / "tools/scatter.py"), str(venv)], start_new_session=True)


def until(holds: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def lives(process: int) -> bool:
    """Whether a process runs; what has ended and is waited for by nobody does not."""
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(status.strip()) and not status.startswith("Z")


def builds(here: Path) -> int:
    return len((here / "builds").read_text().splitlines()) if (here / "builds").exists() else 0


def line(venv: Path) -> str:
    return str(json.loads((venv / "torch-scatter.json").read_text())["line"])


def compiler(here: Path) -> int:
    """The process that stands for the compiler, once it runs."""
    until(lambda: (here / "compiler").exists() and (here / "compiler").read_text())
    return int((here / "compiler").read_text())


def test_the_demo_does_not_wait_nor_feel_it_and_the_next_command_has_it(
    venv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install.sums(scatter.Scatter(venv), waits=False, again=False)
    assert "torch-scatter: being built in the background" in capsys.readouterr().out
    process = compiler(tmp_path)
    assert os.getpriority(os.PRIO_PROCESS, process) == 19
    if sys.platform == "linux":
        assert os.sched_getscheduler(process) == os.SCHED_IDLE
    assert not scatter.Scatter(venv).installed()
    (tmp_path / "go on").touch()
    until(lambda: line(venv) == "built")
    install.sums(scatter.Scatter(venv), waits=True, again=False)
    assert capsys.readouterr().out == ""
    assert builds(tmp_path) == 1


def test_two_that_start_at_once_build_once_and_both_environments_have_it(venv: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other", tmp_path)
    builders = [begin(venv), begin(other)]
    until(lambda: builds(tmp_path))
    (tmp_path / "go on").touch()
    assert [builder.wait(120) for builder in builders] == [0, 0]
    assert builds(tmp_path) == 1
    assert {line(venv), line(other)} == {"built", "from the cache"}
    assert scatter.Scatter(venv).installed()
    assert scatter.Scatter(other).installed()


def test_who_waits_for_it_builds_it_instead(venv: Path, tmp_path: Path) -> None:
    builder = begin(venv)
    first = compiler(tmp_path)
    front = subprocess.Popen(
        [
            sys.executable,
            "-c",
            FRONT.format(str(venv)),
        ],
        cwd=ROOT / "tools",
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: builds(tmp_path) == 2)
    until(lambda: not lives(first))
    (tmp_path / "go on").touch()
    said, _ = front.communicate(timeout=120)
    assert said.startswith("torch-scatter: built")
    assert builder.wait(120) == 0
    assert builds(tmp_path) == 2


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_an_interrupted_build_holds_up_nobody(how: signal.Signals, venv: Path, tmp_path: Path) -> None:
    builder = begin(venv)
    until(lambda: builds(tmp_path))
    builder.send_signal(how)
    builder.wait(120)
    again = begin(venv)
    until(lambda: builds(tmp_path) == 2)
    (tmp_path / "go on").touch()
    assert again.wait(120) == 0
    assert scatter.Scatter(venv).installed()
    assert sorted(path.suffix for path in (tmp_path / "cache" / "wheels").glob("*/*")) == ["", ".whl"]  # the lock and the wheel


def test_nothing_comes_of_it_when_the_environment_is_removed(venv: Path, tmp_path: Path) -> None:
    builder = begin(venv)
    process = compiler(tmp_path)
    venv.rename(tmp_path / "removed")  # a name it does not know: gone for the builder
    assert builder.wait(120) == 0
    until(lambda: not lives(process))
    assert not venv.exists()
    assert list((tmp_path / "cache" / "wheels").glob("*/*.whl")) == []


def test_an_environment_made_anew_meanwhile_is_left_alone(venv: Path, tmp_path: Path) -> None:
    builder = begin(venv)
    until(lambda: builds(tmp_path))
    venv.rename(tmp_path / "removed")
    make(venv, tmp_path)
    assert builder.wait(120) == 0
    assert not (venv / "torch-scatter.json").exists()
    assert not scatter.Scatter(venv).installed()


def test_a_failure_is_told_with_its_log_and_tried_again_only_by_who_waits(
    venv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fail").touch()
    (tmp_path / "go on").touch()
    assert begin(venv).wait(120) == 0
    said = f"torch-scatter: could not be built (log: {venv / 'install-torch-scatter.log'}); {scatter.INSTEAD}"
    for waits, tried in ((False, 1), (True, 2), (True, 2), (False, 2)):
        install.sums(scatter.Scatter(venv), waits=waits, again=False)
        assert capsys.readouterr().out.startswith(said)
        assert builds(tmp_path) == tried
    assert "no such header" in (venv / "install-torch-scatter.log").read_text()


def test_one_built_for_another_torch_is_taken_away(venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "go on").touch()
    assert begin(venv).wait(120) == 0
    site = scatter.Scatter(venv).site
    (site / "torch-2.13.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.14.0\n")
    monkeypatch.setattr(install, "obstacle", lambda: "there is no C++ compiler")
    install.sums(scatter.Scatter(venv), waits=False, again=False)
    assert list(site.glob("torch_scatter*")) == []


def test_what_broke_off_is_no_longer_running(tmp_path: Path) -> None:
    state = background.State(tmp_path, "torch-scatter")
    state.write("being built", running=True)
    assert state.read()["running"]
    long_ago = time.time() - 2 * background.SILENT
    os.utime(state.path, (long_ago, long_ago))
    assert not state.read()["running"]
