"""Unpacking the downloads of Vistas and Cityscapes into the layouts that the datasets are read from.

What an archive holds is told by its content, so its name and a folder wrapped around everything do not matter. The downloads:
Cityscapes has `leftImg8bit_trainvaltest.zip`, `gtFine_trainvaltest.zip`, `leftImg8bit_trainextra.zip`, `gtCoarse.zip`, and
automatic labels as `refinement_final_v0.zip`; Vistas comes as one archive, once `mapillary-vistas-dataset_public_v1.1.zip`.
An archive is looked through before anything is written: names that leave the folder, links and encrypted files are refused.
"""

import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vistalib.files import writing
from vistalib.progress import progress

# What begins behind a wrapping folder. Vistas: a split with its folders, or a configuration; Cityscapes: a split, a city.
_VISTAS = re.compile(r"(?<![^/])(?:training|validation|testing)/(?:v\d\.\d/)?(?:images|labels|instances|panoptic|polygons)/")
_CONFIG = re.compile(r"config(?:_v\d\.\d)?\.json$")
_CITYSCAPES = re.compile(r"(?<![^/])(?:train|val|test|train_extra)/([a-z-]+)/\1_\d{6}_\d{6}_")
_PROBABILITY = re.compile(r"(?:_leftImg8bit|_gtFine_labelTrainIds)_prob\.png$")
AUTOMATIC = "refinement_final"
PACKAGES = ("leftImg8bit", "gtFine", "gtCoarse", AUTOMATIC)


@dataclass(frozen=True)
class Unpacked:
    """What `unpack` did: which dataset, where it lies now, and how many files were written or were there already."""

    dataset: str
    root: Path
    written: int
    kept: int


def unpack(archives: Sequence[str | Path], root: str | Path) -> list[Unpacked]:
    """Unpack downloaded zips of Vistas or Cityscapes into `root`; one entry for each of `archives`.

    A file that is there already with the right size is kept, so an interrupted call goes on where it was. Files beside the
    dataset (a licence, a README) go into a folder named after the archive. Raises `ValueError` for an archive that is damaged,
    unsafe or neither dataset, before anything of it is written, and `NotWritten` when the disk is full.
    """
    root = Path(root)
    plans = [(Path(archive), *_plan(Path(archive))) for archive in archives]
    missing = sum(info.file_size for _, _, files in plans for info, path in files if not _there(root / path, info))
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    if missing > (free := shutil.disk_usage(existing).free):
        raise ValueError(f"unpacking needs {missing / 1e9:.1f} GB, got {free / 1e9:.1f} GB free in {existing}; make room")
    return [_extract(archive, dataset, files, root) for archive, dataset, files in plans]


def _plan(archive: Path) -> tuple[str, list[tuple[zipfile.ZipInfo, Path]]]:
    """Which dataset an archive holds, and where each of its files goes."""
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    except (OSError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{archive} must be a whole zip archive, got: {reason}; check the path or download it again") from None
    for info in infos:
        if reason := _unsafe(info):
            raise ValueError(f"{archive} must hold plain files of its own, got {info.filename!r}, {reason}; do not trust it")
    dataset, prefix, package = _recognised(archive, [info.filename for info in infos])
    beside = Path(archive.stem)
    files = []
    for info in infos:
        name = info.filename.removeprefix(prefix)
        belongs = info.filename.startswith(prefix) and _belongs(dataset, package + name)
        files.append((info, Path(package + name) if belongs else beside / name))
    return dataset, files


def _unsafe(info: zipfile.ZipInfo) -> str:
    """Why a name or an entry is refused, or nothing."""
    path = PurePosixPath(info.filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", info.orig_filename):
        return "whose path leaves the folder"
    if kind not in (0, stat.S_IFREG):
        return "a link or a device"
    if info.flag_bits & 1:
        return "which is encrypted"
    return ""


def _recognised(archive: Path, names: list[str]) -> tuple[str, str, str]:
    """The dataset, what its paths are wrapped in, and the package folder to put before them (of automatic labels)."""
    automatic = any(map(_PROBABILITY.search, names))
    for name in names:
        if found := _VISTAS.search(name):
            return "vistas", name[: found.start()], ""
        if found := _CITYSCAPES.search(name):
            wrapped = PurePosixPath(name[: found.start()]).parts
            if automatic and wrapped[-1:] not in [(package,) for package in PACKAGES]:
                return "cityscapes", name[: found.start()], f"{AUTOMATIC}/"
            if wrapped:
                return "cityscapes", "".join(f"{part}/" for part in wrapped[:-1]), ""
    inside = sorted({name.split("/")[0] for name in names})
    raise ValueError(
        f"{archive} must be a download of Mapillary Vistas (training/images/...) or Cityscapes (leftImg8bit/train/..., "
        f"gtFine/train/..., gtCoarse/..., refinement_final/...), got {', '.join(inside[:6]) or 'nothing'}; give the archive "
        "that the licence holder hands out"
    )


def _belongs(dataset: str, name: str) -> bool:
    if dataset == "vistas":
        return bool(_VISTAS.match(name) or _CONFIG.match(name))
    found = _CITYSCAPES.search(name)
    return bool(found and name.count("/", 0, found.start()) == 1)


def _there(path: Path, info: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == info.file_size


def _extract(archive: Path, dataset: str, files: list[tuple[zipfile.ZipInfo, Path]], root: Path) -> Unpacked:
    wanted = [(info, root / path) for info, path in files if not _there(root / path, info)]
    kept = len(files) - len(wanted)
    with zipfile.ZipFile(archive) as opened:
        for info, path in progress(wanted, f"unpacking {archive.name}", total=len(files), start=kept):
            part = path.with_name(f"{path.name}.part")
            try:
                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with part.open("wb") as target, opened.open(info) as source:
                        shutil.copyfileobj(source, target, 1 << 20)  # checks the sum that the archive has for it
                    os.replace(part, path)  # whole or not there at all, so that its size tells whether it is done
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
                raise ValueError(f"{archive} cannot be read at {info.filename!r} ({error}); download it again") from None
            finally:
                part.unlink(missing_ok=True)
    return Unpacked(dataset, root, len(wanted), kept)
