"""Models by name: `create_model("upernet_internimage_l")`."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vistalib.models.config import ModelConfig, Outputs, outputs_of
from vistalib.models.fcn import FCNHead
from vistalib.models.fetch import locate
from vistalib.models.heads import Head
from vistalib.models.internimage import InternImage
from vistalib.models.released_files import RELEASED_FILES
from vistalib.models.segformer import SegFormerHead
from vistalib.models.segmentor import AUXILIARY_MAP, Segmentor
from vistalib.models.upernet import UPerHead
from vistalib.models.variants import VARIANTS, Variant, backbone_options
from vistalib.models.weight_files import read_weights
from vistalib.models.weights import Classes, load_weights


def list_models() -> list[str]:
    """All the names that `create_model` knows, small to large."""
    return list(VARIANTS)


def create_model(
    name: str,
    num_classes: int = 150,
    pretrained: str | Path | bool | None = None,
    *,
    classes: Classes | None = None,
    their_classes: Sequence[str] = (),
    sha256: str | None = None,
    **backbone: Any,
) -> Segmentor:
    """Build a named model, freshly initialised or with weights from `pretrained`.

    `name` is one of `list_models`, or of the released recipes, which stands for its model. 150 classes is what was released,
    whatever the data. `pretrained` is a released name, a file (.safetensors or .pth), a run's folder, an address or a place on
    the Hub (see `locate`); True is the checkpoint that `name` itself was released with. What of it was loaded, what was not and
    why is said on standard error. `classes` and `their_classes` fill the last layer of a model with other classes (see
    `load_weights`); of runs, saved models, files that name their classes and released checkpoints `their_classes` are known.
    `sha256` is the hash the file must have. `backbone` are arguments of `InternImage` that should differ from the table, such
    as `drop_path_rate=0.1`.

    Raises `ValueError` for an unknown name, for weights that cannot be had, and for weights of another backbone or not finite.
    """
    released = RELEASED_FILES.get(name)
    if released and released.model is None:
        raise ValueError(f"{name!r} is a backbone; build a model, with create_model(..., pretrained={name!r})")
    variant = _variant(released.model if released and released.model else name)
    net = InternImage(**(backbone_options(variant.size) | backbone))
    auxiliary = None
    if variant.auxiliary_channels is not None:
        auxiliary = FCNHead(net.out_channels[AUXILIARY_MAP], channels=variant.auxiliary_channels, num_classes=num_classes)
    kind = {"upernet": UPerHead, "segformer": SegFormerHead}[variant.head]
    head: Head = kind(net.out_channels, channels=variant.head_channels, num_classes=num_classes)
    model = Segmentor(net, head, auxiliary)
    model.config = ModelConfig(variant.name, num_classes, backbone)
    if pretrained is True and released is None:
        raise ValueError(f"pretrained=True needs the name of a released recipe, got {name!r}; give a file, or such a name")
    if pretrained:
        source = name if pretrained is True else pretrained
        path = locate(source, sha256=sha256)
        content = read_weights(path)
        outputs = Outputs(tuple(their_classes)) if their_classes else outputs_of(path, content)
        report = load_weights(model, content, classes=classes, their_classes=outputs.classes, source=str(source))
        print(f"{source}: {report}" + (f"\n  {outputs.guess}" if outputs.guess else ""), file=sys.stderr)
        if "decode_head.conv_seg.weight" in report.loaded:
            if classes is not None and not isinstance(classes, str):
                outputs = Outputs(tuple(classes))
            named, colors = outputs.classes[:num_classes], outputs.colors[:num_classes]
            model.config = ModelConfig(variant.name, num_classes, backbone, classes=named, colors=colors)
    return model


def _variant(name: str) -> Variant:
    if name in VARIANTS:
        return VARIANTS[name]
    known = [*VARIANTS, *(file.name for file in RELEASED_FILES.values() if file.model)]
    close = get_close_matches(name, known) or list(VARIANTS)
    raise ValueError(f"model must be a name that list_models() gives, got {name!r}; did you mean {' or '.join(close)}?")
