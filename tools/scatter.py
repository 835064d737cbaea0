"""torch-scatter for an environment: built once for this torch, Python and platform, kept for the next checkout.

It comes as source, and its `setup.py` imports torch and turns ninja off: a plain `pip install` fails under build isolation, and
compiles its extensions one after another. Here it is built against the installed torch, and the wheel goes to the user's cache:
with one compiler behind the back of whatever runs (`python tools/scatter.py VENV`), or with all cores while the user waits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import background

INSTEAD = "vistalib uses torch's index_add_ instead"
CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
Say = Callable[[str], None]


class Wanted(Exception):
    """Somebody waits for what is being built behind their back, and builds it faster."""


def cache_folder() -> Path:
    """Where wheels are kept between checkouts: VISTALIB_CACHE, or the user's cache folder of this system."""
    if own := os.environ.get("VISTALIB_CACHE"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "vistalib"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "vistalib"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "vistalib"


def obstacle() -> str | None:
    """Why C++ extensions cannot be built here, or None where they can."""
    names = ("cl",) if sys.platform == "win32" else (os.environ.get("CXX", "c++"), "g++", "clang++")
    if not any(shutil.which(name) for name in names):
        return "there is no C++ compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers are not installed"
    return None


class Scatter:
    """torch-scatter in the environment `venv`, which has torch and this process's version of Python."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.site = Path(sysconfig.get_path("platlib", "venv", vars={"base": str(venv), "platbase": str(venv)}))
        self.torch = next((found.version for found in distributions(name="torch", path=[str(self.site)])), None)
        self.key = f"{self.torch}-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
        self.kept = cache_folder() / "wheels" / self.key
        self.log = venv / "install-torch-scatter.log"
        self.state = background.State(venv, "torch-scatter")
        self.made = (venv / "pyvenv.cfg").stat()

    def installed(self) -> bool:
        """Whether it is there, for the torch that is there."""
        return (self.site / "torch_scatter").exists() and self.state.read().get("for", self.key) == self.key

    def wheel(self) -> Path | None:
        """The wheel in the cache."""
        return max(self.kept.glob("torch_scatter-*.whl"), default=None)

    def remove(self) -> None:
        """Take it away: built for another torch it fails at its import."""
        for path in self.site.glob("torch_scatter*"):
            shutil.rmtree(path)

    def install(self, wheel: Path, how: str) -> None:
        """Unpack `wheel` beside its place and move it there in one step, as somebody may be importing just now."""
        with tempfile.TemporaryDirectory(prefix=".torch-scatter-", dir=self.site) as beside:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(beside)
            for part in sorted(Path(beside).iterdir(), reverse=True):  # its metadata, then the package
                with contextlib.suppress(OSError):  # another process was faster
                    part.rename(self.site / part.name)
        self.state.write(how, **{"for": self.key})

    def provide(self, say: Say, *, behind: bool, again: bool = False) -> None:
        """Install it, built if need be; the state says whether that succeeded. One process builds at a time.

        `behind` somebody's back it stops with `Wanted` as soon as another process wants to build while its user waits.
        """
        wanted = self.kept / "wanted"

        def waiting() -> None:
            say("being built by another command")
            if not behind:
                wanted.touch()

        with background.lock(self.kept / "lock", waiting):
            wanted.unlink(missing_ok=True)
            wheel, how = None if again else self.wheel(), "from the cache"
            if wheel is None:
                for old in self.kept.glob("build-*"):  # of a builder that was killed
                    shutil.rmtree(old, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix="build-", dir=self.kept, ignore_cleanup_errors=True) as name:
                    built = self._build(Path(name), say, wanted if behind else None)
                    if not self.there():
                        raise background.Gone(str(self.venv))
                    if built is not None:
                        wheel = built.replace(self.kept / built.name)
                        how = "built"
        if wheel is None:
            self.failed(f"log: {self.log}", waited=not behind)
            return
        if again:
            self.remove()
        self.install(wheel, how)

    def running(self, line: str) -> None:
        """Note how far its build in the background is."""
        self.state.write(f"{line} (log: {self.log}); until then {INSTEAD}", running=True, building=self.key)

    def failed(self, reason: str, *, waited: bool) -> None:
        """Note that it could not be built, and whether somebody `waited`: then it is not tried again."""
        self.state.write(f"could not be built ({reason}); {INSTEAD}", failed=self.key, waited=waited)

    def there(self) -> bool:
        """Whether the environment is still the one that it was, with the same torch."""
        try:
            now = Scatter(self.venv)
        except FileNotFoundError:
            return False
        return (now.made.st_ino, now.made.st_mtime_ns, now.key) == (self.made.st_ino, self.made.st_mtime_ns, self.key)

    def _build(self, folder: Path, say: Say, wanted: Path | None) -> Path | None:
        """Build the wheel inside `folder`, saying how many of its files are compiled; None when the build fails."""
        settings = folder / "parallel.cfg"
        settings.write_text(f"[build_ext]\nparallel = {cores() if wanted is None else 1}\n", encoding="utf-8")
        variables = os.environ | {"DIST_EXTRA_CONFIG": str(settings)} | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
        variables["FORCE_ONLY_CPU"] = "1"  # sums are torch's own on a GPU, too; nvcc would take minutes for the rest
        if sys.platform != "win32":  # many Pythons hand on -g, whose debug information doubles the time
            variables |= {name: f"{os.environ.get(name, '')} -g0".strip() for name in ("CFLAGS", "CXXFLAGS")}
        # pip's own cache of built wheels does not ask which torch a wheel was built against: leave it out.
        command = [str(self.python), "-m", "pip", "wheel", "--no-cache-dir", "--no-build-isolation", "--no-deps"]
        command += ["--constraint", str(CONSTRAINTS), "--wheel-dir", str(folder), "torch-scatter"]
        apart = {} if sys.platform == "win32" else {"process_group": 0}
        where = "" if wanted is None else " in the background"
        with self.log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT, **apart)
            try:
                while process.poll() is None:
                    time.sleep(1)
                    say(f"being built{where}, {compiled(folder)}")
                    if wanted is not None and wanted.exists():
                        raise Wanted
            finally:
                background.stop(process)
        wheels = list(folder.glob("torch_scatter-*.whl"))
        return wheels[0] if process.returncode == 0 and wheels else None


def compiled(folder: Path) -> str:
    """How many of the C++ files under `folder` have their object file."""
    sources = [*folder.glob("*/*/csrc/*.cpp"), *folder.glob("*/*/csrc/cpu/*.cpp")]
    objects = [path for path in folder.glob("*/*/build/temp*/**/*.o*") if path.suffix in (".o", ".obj") and path.stat().st_size]
    return f"{len(objects)} of {len(sources)} files compiled" if sources else "fetching its source"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def behind(venv: Path) -> None:
    """Build and install it behind somebody's back; the state in `venv` is all that is heard of it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that its compiler ends with it
    job, said = Scatter(venv), 0.0

    def say(line: str) -> None:
        nonlocal said
        if not job.there():
            raise background.Gone(str(venv))
        if time.monotonic() - said >= 5:
            said = time.monotonic()
            job.running(line)

    while not job.installed():
        try:
            job.provide(say, behind=True)
            return
        except Wanted:
            time.sleep(2)
        except background.Gone:
            return
        except Exception as error:
            with contextlib.suppress(background.Gone):
                job.failed(str(error), waited=False)
            return


if __name__ == "__main__":
    behind(Path(sys.argv[1]))
