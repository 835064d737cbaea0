"""Weight files: reading .pth and .safetensors without running what they hold, finding the tensors in them, writing them.

A .pth file is a pickle. It is read with `weights_only=True`, which makes tensors and plain containers and calls nothing else;
the few other types that training tools leave beside the weights are read as the plain ones they amount to.
"""

import argparse
import json
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistalib.extras import missing
from vistalib.files import read_json, replacing, sha256
from vistalib.models.fetch import CONFIG, WEIGHTS

# Keys under which training tools keep the weights; the first that is there counts. Averaged weights (EMA) come last.
CONTAINERS = ("state_dict", "model", "module", "model_state_dict", "model_ema", "state_dict_ema")
LFS = b"version https://git-lfs"
WRAPPERS = ("module.", "_orig_mod.", "model.")  # what data-parallel, compiled and nested modules put before every name
NUMPY = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.empty(0).__reduce__()[0]}  # by numpy's own word
# Types of configurations and logs, by the name in the pickle, and the plain type that is made in their place.
HARMLESS: list[Any] = [
    *((OrderedDict, name) for name in ("yacs.config.CfgNode", "addict.addict.Dict", "mmcv.utils.config.ConfigDict")),
    *((OrderedDict, f"mmengine.config.config.{name}") for name in ("ConfigDict", "Config")),
    (SimpleNamespace, f"{argparse.Namespace.__module__}.Namespace"),
    (SimpleNamespace, "mmengine.logging.history_buffer.HistoryBuffer"),
    (np.dtype, "numpy.dtype"),
    (np.ndarray, "numpy.ndarray"),
    *((kind, f"numpy.dtypes.{kind.__name__}") for kind in {type(np.dtype(code)) for code in "?bhilqBHILQefdSU"}),
    *((make, f"numpy.{core}.multiarray.{name}") for name, make in NUMPY.items() for core in ("core", "_core")),
]


def read_weights(path: str | Path) -> dict[str, Any]:
    """What a .safetensors or .pth file holds, on the CPU; of a run's, a checkpoint's or a saved model's folder its model file.

    A model file whose hash stands beside it, in a manifest or a configuration, is checked against it. Raises `ValueError` for
    a file that is missing, broken, changed, not of weights, or that holds what is not known to be harmless.
    """
    file = model_file(Path(path))
    _check_promise(file)
    with file.open("rb") as opened:
        start = opened.read(len(LFS))
    if start == LFS:
        raise ValueError(
            f"{file} must be a file of weights, got the pointer that Git LFS keeps in its place; run `git lfs pull`"
        )
    # A safetensors file is told by its JSON too, since an address need not end in a suffix.
    return _read_safetensors(file) if file.suffix == ".safetensors" or start[8:9] == b"{" else _read_pickle(file)


@dataclass(frozen=True)
class Found:
    """The tensors in a file, without what wraps their names; in words where they were; and the keys of all that is not they."""

    tensors: dict[str, Tensor]
    where: str
    ignored: tuple[str, ...]


def find_tensors(content: Mapping[str, Any]) -> Found:
    """The weights among what a file holds."""
    inside, ignored = [], []
    while found := next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), None):
        inside.append(found)
        ignored += [key for key in content if key != found]
        content = content[found]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    ignored += [name for name in content if name not in tensors]
    bare = {_bare(name): value for name, value in tensors.items()}
    wrapped = sorted({name.removesuffix(_bare(name)) for name in tensors} - {""})
    where = f"under {' / '.join(inside)}" if inside else "at the top"
    return Found(bare, where + (f", with {' and '.join(wrapped)} before the names" if wrapped else ""), tuple(ignored))


def write_weights(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a .safetensors or a .pth file, by the suffix; the names keep their order.

    Raises `ValueError` for another suffix, `NotWritten` where the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"weights are written to .safetensors or .pth files, got {path}; choose one of the two suffixes")
    plain: dict[str, Tensor] = {}
    written = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        if memory.nbytes() != tensor.nbytes or memory.data_ptr() in written:  # the file would hold all of it, or refuses
            tensor = tensor.clone()
        written.add(memory.data_ptr())
        plain[name] = tensor
    with replacing(path) as beside:
        if path.suffix == ".pth":
            with beside.open("wb") as file:  # given a path, torch would write the name of the temporary file into it
                torch.save(plain, file)
            return
        try:
            from safetensors.torch import save_file
        except ModuleNotFoundError as error:
            raise missing("safetensors", "write .safetensors files") from error
        # One entry: several come in an order that changes, and the same tensors would not make the same file.
        save_file(plain, beside, metadata={"order": json.dumps(list(plain))})


def json_beside(file: Path, name: str) -> dict[str, Any]:
    """The JSON object in the file `name` beside `file`; empty where there is none."""
    beside = file.with_name(name)
    value = read_json(beside) if beside.is_file() else {}
    return value if isinstance(value, dict) else {}


def model_file(path: Path) -> Path:
    """The weight file that `path` means: itself, or the one in the folder of a run, a checkpoint or a saved model."""
    if (path / "checkpoints" / "index.json").is_file():
        path = path / "checkpoints" / read_json(path / "checkpoints" / "index.json")["last"]
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"pretrained must be a .safetensors or .pth file, or the folder of a run, got {path}, where there is no such file"
        )
    return file


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise missing("safetensors", "read .safetensors files") from error
    try:
        with safe_open(file, framework="pt") as opened:
            order = json.loads((opened.metadata() or {}).get("order", "[]"))
            names = set(opened.keys())
            return {name: opened.get_tensor(name) for name in (order if set(order) == names else sorted(names))}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} must be a safetensors file, got: {error}; copy or download it again") from error


def _read_pickle(file: Path) -> dict[str, Any]:
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as parts:
                if damaged := parts.testzip():  # torch.load does not look
                    raise ValueError(f"a part with a wrong checksum, {damaged}")
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(f"{file} must be a checkpoint of tensors, got {_what_it_holds(file, error)}") from error
    except Exception as error:  # torch.load has no error of its own for a file that is cut or damaged
        raise ValueError(f"{file} must be a checkpoint of tensors, got: {error}; copy or download it again") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{file} must hold a dictionary of tensors, got {type(content).__name__}; save model.state_dict() instead"
        )
    return dict(content)


def _what_it_holds(file: Path, error: UnpicklingError) -> str:
    """The types in the way, with the repair; or torch's own words where the file is not a checkpoint at all."""
    try:
        with torch.serialization.safe_globals(HARMLESS):
            others = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # no pickle: what torch.load said is all there is to say
        others = []
    if not others:
        return f"{str(error).splitlines()[0]}; copy or download it again"
    return (
        f"one that also holds {', '.join(sorted(others))}, which could run code; if you trust where it comes from, open it "
        'where it was made and save the weights alone: torch.save(torch.load(FILE, weights_only=False)["state_dict"], NEW)'
    )


def _check_promise(file: Path) -> None:
    """Compare a model file with the hash that its checkpoint's manifest or its configuration gives, where there is one."""
    if file.name != WEIGHTS:
        return
    promised = json_beside(file, "manifest.json").get(WEIGHTS, {}).get("sha256") or json_beside(file, CONFIG).get("sha256")
    if promised is not None and (found := sha256(file)) != promised:
        raise ValueError(
            f"{file} is not what was written: its sha256 must be {promised}, got {found}; use another checkpoint, or copy or "
            "download it again"
        )


def _bare(name: str) -> str:
    while wrapper := next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper)), None):
        name = name.removeprefix(wrapper)
    return name
