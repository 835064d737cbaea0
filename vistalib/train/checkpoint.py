"""Checkpoints: folders that are either whole or not there, whose every bit is checked before it is used.

`checkpoints/iter_000200/` holds `model.safetensors`, `optimizer.safetensors` (AdamW's moments as `<parameter>/<name>`; where
the model's weights are averages, the trained ones as `<parameter>/other`), `state.json` (iteration, settings, versions) and
`manifest.json` (size and sha256 of the other three). It is written under a name that begins with a dot, synced to the disk,
and renamed; `checkpoints/index.json` then names the last and the best.
Nothing is pickled. There is no random state to keep: the loop seeds torch anew for every iteration.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistalib.extras import missing
from vistalib.files import replacing, write_json

CHECKPOINTS, INDEX = "checkpoints", "index.json"
MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
NAME = re.compile(r"iter_(\d{6,})")
Tensors = dict[str, Tensor]


class DamagedCheckpoint(ValueError):
    """A checkpoint folder whose files are not the ones its manifest promises."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: the model's tensors on the CPU, the run's state, and the optimiser's tensors where asked for."""

    model: dict[str, Tensor]
    state: dict[str, Any]
    optimizer: dict[str, Tensor] = field(default_factory=dict)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read the newest whole checkpoint of a run's folder, one checkpoint folder, or a bare .safetensors file (without state).

    In a run's folder a damaged checkpoint is passed over with a warning. Raises `ValueError` where there is nothing to load,
    and its subclass `DamagedCheckpoint` where a named checkpoint is not what its manifest says.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ValueError(
                f"a checkpoint must be a folder or a .safetensors file, got {path}; convert it: nothing pickled is ever loaded"
            )
        return Checkpoint(_read_tensors(path), {})
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a run's folder, a checkpoint folder or a .safetensors file")
    if (path / MANIFEST).exists() or NAME.fullmatch(path.name):
        return read_checkpoint(path)
    newest = newest_whole(path / CHECKPOINTS)
    if newest is None:
        raise ValueError(
            f"{path} holds no checkpoint; give a run's folder, one of its {CHECKPOINTS}/iter_* folders, or a .safetensors file"
        )
    return read_checkpoint(newest)


def save_checkpoint(
    parent: Path, iteration: int, *, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write `parent/iter_<iteration>` and return it. Raises `OSError` with what to do, leaving nothing half-written behind."""
    target = parent / name_of(iteration)
    beside = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
        beside.chmod(0o755)
        _write_tensors(beside / MODEL, model)
        _write_tensors(beside / OPTIMIZER, optimizer)
        write_json(beside / STATE, {"iteration": iteration, **state})
        write_json(beside / MANIFEST, {name: _fingerprint(beside / name) for name in (MODEL, OPTIMIZER, STATE)})
        _sync_folder(beside)
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
        _sync_folder(parent)
    except OSError as error:
        raise OSError(
            f"{target} could not be written: {error.strerror or error}; make room or mend the folder, then resume the run"
        ) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
    return target


def read_checkpoint(folder: Path, *, optimizer: bool = False) -> Checkpoint:
    """Check `folder` against its manifest and read it. Raises `DamagedCheckpoint`."""
    verify(folder)
    moments = _read_tensors(folder / OPTIMIZER) if optimizer else {}
    return Checkpoint(_read_tensors(folder / MODEL), json.loads((folder / STATE).read_text(encoding="utf-8")), moments)


def verify(folder: Path) -> None:
    """Raise `DamagedCheckpoint` unless every file of `folder` has the size and sha256 its manifest gives."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name in (MODEL, OPTIMIZER, STATE):
            if manifest[name] != _fingerprint(folder / name):
                raise DamagedCheckpoint(
                    f"{folder / name} is not what was written (its sha256 differs from the manifest's); use another checkpoint"
                )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{folder} is not a whole checkpoint ({error!r}); use another one") from error


def checkpoints(parent: Path) -> list[Path]:
    """The checkpoint folders in `parent`, oldest first; they are not checked."""
    found = parent.iterdir() if parent.is_dir() else ()
    return sorted((path for path in found if path.is_dir() and NAME.fullmatch(path.name)), key=iteration_of)


def name_of(iteration: int) -> str:
    """The name of the checkpoint of that many finished iterations."""
    return f"iter_{iteration:06d}"


def iteration_of(folder: Path) -> int:
    """How many iterations were finished when the checkpoint was written, by its name."""
    match = NAME.fullmatch(folder.name)
    assert match is not None, folder
    return int(match[1])


def newest_whole(parent: Path, *, set_aside: bool = False) -> Path | None:
    """The newest checkpoint in `parent` that passes `verify`, or None where there is none at all.

    Each damaged one on the way is warned about and, with `set_aside`, renamed to `<name>.damaged`. Raises
    `DamagedCheckpoint` when there are checkpoints but every one is damaged.
    """
    found = checkpoints(parent)
    damaged: list[Path] = []
    for folder in reversed(found):
        try:
            verify(folder)
        except DamagedCheckpoint as error:
            warnings.warn(f"{error}: going back to the one before it", stacklevel=2)
            damaged.append(folder)
            continue
        for other in damaged if set_aside else ():
            aside = other.with_name(f"{other.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            other.rename(aside)
        return folder
    if damaged:
        raise DamagedCheckpoint(f"every checkpoint in {parent} is damaged; restore a copy or start in a new folder")
    return None


def keep_only(parent: Path, keep: int, *, best: Path | None, best_mean_iou: float | None) -> None:
    """Name the last and the best checkpoint in `index.json`, then remove all but the last `keep` and the best."""
    found = checkpoints(parent)
    last = found[-1]
    index = {"last": last.name, "best": best.name if best else None, "best_mean_iou": best_mean_iou}
    write_json(parent / INDEX, index)
    for folder in found[:-keep]:
        if folder != best:
            shutil.rmtree(folder)


def tidy(parent: Path) -> Path | None:
    """Remove what a killed process left in `parent`, set damaged checkpoints aside, and give the newest whole one."""
    remove_unfinished(parent)
    return newest_whole(parent, set_aside=True)


def remove_unfinished(parent: Path) -> None:
    """Remove what a killed process left half-written in `parent`; only for the holder of the run's lock."""
    for path in parent.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def snapshot(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies in the host's memory, which the training may leave behind."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter: `<parameter name>/<state name>`; its groups must carry `param_names`."""
    return {
        f"{name}/{key}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
        for key, value in optimizer.state[parameter].items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put what `optimizer_tensors` gave back into an optimiser over parameters of the same names."""
    numbers = {
        name: number for number, name in enumerate(name for group in optimizer.param_groups for name in group["param_names"])
    }
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        state.setdefault(numbers[name], {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ModuleNotFoundError as error:
        raise missing("safetensors", "write checkpoints") from error
    with replacing(path) as beside:
        try:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                beside,
                metadata={"format": "pt"},
            )
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise missing("safetensors", "read checkpoints") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedCheckpoint(f"{path} must be a readable safetensors file, got: {error}; use another one") from error


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _sync_folder(folder: Path) -> None:
    """Let the names in `folder` reach the disk; Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
