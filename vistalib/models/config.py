"""What it takes to build a model again and to read its output, as plain JSON: the `config.json` beside saved weights.

And what is known of the outputs of weights without one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from vistalib.models.ade20k import ADE20K
from vistalib.models.fetch import CONFIG, WEIGHTS
from vistalib.models.identify import num_classes_of
from vistalib.models.released_files import RELEASED_OUTPUTS, TRAINED_CLASSES
from vistalib.models.weight_files import find_tensors, json_beside, model_file
from vistalib.models.weights import under_our_names

Colors = tuple[tuple[int, int, int], ...]

# What a file's name may say of its dataset, and the classes that the released checkpoints of it know.
NAMED: dict[str, tuple[str, tuple[str, ...], Colors]] = {
    "ade20k": ("ADE20K", tuple(name for name, _ in ADE20K), tuple(color for _, color in ADE20K)),
    "cityscapes": ("Cityscapes", TRAINED_CLASSES, ()),
    "mapillary": ("Cityscapes", TRAINED_CLASSES, ()),
}


@dataclass(frozen=True)
class ModelConfig:
    """How a model was built, and what its outputs stand for as far as that is known.

    `backbone` are the arguments of `InternImage` that differ from the table of sizes. `classes` name the outputs from the first
    on; there may be fewer than `num_classes`, as in the released models. `colors` are their RGB values, `scale` is the (width,
    height) that an image is fitted into. Raises `ValueError` for parts that do not fit together.
    """

    model: str
    num_classes: int
    backbone: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    colors: Colors = ()
    scale: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.classes) > self.num_classes or (self.colors and len(self.colors) != len(self.classes)):
            raise ValueError(
                f"classes must be at most the {self.num_classes} of the model, each with a colour or none at all, got "
                f"{len(self.classes)} classes and {len(self.colors)} colors; give both for every output that has a name"
            )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """From what `to_json` gave, whatever else lies beside it."""
        known = {name: values[name] for name in (f.name for f in fields(cls)) if name in values}
        known["classes"] = tuple(known.get("classes", ()))
        known["colors"] = _colors(known.get("colors", ()))
        if scale := known.get("scale"):
            known["scale"] = (int(scale[0]), int(scale[1]))
        return cls(**known)


def config_beside(path: Path) -> ModelConfig | None:
    """The configuration beside the weights: of a saved model, or of a run, whose checkpoints carry what they are about."""
    if not path.is_dir() and path.name != WEIGHTS:
        return None
    file = model_file(path)
    if {"model", "num_classes"} <= (values := json_beside(file, CONFIG)).keys():  # other programs have a config.json too
        return ModelConfig.from_json(values)
    if about := json_beside(file, "state.json").get("about"):
        recipe = about["recipe"]
        return ModelConfig.from_json({**about, "model": recipe["model"], "scale": recipe["evaluation_scale"]})
    return None


@dataclass(frozen=True)
class Outputs:
    """What outputs stand for, from the first on, as far as that is known; `guess` says so where only a file's name tells it."""

    classes: tuple[str, ...] = ()
    colors: Colors = ()
    guess: str = ""


def outputs_of(path: Path, content: Mapping[str, Any]) -> Outputs:
    """What the outputs of the weights at `path`, with this `content`, stand for.

    Their configuration says it, or what mmsegmentation wrote among them, or the name of the file, since the released ones say
    nothing else: those of ADE20K know its 150 classes, those of Cityscapes and Mapillary Vistas in their 150 outputs the 19 of
    Cityscapes. Of two datasets in a name the last counts.
    """
    if config := config_beside(path):
        return Outputs(config.classes, config.colors)
    num_classes = num_classes_of(under_our_names(find_tensors(content).tensors))
    if num_classes is None:
        return Outputs()
    classes, colors = stated_classes(content, num_classes)
    if classes:
        return Outputs(classes, colors)
    datasets = re.findall(rf"(?<![a-z])({'|'.join(NAMED)})(?![a-z])", path.name.lower())
    name, classes, colors = NAMED[datasets[-1]] if datasets else ("", (), ())
    if num_classes not in (len(classes), RELEASED_OUTPUTS) or not classes:
        return Outputs()
    which = f"{num_classes} outputs" if num_classes == len(classes) else f"first {len(classes)} of {num_classes} outputs"
    return Outputs(classes, colors, f"by its name, its {which} are taken to be the {len(classes)} classes of {name}")


def stated_classes(content: Mapping[str, Any], num_classes: int) -> tuple[tuple[str, ...], Colors]:
    """The classes and colours that mmsegmentation writes beside the weights, into `meta`; none where they do not fit."""
    meta = content.get("meta")
    if not isinstance(meta, Mapping):
        return (), ()
    told = meta.get("dataset_meta") or {"classes": meta.get("CLASSES"), "palette": meta.get("PALETTE")}
    classes = tuple(map(str, told.get("classes") or ()))
    colors = _colors(told.get("palette") or ())
    if len(classes) > num_classes:
        return (), ()
    return classes, colors if len(colors) == len(classes) else ()


def _colors(values: Iterable[Iterable[int]]) -> Colors:
    return tuple((int(r), int(g), int(b)) for r, g, b in values)
