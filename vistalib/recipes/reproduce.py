"""Published numbers on the user's own Cityscapes: a released checkpoint, scored as by its publishers, and a record of it.

Source: the table of `segmentation/configs/cityscapes` in OpenGVLab/InternImage and the test settings of its configurations:
images fitted into 1024x2048, the whole image at once; "ms" adds the scales 0.5 to 1.75 and their mirror images. All 150 outputs
compete, as released: a pixel given to one beyond the 19 classes is a miss. Each number is the best of the checkpoints scored on
the same 500 images.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vistalib.data import TRAIN_CLASSES
from vistalib.evaluate import MULTI_SCALES, Evaluation, evaluate_dataset
from vistalib.files import sha256
from vistalib.models import RELEASED_FILES, locate
from vistalib.models.weight_files import model_file
from vistalib.provenance import provenance
from vistalib.recipes.recipe import Dataset
from vistalib.recipes.run import same_classes
from vistalib.recipes.trained import RELEASED_SCALE, open_model

TOLERANCE = 0.05  # points: five of the last printed digit, for other kernels, libraries and cards
IMAGES = 500  # of the validation split


@dataclass(frozen=True)
class Cell:
    """One published number: the `name` of a released file, the model it is of, how images were shown, and mIoU in percent."""

    name: str
    model: str
    multi_scale: bool
    published: float

    @property
    def label(self) -> str:
        """A name for a file, with `ss` or `ms` behind it."""
        return f"{self.name}_{'ms' if self.multi_scale else 'ss'}"


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` found for a cell; `checkpoint` names the weights, `digest` is the SHA-256 of their file."""

    cell: Cell
    evaluation: Evaluation
    checkpoint: str
    digest: str
    scale: tuple[int, int]

    @property
    def found(self) -> float:
        """MIoU in percent."""
        return 100 * self.evaluation.mean_iou

    @property
    def difference(self) -> float:
        """What was found less what was published, in points."""
        return self.found - self.cell.published

    @property
    def within(self) -> bool:
        """Whether the two differ by no more than `TOLERANCE` once both are rounded as published."""
        return round(abs(round(self.found, 2) - self.cell.published), 2) <= TOLERANCE

    def departures(self) -> list[str]:
        """What differs from the published measurement and can be seen from here; empty for a true reproduction."""
        released = RELEASED_FILES.get(self.cell.name)
        found = []
        if released is None or self.digest != released.sha256:
            found.append("the weights are not the released file")
        if self.evaluation.images != IMAGES:
            found.append(f"the validation split has {IMAGES} images, and {self.evaluation.images} were scored")
        if self.scale != RELEASED_SCALE:
            found.append(
                f"images were fitted into {self.scale[1]}x{self.scale[0]}, not {RELEASED_SCALE[1]}x{RELEASED_SCALE[0]}"
            )
        return found

    def sentence(self) -> str:
        """The outcome in words."""
        both = f"mIoU {self.found:.2f}%, published {self.cell.published:.2f}%"
        if departures := self.departures():
            return f"{both}; this does not test the published number: {', '.join(departures)}"
        if self.within:
            return f"{both}: reproduced, within {TOLERANCE} points"
        return f"{both}: not reproduced, {self.difference:+.2f} points off where {TOLERANCE} are allowed"

    def to_json(self) -> dict[str, Any]:
        """The record, as plain values."""
        return {
            "facts": provenance(),
            "cell": {"name": self.cell.name, "model": self.cell.model, "mode": self.evaluation.mode},
            "published": self.cell.published,
            "found": round(self.found, 4),
            "difference": round(self.difference, 4),
            "tolerance": TOLERANCE,
            "within": self.within,
            "departures": self.departures(),
            "sentence": self.sentence(),
            "checkpoint": {"source": self.checkpoint, "sha256": self.digest},
            "scale": list(self.scale),
            "evaluation": self.evaluation.to_json(),
        }


def list_cells() -> list[Cell]:
    """Every published mIoU, in the order of the released files, single scale before multi-scale."""
    return [
        Cell(file.name, file.model, multi_scale, published)
        for file in RELEASED_FILES.values()
        if file.mean_iou is not None and file.model is not None
        for multi_scale, published in zip((False, True), file.mean_iou, strict=True)
    ]


def find_cell(name: str, *, multi_scale: bool) -> Cell:
    """The cell of a released file; a `ValueError` names the nearest ones where nothing was published under that name."""
    cells = {cell.name: cell for cell in list_cells() if cell.multi_scale == multi_scale}
    if name in cells:
        return cells[name]
    near = get_close_matches(name, cells, n=3, cutoff=0.3)
    raise ValueError(
        f"a cell must be the name of a released file with a published mIoU, got {name!r}; "
        + (f"did you mean {' or '.join(near)}? " if near else "")
        + "`vistalib reproduce` lists them all"
    )


def reproduce(
    cell: Cell,
    dataset: Dataset,
    *,
    weights: str | Path | None = None,
    scale: tuple[int, int] = RELEASED_SCALE,
    batch_size: int = 1,
    device: str | None = None,
) -> Reproduction:
    """Score the released file of `cell`, fetched if need be, on `dataset`, the validation split of Cityscapes.

    `weights` is a copy of the file that lies elsewhere, or others to score in its place. `scale` (width, height) is the box
    of the released test setting; `batch_size` and `device` are as for `evaluate_dataset`. Under torchrun every process calls
    this. Raises `ValueError` for weights of another model or of other classes, and where `locate` does.
    """
    source = cell.name if weights is None else weights
    path = locate(source)
    trained = open_model(source, device=device, classes=TRAIN_CLASSES)
    assert trained.model.config is not None  # from_pretrained tells how it built the model
    if trained.model.config.model != cell.model:
        raise ValueError(f"{source} must be weights of {cell.model}, got some of {trained.model.config.model}; give others")
    same_classes(trained.classes, dataset.classes)
    evaluation = evaluate_dataset(
        trained.model,
        dataset,
        scale=scale,
        scales=MULTI_SCALES if cell.multi_scale else (1.0,),
        flip=cell.multi_scale,
        batch_size=batch_size,
        device=trained.device,
    )
    digest = sha256(model_file(path))
    return Reproduction(cell, evaluation, Path(source).name if Path(source).exists() else str(source), digest, scale)
