"""Weights into models: reading files, telling what they hold, and loading what fits.

A file may carry the released names or ours (`names`), be wrapped as training tools wrap it (`state_dict`, `model`, a `module.`
before every name), or be a classification checkpoint whose names lack the `backbone.`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vistalib.extras import missing
from vistalib.files import read_json
from vistalib.models.names import from_released
from vistalib.models.variants import VARIANTS, size_of

HEADS = ("decode_head", "auxiliary_head")


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: `loaded` names, `skipped` names of the file with the reason, `missing` names of the model."""

    loaded: tuple[str, ...]
    skipped: dict[str, str]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors, skipped {len(self.skipped)}, left {len(self.missing)} as they were"]
        for reason in dict.fromkeys(self.skipped.values()):
            names = [name for name, why in self.skipped.items() if why == reason]
            lines.append(f"  skipped {_some(names)}: {reason}")
        if self.missing:
            lines.append(f"  not in the file: {_some(self.missing)}")
        return "\n".join(lines)


def load_weights(model: nn.Module, state_dict: Mapping[str, Any]) -> LoadReport:
    """Copy what fits of `state_dict`, under released names or ours, into the segmentor `model`.

    The backbone must fit entirely: a `ValueError` says what the file seems to be and which model takes it. A head of another
    kind is skipped, and of a head with another number of classes its last convolution; the report says so.
    """
    theirs = unwrap(state_dict)
    ours = model.state_dict()
    _check_backbone(ours, theirs)
    skipped = {}
    for name, tensor in theirs.items():
        reason = _reason_to_skip(name, tensor, ours, theirs)
        if reason is not None:
            skipped[name] = reason
    fitting = {name: tensor for name, tensor in theirs.items() if name not in skipped}
    model.load_state_dict(fitting, strict=False)
    return LoadReport(tuple(fitting), skipped, tuple(name for name in ours if name not in fitting))


def unwrap(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under our names, out of whatever it is wrapped in."""
    for container in ("state_dict", "model"):
        if isinstance(state_dict.get(container), Mapping):
            state_dict = state_dict[container]
    tensors = {name.removeprefix("module."): value for name, value in state_dict.items() if isinstance(value, Tensor)}
    if not any(name.startswith("backbone.") for name in tensors):
        bare = ("patch_embed.", "levels.", "stem.", "stages.")
        tensors = {f"backbone.{name}" if name.startswith(bare) else name: value for name, value in tensors.items()}
    return from_released(tensors)


def read_weights(path: str | Path) -> dict[str, Any]:
    """What a .safetensors or .pth file holds, on the CPU; of a run's or a checkpoint's folder its model file."""
    file = _model_file(Path(path))
    if file.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ModuleNotFoundError as error:
            raise missing("safetensors", "read .safetensors files") from error
        try:
            return dict(load_file(file))
        except SafetensorError as error:
            raise ValueError(f"{file} must be a safetensors file, got: {error}; copy or download it again") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error of its own for a file that is broken or holds more than tensors
        raise ValueError(f"{file} must be a checkpoint of tensors, got: {error}; copy or download it again") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{file} must hold a dictionary of tensors, got {type(content).__name__}; save model.state_dict() instead"
        )
    return dict(content)


def _model_file(path: Path) -> Path:
    if (path / "checkpoints" / "index.json").is_file():
        path = path / "checkpoints" / read_json(path / "checkpoints" / "index.json")["last"]
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"pretrained must be a .safetensors or .pth file, or the folder of a run, got {path}, where there is no such file"
        )
    return file


def describe(state_dict: Mapping[str, Tensor]) -> str:
    """What a state dictionary under our names seems to be: "InternImage-L (channels 160, depths 5 5 22 5) with ..."."""
    shape = _backbone_shape(state_dict)
    if shape is None:
        return "no InternImage"
    channels, depths = shape
    size = size_of(channels, depths)
    name = f"InternImage-{size.upper() if len(size) < 3 else size}" if size else "an InternImage of no known size"
    return f"{name} (channels {channels}, depths {' '.join(map(str, depths))})"


def _backbone_shape(state_dict: Mapping[str, Tensor]) -> tuple[int, tuple[int, ...]] | None:
    """Channels of the first stage and blocks of every stage."""
    found = {match.groups() for name in state_dict if (match := re.match(r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.", name))}
    first = state_dict.get("backbone.stem.conv2.weight")
    if not found or first is None:
        return None
    stages = [int(stage) for stage, _ in found]
    return first.shape[0], tuple(stages.count(stage) for stage in sorted(set(stages)))


def _check_backbone(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Raise unless both have the same backbone parameters in the same shapes."""
    shapes = [{name: tuple(t.shape) for name, t in s.items() if name.startswith("backbone.")} for s in (ours, theirs)]
    if shapes[0] == shapes[1]:
        return
    text = f"the weights must be of {describe(ours)}, got {describe(theirs)}"
    shape = _backbone_shape(theirs)
    size = size_of(*shape) if shape else None
    if shape is None:
        raise ValueError(f"{text}; its names begin with {_some(list(theirs))}")
    if shape != _backbone_shape(ours) and size:
        names = [f'"{name}"' for name in _models_of(size)]
        raise ValueError(f"{text}; build the model with create_model({' or '.join(names)})")
    differing = [name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)]
    raise ValueError(
        f"{text}; they differ in {_some(sorted(differing))}: build the model with the options the weights were trained with"
    )


def _models_of(size: str) -> list[str]:
    return [name for name, variant in VARIANTS.items() if variant.size == size]


def _reason_to_skip(name: str, tensor: Tensor, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """Why a tensor of the file cannot be loaded, or None."""
    head = name.partition(".")[0]
    if head in HEADS and any(n.startswith(f"{head}.") for n in ours):
        kinds = [{n.split(".")[1] for n in s if n.startswith(f"{head}.")} for s in (ours, theirs)]
        if kinds[0] != kinds[1]:
            return f"a head of another kind, made of {', '.join(sorted(kinds[1] - {'conv_seg'}))}"
    if name not in ours:
        return "the model has no such parameter"
    if tensor.shape == ours[name].shape:
        return None
    if name.startswith(f"{head}.conv_seg.") and tensor.shape[1:] == ours[name].shape[1:]:
        return f"another number of classes: {tensor.shape[0]} in the file, {ours[name].shape[0]} in the model"
    return f"another shape: {tuple(tensor.shape)} in the file, {tuple(ours[name].shape)} in the model"


def _some(names: "list[str] | tuple[str, ...]") -> str:
    """Up to three names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
