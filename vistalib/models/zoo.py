"""Models by name: `create_model("upernet_internimage_l")`."""

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vistalib.models.fcn import FCNHead
from vistalib.models.heads import Head
from vistalib.models.internimage import InternImage
from vistalib.models.segformer import SegFormerHead
from vistalib.models.segmentor import AUXILIARY_MAP, Segmentor
from vistalib.models.upernet import UPerHead
from vistalib.models.variants import VARIANTS, Variant, backbone_options
from vistalib.models.weights import load_weights, read_weights


def list_models() -> list[str]:
    """All the names that `create_model` knows, small to large."""
    return list(VARIANTS)


def create_model(name: str, num_classes: int = 150, pretrained: str | Path | None = None, **backbone: Any) -> Segmentor:
    """Build a named model, freshly initialised or with weights from `pretrained`.

    150 classes is what was released, whatever the data. `pretrained` is a file (.safetensors or .pth) or the folder of a run;
    what of it was loaded, what was not and why is said on standard error. `backbone` are arguments of `InternImage` that
    should differ from the table, such as `drop_path_rate=0.1` or `recompute_blocks=True`. Raises `ValueError` for an unknown
    name, and for weights of another backbone.
    """
    variant = _variant(name)
    net = InternImage(**(backbone_options(variant.size) | backbone))
    auxiliary = None
    if variant.auxiliary_channels is not None:
        auxiliary = FCNHead(net.out_channels[AUXILIARY_MAP], channels=variant.auxiliary_channels, num_classes=num_classes)
    kind = {"upernet": UPerHead, "segformer": SegFormerHead}[variant.head]
    head: Head = kind(net.out_channels, channels=variant.head_channels, num_classes=num_classes)
    model = Segmentor(net, head, auxiliary)
    if pretrained is not None:
        print(f"{pretrained}: {load_weights(model, read_weights(pretrained))}", file=sys.stderr)
    return model


def _variant(name: str) -> Variant:
    if name in VARIANTS:
        return VARIANTS[name]
    close = get_close_matches(name, VARIANTS) or list(VARIANTS)
    raise ValueError(f"model must be a name that list_models() gives, got {name!r}; did you mean {' or '.join(close)}?")
