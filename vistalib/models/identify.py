"""What weights are of: the size and the head, told from the names and shapes of the tensors alone."""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from vistalib.models.variants import VARIANTS, size_of

HEADS = ("decode_head", "auxiliary_head")


def describe(state_dict: Mapping[str, Tensor]) -> str:
    """What a state dictionary under our names seems to be: "InternImage-L (channels 160, depths 5 5 22 5)"."""
    shape = backbone_shape(state_dict)
    if shape is None:
        return "no InternImage"
    channels, depths = shape
    size = size_of(channels, depths)
    name = f"InternImage-{size.upper() if len(size) < 3 else size}" if size else "an InternImage of no known size"
    return f"{name} (channels {channels}, depths {' '.join(map(str, depths))})"


def models_of(state_dict: Mapping[str, Tensor]) -> list[str]:
    """The names of `list_models` that take these weights: one where there is a head, several for a backbone, maybe none."""
    shape = backbone_shape(state_dict)
    size = size_of(*shape) if shape else None
    parts = head_parts(state_dict, "decode_head")
    head = "upernet" if "ppm" in parts else "segformer" if "fusion_conv" in parts else None
    return [name for name, variant in VARIANTS.items() if variant.size == size and head in (None, variant.head)]


def num_classes_of(state_dict: Mapping[str, Tensor]) -> int | None:
    """Logits of the decode head, or None where there is none."""
    weight = state_dict.get("decode_head.conv_seg.weight")
    return None if weight is None else weight.shape[0]


def backbone_shape(state_dict: Mapping[str, Tensor]) -> tuple[int, tuple[int, ...]] | None:
    """Channels of the first stage and blocks of every stage."""
    found = {match.groups() for name in state_dict if (match := re.match(r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.", name))}
    first = state_dict.get("backbone.stem.conv2.weight")
    if not found or first is None:
        return None
    stages = [int(stage) for stage, _ in found]
    return first.shape[0], tuple(stages.count(stage) for stage in sorted(set(stages)))


def head_parts(names: Iterable[str], head: str) -> set[str]:
    """The modules that `head` is made of."""
    return {name.split(".")[1] for name in names if name.startswith(f"{head}.")}


def some(names: Sequence[str]) -> str:
    """Up to three names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
