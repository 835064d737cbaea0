"""Building the compiled kernels: the C++ twin with any C++ compiler, the CUDA kernels where torch has CUDA and nvcc is there.

    python -m vistalib kernels build                 # --architectures 80 90 for other machines, --again to build anew

The result is one library in a cache folder, under a name made of the sources, torch's version and CUDA's: what was built for
other ones is never loaded. A wheel may bring a library along, which is taken as long as nothing was built here; by the stable
ABI it serves every torch with its major version of CUDA.

PyTorch's headers are read by the C++ compiler alone; nvcc sees nothing but our files, in a folder of its own, so that blanks in
paths and other CUDA versions' headers do no harm. GPUs get native code only: bare PTX from a newer toolkit is refused by an
older driver.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from vistalib_kernels.remedies import explain

SOURCES = Path(__file__).parent / "csrc"
SHIPPED = Path(__file__).parent / "built"  # only in wheels for one CUDA
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")  # Turing to Blackwell
STABLE_ABI = "0x020a000000000000"  # torch 2.10
LIBRARY, RECORD, FAILURE = "vistalib_kernels.so", "build.json", "failure.txt"
COMMAND = "python -m vistalib kernels build"  # the command of those who use vistalib; `build` for others


class BuildFailed(ChildProcessError):
    """The library could not be built; the message has the compiler's first error and the remedies that are known."""


@dataclass(frozen=True)
class Built:
    """A library that was built, and how."""

    path: str
    seconds: float
    compiler: str
    cuda: str | None  # nvcc's version; None where only the C++ twin was built
    architectures: tuple[str, ...]  # of GPUs
    note: str  # why without CUDA, else ""


@cache
def key() -> str:
    """What a library in the cache must have been built from to fit: our sources, torch, CUDA, the system."""
    return _digest(torch.__version__, torch.version.cuda)


@cache
def shipped_key() -> str:
    """What a library in a wheel must have been built from to fit: our sources, the major version of CUDA, the system."""
    return _digest("any torch of the stable ABI", (torch.version.cuda or "none").partition(".")[0])


def _digest(*facts: str | None) -> str:
    digest = hashlib.sha256(f"{facts} {sys.platform} {platform.machine()}".encode())
    for source in sorted([*SOURCES.iterdir(), Path(__file__)]):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def folder() -> Path:
    """Where this version's library lies or would lie: in VISTALIB_KERNELS_CACHE, else in the user's cache folder."""
    chosen = os.environ.get("VISTALIB_KERNELS_CACHE")
    if not chosen and sys.platform == "darwin":
        chosen = str(Path.home() / "Library" / "Caches" / "vistalib" / "kernels")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(chosen or Path(home, "vistalib", "kernels")) / key()


def find() -> Built | None:
    """The library that fits: the one built here, else the one that the wheel brought along."""
    if sys.platform == "win32":
        return None
    for place, wanted in ((folder(), key()), (SHIPPED, shipped_key())):
        if not (place / RECORD).exists():
            continue
        facts = json.loads((place / RECORD).read_text(encoding="utf-8"))
        if facts.pop("key") == wanted:
            return Built(**facts | {"path": str(place / LIBRARY), "architectures": tuple(facts["architectures"])})
    return None


def last_failure() -> str | None:
    """What went wrong when this version was last built; None once it was built."""
    if sys.platform == "win32" or not (folder() / FAILURE).exists():
        return None
    return (folder() / FAILURE).read_text(encoding="utf-8")


def build(*, architectures: Sequence[str] | None = None, again: bool = False, say: Callable[[str], None] = print) -> Built:
    """Build the library, or return the one that is there. `say` hears which compiler does what, and how long it took.

    `architectures` are compute capabilities without a point ("90"); by default those of the GPUs here, and where there is none,
    or no nvcc, the C++ twin alone is built. Raises `ValueError` for others, `BuildFailed` where it cannot be done.
    """
    if sys.platform == "win32":
        raise BuildFailed(
            "the compiled kernels are not built on Windows; nothing is lost on CUDA, where NVRTC compiles the same kernels at "
            "first use (python -m pip install nvidia-cuda-nvrtc), and on CPUs Numba is faster; or build under WSL"
        )
    for name in architectures or ():
        if not re.fullmatch(r"\d{2,3}", name):
            raise ValueError(f"architectures must be compute capabilities without a point, got {name!r}; 90 is Hopper, 75 a T4")
    wanted = tuple(architectures) if architectures is not None else _architectures_here()
    there = find()
    if there is not None and not again and set(wanted) <= set(there.architectures):
        say(f"already built: {there.path}")
        return there
    target = folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=target) as name:
            made = compile_library(Path(name), wanted, key(), named=architectures is not None, say=say)
            for file in (LIBRARY, RECORD):
                Path(name, file).replace(target / file)
    except BuildFailed as error:
        (target / FAILURE).write_text(str(error), encoding="utf-8")
        raise
    except OSError as error:
        raise BuildFailed(f"{target} cannot be written: {error}; set VISTALIB_KERNELS_CACHE to a folder that can") from error
    (target / FAILURE).unlink(missing_ok=True)
    say(f"built in {made.seconds:.0f} s: {target / LIBRARY}")
    return Built(**{**asdict(made), "path": str(target / LIBRARY)})


def compile_library(
    place: Path, architectures: tuple[str, ...], fits: str, *, named: bool, say: Callable[[str], None] = print
) -> Built:
    """Leave the library, and a record of what it `fits`, in the folder `place`.

    Without CUDA it is the C++ twin alone, and `BuildFailed` is raised if `architectures` were `named`.
    """
    began = time.monotonic()
    for source in SOURCES.iterdir():
        shutil.copy(source, place)
    compiler = _host_compiler()
    nvcc, note = _cuda_compiler(architectures)
    if named and nvcc is None:
        raise BuildFailed(f"nothing can be built for GPUs: {note}; name no architectures to build the C++ twin alone")
    libraries = Path(torch.__file__).parent / "lib"
    jobs = {
        "dcnv3_cpu.cpp": [compiler, "-std=c++20", "-fPIC", "-O3", "-ffp-contract=off", "-c", "dcnv3_cpu.cpp"],
        "bindings.cpp": bindings_command(compiler, with_cuda=nvcc is not None),
    }
    link = [compiler, "-shared", "-o", LIBRARY, "dcnv3_cpu.o", "bindings.o"]
    link += ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else [f"-L{libraries}", "-ltorch_cpu", "-lc10"]
    if nvcc is not None:
        jobs["dcnv3_cuda.cu"] = cuda_command(nvcc, architectures, compiler)
        link = [nvcc, "-shared", f"-ccbin={compiler}", *link[2:], "dcnv3_cuda.o", "-ltorch_cuda"]
        say(f"nvcc {_release(nvcc)}: {', '.join(f'sm_{name}' for name in architectures)}")
    else:
        say(f"without CUDA: {note}")
    say(f"C++ compiler: {compiler} {_version(compiler)}")

    def compile_one(source: str) -> None:
        since = time.monotonic()
        _run(jobs[source], place)
        say(f"  {source}: {time.monotonic() - since:.0f} s")

    with ThreadPoolExecutor() as pool:
        list(pool.map(compile_one, sorted(jobs, reverse=True)))  # the longest first
    _run(link, place)
    cuda = _release(nvcc) if nvcc is not None else None
    made = Built("", round(time.monotonic() - began, 1), compiler, cuda, architectures if nvcc else (), note)
    Path(place, RECORD).write_text(json.dumps(asdict(made) | {"key": fits}, indent=1) + "\n", encoding="utf-8")
    return made


def bindings_command(compiler: str, *, with_cuda: bool) -> list[str]:
    """The C++ compiler's command line for the operators; PyTorch's headers need nothing of CUDA's."""
    options = [f"-DTORCH_TARGET_VERSION={STABLE_ABI}", f"-I{Path(torch.__file__).parent / 'include'}"]
    return [compiler, "-std=c++20", "-fPIC", "-O1", *options, *["-DUSE_CUDA"] * with_cuda, "-c", "bindings.cpp"]


def cuda_command(nvcc: str, architectures: Sequence[str], compiler: str, *more: str) -> list[str]:
    """nvcc's command line for the kernels, without PTX: native code for each architecture."""
    code = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in architectures]
    host = [f"-ccbin={compiler}", "-Xcompiler=-fPIC", f"--threads={os.cpu_count() or 1}"]
    return [nvcc, "-std=c++17", "-O3", *code, *host, *more, "-c", "dcnv3_cuda.cu", "-o", "dcnv3_cuda.o"]


def find_nvcc() -> str | None:
    """nvcc from CUDA_HOME or CUDA_PATH, the search path, or the usual place."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [str(Path(home, "bin", "nvcc")) for home in homes if home]
    found = shutil.which("nvcc")
    return next((place for place in [*places[:-1], found, places[-1]] if place and Path(place).exists()), None)


def _architectures_here() -> tuple[str, ...]:
    """Compute capabilities of the GPUs here, each once."""
    if not torch.cuda.is_available():
        return ()
    pairs = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return tuple(f"{major}{minor}" for major, minor in sorted(pairs))


def _cuda_compiler(architectures: tuple[str, ...]) -> tuple[str | None, str]:
    """nvcc, or None and why it is not used. Raises `BuildFailed` where it cannot serve this torch."""
    if torch.version.cuda is None:
        return None, "this torch was built for CPUs (https://pytorch.org/get-started has it for GPUs)"
    if not architectures:
        return None, "there is no GPU here (name architectures to build for other machines)"
    nvcc = find_nvcc()
    if nvcc is None:
        return None, "there is no nvcc (CUDA_HOME can name its folder); NVRTC compiles the same kernels at first use"
    release = _release(nvcc)
    if release.split(".")[0] != torch.version.cuda.split(".")[0]:
        raise BuildFailed(
            f"nvcc must be of the CUDA that torch was built with, got nvcc {release} and torch with CUDA {torch.version.cuda}; "
            f"point CUDA_HOME at CUDA {torch.version.cuda.split('.')[0]}, or take nvcc off PATH: NVRTC then compiles"
        )
    return nvcc, ""


def _host_compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and shutil.which(name):
            return name
    raise BuildFailed(
        "there is no C++ compiler; install one (Debian and Ubuntu: apt-get install g++; macOS: xcode-select --install; "
        "conda: conda install gxx) or name yours in CXX"
    )


def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True)
    return done.stdout.strip()


def _release(nvcc: str) -> str:
    done = subprocess.run([nvcc, "--version"], capture_output=True, text=True)
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    if found is None:
        raise BuildFailed(f"{nvcc} does not tell its version: {(done.stdout + done.stderr).strip()}; repair or remove it")
    return found[1]


def _run(command: list[str], place: Path) -> None:
    done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise BuildFailed(explain(command, done.stdout))
