"""Make the environment `.venv` of this checkout: torch first, then all the rest while torch-scatter is being built.

    python tools/install.py                    # what the demo needs
    python tools/install.py --extras dev       # tests, checks and the book as well

It runs on Linux, macOS and Windows and needs only Python 3.11 or newer. Where nothing changed since the last time it
returns at once: a stamp in the environment holds a hash of everything that decides what is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import scatter

ROOT = Path(__file__).resolve().parent.parent
DECIDES = (
    "pyproject.toml",
    "constraints.txt",
    "kernels/pyproject.toml",
    "kernels/setup.py",
    "tools/install.py",
    "tools/scatter.py",
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
        install(options.extras, with_scatter=not options.no_scatter, again=options.again)
    except Failure as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class Failure(Exception):
    """An installation step that failed; the message says which one and where its log is."""


def install(extras: str, *, with_scatter: bool, again: bool) -> None:
    """Bring `.venv` up to date with the checkout for `extras`."""
    folder = ROOT / ".venv"
    stamp = folder / "vistalib.json"
    key = fingerprint(with_scatter)
    done = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
    if done.get("key") == key and EXTRAS.index(done["extras"]) >= EXTRAS.index(extras) and not again:
        return
    if done.get("key") == key:
        extras = max(extras, done["extras"], key=EXTRAS.index)
    began = time.monotonic()
    python = environment(folder)
    run_jobs(Pip("torch", python, "pip", "setuptools", "wheel", "numpy", "torch"))
    packages = Pip("packages", python, "--no-build-isolation", "-e", f".[{extras}]", "-e", "./kernels")
    note = "left out as asked"
    if with_scatter:
        builder = Scatter(python, again=again)
        run_jobs(packages, builder)
        note = builder.state
        if builder.wheel is not None:
            run_jobs(Pip("torch-scatter", python, "--no-deps", "--no-index", "--force-reinstall", str(builder.wheel)))
    else:
        run_jobs(packages)
    stamp.write_text(json.dumps({"key": key, "extras": extras, "torch-scatter": note}, indent=1) + "\n", encoding="utf-8")
    print(f"environment: ready in {time.monotonic() - began:.0f} s ({extras}; torch-scatter: {note})", flush=True)


def fingerprint(with_scatter: bool) -> str:
    """A hash over everything that decides what is installed; a compiler that appears later counts too."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix} {with_scatter} {scatter.obstacle()}".encode())
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
        quiet = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
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


class Scatter(Job):
    """torch-scatter's wheel: from the cache, or built; where it cannot be built, `wheel` stays None and `state` says why."""

    def __init__(self, python: Path, *, again: bool) -> None:
        super().__init__("torch-scatter")
        self.python, self.again = python, again
        self.wheel: Path | None = None

    def work(self) -> None:
        """Find or build the wheel."""
        self.wheel, self.state = scatter.provide(self.python, ROOT / "constraints.txt", again=self.again, say=self.say)

    def say(self, state: str) -> None:
        """Take the builder's progress over into the shared line."""
        self.state = state


def run_jobs(*jobs: Job) -> None:
    """Run `jobs` side by side, saying how far they are; raises `Failure` with the first error."""
    began = said = time.monotonic()
    live = sys.stdout.isatty()
    for job in jobs:
        job.start()
    while any(job.is_alive() for job in jobs):
        time.sleep(0.2)
        if time.monotonic() - said >= (0.5 if live else EVERY):
            said = time.monotonic()
            report(jobs, said - began, live)
    report(jobs, time.monotonic() - began, live, last=True)
    for job in jobs:
        if job.error:
            raise Failure(job.error)


def report(jobs: tuple[Job, ...], seconds: float, live: bool, *, last: bool = False) -> None:
    """Print one line about all jobs; on a terminal it replaces the line before."""
    line = " | ".join(f"{job.title}: {job.state}" for job in jobs) + f", {seconds:.0f} s"
    if live:
        width = shutil.get_terminal_size().columns - 1
        print("\r" + line[:width].ljust(width), end="\n" if last else "", flush=True)
    else:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
