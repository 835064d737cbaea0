"""Writing files so that nothing is ever half-written: beside the target first, synced, then renamed over it.

Also where caches lie.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from typing import Any


class NotWritten(OSError):
    """The disk or its rights did not allow to write `filename`; `strerror` says why."""

    def __str__(self) -> str:
        return f"{self.filename} could not be written: {self.strerror}; make room or mend the folder, or choose another place"


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Any `OSError` inside becomes a `NotWritten` that names `path`; the outermost of several has the last word."""
    try:
        yield
    except OSError as error:
        raise NotWritten(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success rename it over `path`, on any error remove it.

    The temporary name keeps the suffix of `path`, since image writers choose the format by it.
    Parents are created. Raises `NotWritten` when the folder cannot be written or the disk is full.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        beside = Path(name)
        try:
            yield beside
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            beside.chmod(0o666 & ~mask)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def together(folder: str | Path, name: str) -> Iterator[Path]:
    """Yield an empty folder; on success its files move to the same places in `folder`, on any error nothing of them stays.

    Files of `folder` that have the same place are replaced, others stay; folders that were made for nothing are removed again.
    Two writers at a time must differ in `name`; what a killed one left under it is cleared away. Raises `NotWritten`.
    """
    folder = Path(folder)
    beside = folder / f".{name}.unfinished"
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with writing(folder):
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            yield beside
            for path in sorted(path for path in beside.rglob("*") if path.is_file()):
                target = folder / path.relative_to(beside)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, target)  # a folder there may be a link to another disk
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            for path in made:
                with suppress(OSError):  # it holds something by now, or was never made
                    path.rmdir()


def check_writable(path: str | Path) -> None:
    """Raise `NotWritten` now where `replacing` would after hours of work; leaves nothing but the parent folder."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path` in one step (see `replacing`)."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` in one step; refuses NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a `ValueError` names the file when it is missing, unreadable or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; check the folder it should lie in") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} must be a readable JSON file, got: {error}; write it again or restore it") from error


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where this user's caches lie: `VISTALIB_CACHE` if it is set, else the place the operating system has for them."""
    if chosen := os.environ.get("VISTALIB_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "vistalib"
