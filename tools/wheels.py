"""Wheels of vistalib-kernels: the pure one, and one that has the compiled library for the CUDA of this Python's torch inside.

    python tools/wheels.py --out dist        # once with a torch for CUDA 12, once with one for CUDA 13

The second is named for its CUDA (0.1.0+cu13; +cpu where torch has none, with the C++ twin alone) and serves every torch from
2.10 on with that major version, by PyTorch's stable ABI. It holds native code for GPUs from Turing to Blackwell, and runs where
the C and C++ libraries are as new as on the machine that made it. Needs nvcc of that CUDA, a C++ compiler, and the packages
build and setuptools; no GPU.
"""

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "kernels"))

import torch  # noqa: E402
from vistalib_kernels import build  # noqa: E402


def main() -> int:
    """Make both wheels and name them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the wheels (default: dist)")
    parser.add_argument("--architectures", nargs="+", default=list(build.ARCHITECTURES), help="compute capabilities, as 90")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vistalib-wheels-") as name:
        copy = Path(name, "kernels")
        left = shutil.ignore_patterns("__pycache__", "build", "dist", "built", "*.egg-info")
        shutil.copytree(ROOT / "kernels", copy, ignore=left)
        wheel(copy, options.out)
        try:
            add_library(copy, tuple(options.architectures))
        except build.BuildFailed as error:
            print(error, file=sys.stderr)
            return 1
        wheel(copy, options.out, f"--plat-name={re.sub(r'[-.]', '_', sysconfig.get_platform())}")
    return 0


def add_library(copy: Path, architectures: tuple[str, ...]) -> None:
    """Put the compiled library, what it fits, and its name for pip into a copy of the distribution."""
    major = (torch.version.cuda or "").partition(".")[0]
    place = copy / "vistalib_kernels" / build.SHIPPED.name
    with tempfile.TemporaryDirectory() as name:
        build.compile_library(Path(name), architectures if major else (), build.shipped_key(), named=bool(major))
        place.mkdir()
        for file in (build.LIBRARY, build.RECORD):
            shutil.copy(Path(name, file), place)
    project = copy / "pyproject.toml"
    name = f"cu{major}" if major else "cpu"
    text, count = re.subn(r'^version = "(.+)"$', rf'version = "\1+{name}"', project.read_text(), flags=re.M)
    assert count == 1, "the version stands in one place"
    project.write_text(text)


def wheel(folder: Path, out: Path, *options: str) -> None:
    """Build the wheel of the distribution in `folder`."""
    given = [f"--config-setting=--build-option={option}" for option in options]
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", name, *given, str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stdout}")
        for path in Path(name).iterdir():
            shutil.copy(path, out)
            print(f"{out / path.name}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
