"""What the commands share: the list they register in, wrong usage, and where the datasets lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.recipes import Dataset, Roots

app = tyro.extras.SubcommandApp()

T = TypeVar("T")
Chosen = Annotated[T, tyro.conf.arg(help_behavior_hint="")]  # its default depends on the machine; the help tells it in words


class UsageError(ValueError):
    """The command line itself is wrong: exit status 2."""


@dataclass(frozen=True)
class Datasets:
    """Where the datasets lie."""

    vistas: Path | None = None
    """Folder of Mapillary Vistas: it holds training/ and validation/."""
    cityscapes: Path | None = None
    """Folder of Cityscapes: it holds leftImg8bit/ and gtFine/."""
    folder: Path | None = None
    """Folder of your own data: it holds images/, labels/ and classes.json."""

    def roots(self) -> "Roots":
        """The folders as `recipes` wants them."""
        from vistalib.recipes import Roots

        return Roots(vistas=self.vistas, cityscapes=self.cityscapes, folder=self.folder)

    def only(self, split: str | None, *, training: bool) -> "Dataset":
        """The one dataset that was given; `split` None is its training or its validation split."""
        from vistalib.recipes import DEFAULT_SPLITS, Source

        given = [kind for kind in DEFAULT_SPLITS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise UsageError(
                f"one dataset is needed, got {len(given)}; give one of --vistas DIR, --cityscapes DIR, --folder DIR"
            )
        return self.roots().open(Source(given[0], split or DEFAULT_SPLITS[given[0]][0 if training else 1]))


Given = Annotated[Datasets, tyro.conf.arg(name="")]
