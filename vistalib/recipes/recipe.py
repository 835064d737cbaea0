"""What a training run is, as data: which model, which images, which augmentation, which schedule.

A recipe is one frozen dataclass. A function returns it, `vistalib train NAME --print` shows every value of it, the command
line overrides any of them, and the run's folder keeps it as JSON.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from vistalib.data import AugmentationSettings, Cityscapes, Folder, Vistas
from vistalib.data.layout import Kind
from vistalib.models import LossSettings
from vistalib.models.loss import RELEASED
from vistalib.train import TrainSettings

Dataset = Vistas | Cityscapes | Folder
# Fields that keep the released order, (width, height), in recipes and in every file of a run: the command line has them as
# options of these names, height first, as all sizes there.
SIZE_OPTIONS = {"evaluation_scale": "evaluation_size", "scale": "size"}
DEFAULT_SPLITS: dict[Kind, tuple[str, str]] = {  # training, validation
    "vistas": ("training", "validation"),
    "cityscapes": ("train", "val"),
    "folder": ("train", "val"),
}


@dataclass(frozen=True)
class Source:
    """One split of one dataset, and which of its labels are read how."""

    kind: Kind
    """Which layout: vistas, cityscapes or folder."""
    split: str
    """The split's name in that layout; several are joined by +."""
    map: str | None = None
    """Which classes: name of a map (`vistalib data maps`), YAML file of your own, or native (None: the dataset's)."""
    version: str | None = None
    """Version of Vistas: v1.2 or v2.0 (None: v1.2 where it is)."""
    labels: Literal["fine", "coarse", "auto"] = "fine"
    """Which labels of Cityscapes; auto has automatic ones for train_extra."""
    min_probability: float = 0.0
    """Ignore automatic labels of Cityscapes that are less sure; their authors use 0.5."""

    def __post_init__(self) -> None:
        for name, kind in (("version", "vistas"), ("labels", "cityscapes"), ("min_probability", "cityscapes")):
            default = self.__dataclass_fields__[name].default
            if self.kind != kind and getattr(self, name) != default:
                raise ValueError(f"{name} is a choice of {kind}, got {getattr(self, name)!r} for {self.kind}; leave it out")


@dataclass(frozen=True)
class Roots:
    """Where the datasets lie on this machine; only those that a recipe uses need be given."""

    vistas: Path | None = None
    """Folder of Mapillary Vistas: it holds training/ and validation/."""
    cityscapes: Path | None = None
    """Folder of Cityscapes: it holds leftImg8bit/ and gtFine/."""
    folder: Path | None = None
    """Folder of your own data: it holds images/, labels/ and classes.json."""

    def open(self, source: Source) -> Dataset:
        """Open a source's dataset; raises `ValueError` when its folder was not given or is not such a dataset."""
        root: Path | None = getattr(self, source.kind)
        if root is None:
            raise ValueError(
                f"this recipe reads {source.kind} ({source.split}), and no folder was given for it; add --{source.kind} DIR"
            )
        match source.kind:
            case "vistas":
                return Vistas(root, source.split, source.version, map=source.map)
            case "cityscapes":
                return Cityscapes(root, source.split, source.labels, min_probability=source.min_probability, map=source.map)
            case "folder":
                return Folder(root, source.split, map=source.map)


@dataclass(frozen=True)
class Runtime:
    """How this machine computes a run: it decides how long that takes and in how much memory, not what is learned."""

    device: str | None = None
    """Where to run: cpu, cuda, cuda:1, ... (None: the GPU where there is one)."""
    num_workers: int = 2
    """Processes that decode and crop."""
    in_memory: bool = False
    """Decode each image once and keep it, for datasets that fit into memory."""
    cache: str | Path | None = None
    """Folder that `vistalib.data.prepare` made of the training images."""
    device_colors: bool = False
    """Change colours on the device instead of in the workers, with the same result."""


@dataclass(frozen=True)
class Recipe:
    """One named training run, complete but for the folders of this machine."""

    name: str
    """The recipe's name; released configurations keep the names they were released under."""
    model: str
    """Name of the model in `vistalib.models.list_models()`."""
    num_classes: int | None
    """Channels of the logits; None takes the number of classes of the training data."""
    train: Source
    """What is trained on."""
    validation: Source
    """What is evaluated on."""
    augmentation: AugmentationSettings
    """Resize, crop, flip, colour."""
    settings: TrainSettings
    """Optimizer, schedule, logging, checkpoints."""
    batch_size: int
    """Images a step over all ranks together."""
    evaluation_scale: tuple[int, int]
    """(width, height) that an image is fitted into before it is evaluated."""
    class_temperature: float | None = None
    """Draw images by class, rare classes more often, the more so the lower it is (DAFormer: 0.01); None: each once an epoch."""
    recompute_blocks: bool = False
    """Compute each block of the backbone again in the backward pass, instead of keeping what is in it: saves memory."""
    loss: LossSettings = RELEASED
    """Choices of the loss for one's own data; the released one without."""
    starts_from: str | None = None
    """Name of the recipe or backbone whose weights this one begins with; give their file or run with --weights."""

    def __post_init__(self) -> None:
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, or None for those of the data; got {self.num_classes}")
        if self.batch_size < 1 or min(self.evaluation_scale) < 1:
            raise ValueError(
                "batch_size and both sides of evaluation_scale must be at least 1, "
                f"got batch_size={self.batch_size} and evaluation_scale={self.evaluation_scale}"
            )
        if self.class_temperature is not None and not self.class_temperature > 0:
            raise ValueError(f"class_temperature must be above 0, or None, got {self.class_temperature}; try 0.01")
        if self.recompute_blocks and self.settings.cuda_graphs:
            raise ValueError("cuda_graphs cannot record recompute_blocks, got both; leave one of them out")

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_json` gave, read from a file; `TypeError` for values that this version does not know."""
        parts = {
            "train": Source,
            "validation": Source,
            "augmentation": AugmentationSettings,
            "settings": TrainSettings,
            "loss": LossSettings,
        }
        made = {name: parts[name](**_tuples(value)) for name, value in values.items() if name in parts}
        return cls(**(_tuples(values) | made))

    def options(self) -> list[tuple[str, str]]:
        """Every value as the command line's option for it and its text there: ("--settings.iterations", "80000").

        Sizes are height and width there (`SIZE_OPTIONS`).
        """
        return list(_options(self, ""))


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where the settings have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _options(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for part in dataclasses.fields(value):
        name, found = prefix + SIZE_OPTIONS.get(part.name, part.name).replace("_", "-"), getattr(value, part.name)
        if part.name in SIZE_OPTIONS:
            found = found[::-1]
        if dataclasses.is_dataclass(found):
            yield from _options(found, f"{name}.")
        elif isinstance(found, bool):
            *parents, last = name.split(".")
            yield f"--{'.'.join([*parents, last if found else f'no-{last}'])}", ""
        else:
            yield f"--{name}", " ".join(map(str, found)) if isinstance(found, tuple) else str(found)
