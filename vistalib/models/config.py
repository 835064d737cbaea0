"""What it takes to build a model again and to read its output, as plain JSON: the `config.json` beside saved weights."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from vistalib.models.fetch import CONFIG
from vistalib.models.weight_files import json_beside, model_file

Colors = tuple[tuple[int, int, int], ...]


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
    if not path.is_dir():
        return None
    file = model_file(path)
    if {"model", "num_classes"} <= (values := json_beside(file, CONFIG)).keys():  # other programs have a config.json too
        return ModelConfig.from_json(values)
    if about := json_beside(file, "state.json").get("about"):
        recipe = about["recipe"]
        return ModelConfig.from_json({**about, "model": recipe["model"], "scale": recipe["evaluation_scale"]})
    return None


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
