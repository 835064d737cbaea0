"""Make the environment `.venv` of this checkout: torch first, then all the rest; torch-scatter is built behind its back.

    python tools/install.py                    # what the demo needs
    python tools/install.py --extras dev       # tests, checks and the book as well; torch-scatter is waited for

It runs on Linux, macOS and Windows and needs only Python 3.11 or newer. Where nothing changed since the last time it
returns at once: a stamp in the environment holds a hash of everything that decides what is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import background
from scatter import INSTEAD, Scatter, obstacle

ROOT = Path(__file__).resolve().parent.parent
DECIDES = (
    "pyproject.toml",
    "constraints.txt",
    "kernels/pyproject.toml",
    "kernels/setup.py",
    "tools/install.py",
)  # files
EXTRAS = ("demo", "course", "dev")
EVERY = 15.0  # seconds between lines where the output is no terminal


def main() -> int:
    """Parse the command line, install what is missing, and say what was done."""
    parser = argparse.ArgumentParser(description="Make the environment .venv of this checkout.")
    parser.add_argument("--extras", default="demo", choices=EXTRAS, help="what to install beside vistalib (default: demo)")
    parser.add_argument("--again", action="store_true", help="install even if nothing changed, and build torch-scatter anew")
    parser.add_argument("--no-scatter", action="store_true", help="leave torch-scatter out; sums over classes use index_add_")
    options = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036  # this file is also started by whatever `python3` is
        version = sys.version.split()[0]
        print(f"vistalib needs Python 3.11 or newer, this is {version}; run: make PYTHON=python3.12", file=sys.stderr)
        return 2
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that compilers end with it
        with background.lock(ROOT / ".venv.lock", Line("environment: another command is installing")):
            install(options.extras, again=options.again)
        if not options.no_scatter:
            sums(Scatter(ROOT / ".venv"), waits=options.extras == "dev", again=options.again)
    except (Failure, background.Gone) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class Failure(Exception):
    """An installation step that failed; the message says which one and where its log is."""


def install(extras: str, *, again: bool) -> None:
    """Bring `.venv` up to date with the checkout for `extras`."""
    folder = ROOT / ".venv"
    stamp = folder / "vistalib.json"
    key = fingerprint()
    done = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
    if done.get("key") == key and EXTRAS.index(done["extras"]) >= EXTRAS.index(extras) and not again:
        return
    if done.get("key") == key:
        extras = max(extras, done["extras"], key=EXTRAS.index)
    began = time.monotonic()
    python = environment(folder)
    run_jobs(Pip("torch", python, "pip", "setuptools", "wheel", "numpy", "torch"))
    # The first import of torch compiles a thousand files to bytecode: there is a core to spare for it now. So does that of its
    # compiler, which every test process brings along.
    bytecode = Import("torch._dynamo" if extras == "dev" else "torch", python)
    run_jobs(Pip("packages", python, "--no-build-isolation", "-e", f".[{extras}]", "-e", "./kernels"), bytecode)
    stamp.write_text(json.dumps({"key": key, "extras": extras}, indent=1) + "\n", encoding="utf-8")
    print(f"environment: ready in {time.monotonic() - began:.0f} s ({extras})", flush=True)


def sums(scatter: Scatter, *, waits: bool, again: bool) -> None:
    """See to torch-scatter: at once from the cache; else built now where somebody `waits` for it, or in the background.

    As long as it is not there, one line says why.
    """
    if scatter.installed() and not again:
        return
    state, wheel, line = scatter.state.read(), scatter.wheel(), Line("torch-scatter: ")
    if state.get("for", scatter.key) != scatter.key:
        scatter.remove()
    if wheel is not None and not again:
        scatter.install(wheel, "from the cache")
    elif reason := obstacle():
        scatter.state.write(f"not built, since {reason}; {INSTEAD}")
    elif state.get("failed") == scatter.key and (state["waited"] or not waits) and not again:
        pass  # nothing would be different this time; --again tries it again
    elif waits or again:
        try:
            scatter.provide(line, behind=False, again=again)
        except OSError as error:
            scatter.failed(str(error), waited=True)
    elif not state.get("running") or state["building"] != scatter.key:
        scatter.running("being built in the background")
        background.start(sys.executable, ROOT / "tools/scatter.py", scatter.venv)
    line(str(scatter.state.read()["line"]), last=True)


def fingerprint() -> str:
    """A hash over everything that decides what is installed."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix}".encode())
    for name in DECIDES:
        digest.update((ROOT / name).read_bytes() if (ROOT / name).exists() else b"")
    return digest.hexdigest()


def environment(folder: Path) -> Path:
    """The Python of the virtual environment `folder`, made if it is missing or belongs to another Python version."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    version = "import sys; print(*sys.version_info[:2])"
    if python.exists():
        answer = subprocess.run([str(python), "-c", version], capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return python
    print(f"environment: {folder.relative_to(ROOT)} with Python {sys.version.split()[0]}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        reason = (made.stdout + made.stderr).strip()
        raise Failure(f"the environment could not be made: {reason}\n(Debian and Ubuntu: apt-get install python3-venv)")
    return python


class Job(threading.Thread):
    """One step that runs beside others; `state` is what the progress line shows, `error` why it failed."""

    def __init__(self, title: str) -> None:
        super().__init__(daemon=True)
        self.title, self.state, self.error = title, "starting", ""

    def run(self) -> None:
        """Do the work of `work`, keeping an error for the thread that waits."""
        try:
            self.work()
        except Exception as error:
            self.error = f"{self.title}: {error}"

    def work(self) -> None:
        """What the step does."""
        raise NotImplementedError


class Pip(Job):
    """`pip install` under the constraints, its output in a log inside the environment."""

    def __init__(self, title: str, python: Path, *arguments: str) -> None:
        super().__init__(title)
        self.log = python.parent.parent / f"install-{title}.log"
        self.command = [str(python), "-m", "pip", "install", "--progress-bar", "off", "--no-compile"]
        self.command += ["--constraint", "constraints.txt", *arguments]

    def work(self) -> None:
        """Run pip; its latest line is the state."""
        quiet = keeping_bytecode() | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
        pipe = subprocess.PIPE
        lines = []
        with (
            subprocess.Popen(self.command, cwd=ROOT, env=quiet, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process,
            self.log.open("w", encoding="utf-8") as log,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                lines.append(line)
                self.state = headline(line) or self.state
        if process.returncode != 0:
            raise Failure(f"pip failed (whole log: {self.log})\n" + "".join(lines[-12:]))
        self.state = "done"


def headline(line: str) -> str | None:
    """What a line of pip's output says about how far it is, in a few words; None for the other lines."""
    verb, _, rest = line.strip().partition(" ")
    if verb in ("Collecting", "Downloading", "Processing"):
        return f"{verb.lower()} {Path(rest.split()[0]).name}"
    if line.startswith("Installing collected packages:"):
        return f"installing {line.count(',') + 1} packages"
    return None


class Import(Job):
    """The first import of a package, which leaves its bytecode; whether it succeeds is the business of those who use it."""

    def __init__(self, package: str, python: Path) -> None:
        super().__init__(f"bytecode of {package}")
        self.command = [str(python), "-c", f"import {package}"]

    def work(self) -> None:
        """Import it."""
        subprocess.run(self.command, env=keeping_bytecode(), capture_output=True)
        self.state = "done"


def keeping_bytecode() -> dict[str, str]:
    """The variables of this process, but for the one by which every process would compile all it imports anew."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Line:
    """How far something is, in one line that is replaced on a terminal and repeated now and then elsewhere."""

    def __init__(self, title: str = "") -> None:
        self.title, self.began, self.live = title, time.monotonic(), sys.stdout.isatty()
        self.said = self.began

    def __call__(self, state: str = "", *, last: bool = False) -> None:
        """Say it, if it is time to."""
        now = time.monotonic()
        if not last and now - self.said < (0.5 if self.live else EVERY):
            return
        self.said, seconds = now, now - self.began
        line = self.title + state + (f", {seconds:.0f} s" if seconds >= 1 else "")
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print("\r" + line[:width].ljust(width), end="\n" if last else "", flush=True)
        else:
            print(line, flush=True)


def run_jobs(*jobs: Job) -> None:
    """Run `jobs` side by side, saying how far they are; raises `Failure` with the first error."""
    line = Line()
    for job in jobs:
        job.start()
    while any(job.is_alive() for job in jobs):
        time.sleep(0.2)
        line(" | ".join(f"{job.title}: {job.state}" for job in jobs))
    line(" | ".join(f"{job.title}: {job.state}" for job in jobs), last=True)
    for job in jobs:
        if job.error:
            raise Failure(job.error)


if __name__ == "__main__":
    sys.exit(main())
