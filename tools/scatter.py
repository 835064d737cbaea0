"""Build torch-scatter's wheel once for this torch, Python and platform, and keep it for the next checkout.

torch-scatter comes as source, and its `setup.py` imports torch and turns ninja off: a plain `pip install` fails under build
isolation, and compiles its extensions one after another. Here it is built against the installed torch with the extensions
side by side (setuptools reads `parallel` from the file that DIST_EXTRA_CONFIG names), and the wheel goes to the user's cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

INSTEAD = "vistalib uses torch's index_add_ instead"


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


def provide(python: Path, constraints: Path, *, again: bool, say: Callable[[str], None]) -> tuple[Path | None, str]:
    """The wheel for the torch that `python` has, and a note; without a compiler (None, the sentence that says so)."""
    identify = "import torch, sys, sysconfig; print(torch.__version__, sys.implementation.cache_tag, sysconfig.get_platform())"
    key = "-".join(subprocess.run([str(python), "-c", identify], capture_output=True, text=True, check=True).stdout.split())
    folder = cache_folder() / "wheels" / key
    if not again and (kept := sorted(folder.glob("torch_scatter-*.whl"))):
        return kept[-1], "from the cache"
    if reason := obstacle():
        return None, f"not built, since {reason}; {INSTEAD}"
    began = time.monotonic()
    log = python.parent.parent / "install-torch-scatter.log"
    with tempfile.TemporaryDirectory(prefix="vistalib-scatter-") as name:
        built = build(python, constraints, Path(name), log=log, say=say)
        if built is None:
            return None, f"could not be built (log: {log}); {INSTEAD}"
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{os.getpid()}.part"
        shutil.copyfile(built, beside)
        wheel = beside.replace(folder / built.name)
    return wheel, f"built in {time.monotonic() - began:.0f} s"


def build(python: Path, constraints: Path, folder: Path, *, log: Path, say: Callable[[str], None]) -> Path | None:
    """Build the wheel inside `folder`, saying how many of its files are compiled; None when the build fails."""
    settings = folder / "parallel.cfg"
    settings.write_text(f"[build_ext]\nparallel = {cores()}\n", encoding="utf-8")
    variables = os.environ | {"DIST_EXTRA_CONFIG": str(settings)} | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    if sys.platform != "win32":  # many Pythons hand on -g, whose debug information doubles the time
        variables |= {name: f"{os.environ.get(name, '')} -g0".strip() for name in ("CFLAGS", "CXXFLAGS")}
    # pip's own cache of built wheels does not ask which torch a wheel was built against: leave it out.
    command = [str(python), "-m", "pip", "wheel", "--no-cache-dir", "--no-build-isolation", "--no-deps"]
    command += ["--constraint", str(constraints), "--wheel-dir", str(folder), "torch-scatter"]
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(1)
                say(f"building, {compiled(folder)}, {time.monotonic() - began:.0f} s")
        finally:
            process.kill()
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
