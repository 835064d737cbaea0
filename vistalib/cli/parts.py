"""What the commands share: wrong usage, where the datasets lie, how images are shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.data.layout import Kind
    from vistalib.recipes import Dataset, Roots, Source, TrainedModel

T = TypeVar("T")
Chosen = Annotated[T, tyro.conf.arg(help_behavior_hint="")]  # its default depends on the machine; the help tells it in words


class UsageError(ValueError):
    """The command line itself is wrong: exit status 2."""


def with_weights(weights: str | None, places: Sequence[str], *others: str) -> tuple[str, ...]:
    """The weights that a command was given, and one of `places` for each of its `others`, which are named as in its usage.

    Before there was --weights they stood in front of the others, and still may.
    """
    given = (*(() if weights is None else (weights,)), *places)
    if len(given) != 1 + len(others):
        wanted = " and ".join(("one --weights WEIGHTS", *others))
        raise UsageError(
            f"{wanted} must be given, got {', '.join(given) or 'nothing'}; weights are a run's folder, a weight file, a "
            "released name, an address or a Hub id"
        )
    return given


@dataclass(frozen=True)
class Datasets:
    """Where the datasets lie."""

    vistas: Path | None = None
    """Folder of Mapillary Vistas: it holds training/ and validation/."""
    cityscapes: Path | None = None
    """Folder of Cityscapes: it holds leftImg8bit/ and gtFine/."""
    folder: Annotated[Path | None, tyro.conf.arg(aliases=["--data"])] = None
    """Folder of your own data: it holds images/, labels/ and classes.json."""

    def roots(self) -> "Roots":
        """The folders as `recipes` wants them."""
        from vistalib.recipes import Roots

        return Roots(vistas=self.vistas, cityscapes=self.cityscapes, folder=self.folder)


@dataclass(frozen=True)
class OneDataset(Datasets):
    """The one dataset of a command, and what of it."""

    split: str | None = None
    """Split (default: the one that the command is about); several are joined by +."""
    map: str | None = None
    """Which classes: name of a map (`vistalib data maps`), YAML file of your own, or native (default: the dataset's)."""
    version: str | None = None
    """Version of Vistas: v1.2 or v2.0 (default: v1.2 where it is)."""
    labels: Literal["fine", "coarse", "auto"] = "fine"
    """Which labels of Cityscapes; auto has automatic ones for train_extra."""
    min_probability: float = 0.0
    """Ignore automatic labels of Cityscapes that are less sure."""

    def open(self, *, training: bool) -> "Dataset":
        """The dataset; without a split, its training or its validation split."""
        from vistalib.recipes import DEFAULT_SPLITS

        return self.roots().open(self.source(DEFAULT_SPLITS[self.kind()][0 if training else 1]))

    def source(self, default_split: str) -> "Source":
        """The dataset as a recipe names it."""
        from vistalib.recipes import Source

        return Source(self.kind(), self.split or default_split, self.map, self.version, self.labels, self.min_probability)

    def kind(self) -> "Kind":
        """Which of the datasets was given; `UsageError` where it is not one."""
        from vistalib.recipes import DEFAULT_SPLITS

        given = [kind for kind in DEFAULT_SPLITS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise UsageError(
                f"one dataset is needed, got {len(given)}; give one of --vistas DIR, --cityscapes DIR, --folder DIR"
            )
        return given[0]


Given = Annotated[OneDataset, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Viewing:
    """How an image is shown to the network."""

    mode: Literal["whole", "slide"] = "whole"
    """The whole image at once, or a window that slides over it by two thirds of its size."""
    multi_scale: bool = False
    """Average the probabilities over six scales and their mirror images."""
    size: Annotated[Chosen[tuple[int, int] | None], tyro.conf.arg(aliases=["--scale"])] = None
    """Height and width of the box the image is fitted into (default: that of the model)."""
    crop: Chosen[tuple[int, int] | None] = None
    """Height and width of the sliding window (default: half the model's box, as in training)."""

    def arguments(self, trained: "TrainedModel") -> dict[str, Any]:
        """The keyword arguments of `predict_labels` and `evaluate_dataset`."""
        from vistalib.labelling import CannotLabel, viewing

        try:
            return viewing(trained, **asdict(self))
        except CannotLabel as error:
            raise UsageError(str(error)) from None


Viewed = Annotated[Viewing, tyro.conf.arg(name="")]
