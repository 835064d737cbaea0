"""Build the wheel and the source archive of both distributions, and install and import each in a clean environment.

torch and what else is needed come from the environment that runs this (a path file leads there), so that nothing is
fetched; vistalib and vistalib-kernels themselves are seen only as installed: a check asserts where they were imported from.
"""

import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"vistalib": ROOT, "vistalib_kernels": ROOT / "kernels"}
IMPORT = """
import pathlib, sys
import vistalib, vistalib_kernels
import vistalib.ops, vistalib.models, vistalib.data, vistalib.train, vistalib.evaluate, vistalib.recipes, vistalib.viz
for package in (vistalib, vistalib_kernels):
    assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), package.__file__
print(vistalib.__version__, vistalib_kernels.__version__)
"""


def main() -> None:
    """Build, look inside, install, import."""
    with tempfile.TemporaryDirectory(prefix="vistalib-distributions-") as name:
        built = Path(name)
        for package, folder in FOLDERS.items():
            run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(folder))
            for archive in sorted(built.glob(f"{package}-*")):
                check_contents(archive, package, folder / package)
        for kind in ("*.whl", "*.tar.gz"):
            python = environment(built / kind.replace("*.", "environment-"))
            archives = [str(path) for path in sorted(built.glob(kind))]
            run(
                str(python),
                "-m",
                "pip",
                "install",
                "--ignore-installed",
                "--no-index",
                "--no-deps",
                "--no-build-isolation",
                *archives,
            )
            print(", ".join(Path(path).name for path in archives), "->", run(str(python), "-c", IMPORT, cwd=built).strip())
            run(str(python), "-m", "vistalib", "--help", cwd=built)


def check_contents(archive: Path, package: str, folder: Path) -> None:
    """Every file of the package that git keeps is in `archive`, and no compiled or cached file."""
    if archive.suffix == ".whl":
        inside = set(zipfile.ZipFile(archive).namelist())
    else:
        with tarfile.open(archive) as opened:
            inside = {member.partition("/")[2] for member in opened.getnames()}
    tracked = run("git", "ls-files", "--", package, cwd=folder.parent).split()
    if lost := sorted(set(tracked) - inside):
        sys.exit(f"{archive.name} lacks {', '.join(lost)}; name their kind under tool.setuptools.package-data")
    if stray := sorted(name for name in inside if name.endswith((".pyc", ".nbi", ".nbc"))):
        sys.exit(f"{archive.name} holds {', '.join(stray)}")


def environment(folder: Path) -> Path:
    """The Python of a new environment that finds torch and the build tools of this one, but not its editable packages."""
    venv.create(folder, with_pip=False)  # pip, too, comes from the other folder, and not an older setuptools with it
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A plain path: path files inside the other folder, such as those of editable installs, are not followed.
    Path(site, "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run `command` and return what it printed; exits with its output when it fails."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
