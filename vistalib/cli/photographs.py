"""What `vistalib predict` is given: files and folders become photographs and videos, each with a name for its results."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vistalib.cli.parts import UsageError

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
RESULTS = LABELS, OVERLAY, VIDEO = "_labels.png", "_overlay.jpg", "_overlay.mp4"


@dataclass(frozen=True)
class Photograph:
    """A photograph or a video, and where its results go: a path to which `LABELS`, `OVERLAY` or `VIDEO` is appended."""

    path: Path
    results: Path

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS

    def result(self, ending: str) -> Path:
        """The path of one result."""
        return self.results.with_name(self.results.name + ending)


def find_photographs(given: Sequence[Path], out: Path) -> list[Photograph]:
    """The files `given`, and those in the folders given and in their folders, sorted and each once; results go below `out`.

    There they lie as the photographs lie below the deepest folder that holds everything given, so that photographs of one
    name in two folders stay apart. Results are named without the suffix, unless that would make two alike. In folders,
    hidden files and what lies in `out`, as results of before do, are left out. `UsageError` for a folder without
    photographs, for a run's folder, and when a result would replace a photograph.
    """
    files = {Path(os.path.abspath(file)): file for path in given for file in _files(path, out)}
    folders = [os.path.abspath(path if path.is_dir() else path.parent) for path in given]
    try:
        base = os.path.commonpath(folders)
    except ValueError:
        raise UsageError("the photographs of one call must lie on one drive, got several; make a call for each") from None
    names = {file: file.relative_to(base) for file in files}
    times = Counter(name.with_suffix("") for name in names.values())
    found = [
        Photograph(file, out / (name if times[name.with_suffix("")] > 1 else name.with_suffix("")))
        for file, name in zip(files.values(), names.values(), strict=True)
    ]
    for photograph in found:
        for result in map(photograph.result, RESULTS):
            if Path(os.path.abspath(result)) in files:
                raise UsageError(f"results must not replace photographs, and {result} is one; give another --out")
    return found


def _files(path: Path, out: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    if (path / "checkpoints").is_dir():
        raise UsageError(f"photographs are wanted, and {path} is the folder of a trained run; give it as --weights {path}")
    results = Path(os.path.abspath(out))
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in PHOTOGRAPHS + VIDEOS
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and results not in Path(os.path.abspath(file)).parents
        and file.is_file()
    ]
    if not files:
        raise UsageError(
            f"{path} must hold photographs or videos outside {out}, got none; they end in {', '.join(PHOTOGRAPHS + VIDEOS)}"
        )
    yield from files
