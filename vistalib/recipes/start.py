"""What a run starts from: the weights of another run, of a released checkpoint, or of any file; and what one goes on with."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vistalib.models import RELEASED_FILES, LoadReport, Segmentor, load_weights, locate, read_weights
from vistalib.models.config import outputs_of
from vistalib.models.fetch import CONFIG
from vistalib.models.weight_files import json_beside, model_file
from vistalib.recipes.recipe import Recipe
from vistalib.train import load_checkpoint
from vistalib.train.checkpoint import CHECKPOINTS, INDEX


@dataclass(frozen=True)
class Start:
    """Weights, and as far as it is known the recipe or backbone that made them and the classes of their outputs.

    `guess` says where those are known from a file's name alone; `source` is what a user called the weights.
    """

    weights: Mapping[str, Any]
    made_by: str | None
    classes: tuple[str, ...]
    guess: str = ""
    source: str = "the weights"


def find_start(source: str | Path) -> Start:
    """The start that `source` names: a run's or a checkpoint's folder, or what `vistalib.models.locate` finds."""
    path = locate(source)
    if path.is_dir() and not (path / CONFIG).exists():
        checkpoint = load_checkpoint(path)
        about = checkpoint.state.get("about", {})
        made_by, classes = about.get("recipe", {}).get("name"), tuple(about.get("classes", ()))
        return Start(checkpoint.model, made_by, classes, source=str(source))
    content = read_weights(path)
    outputs = outputs_of(path, content)
    released = RELEASED_FILES.get(path.name.removesuffix(".pth")) if path.is_file() else None
    return Start(content, released.name if released else None, outputs.classes, outputs.guess, str(source))


def load_start(model: Segmentor, start: Start, classes: tuple[str, ...]) -> LoadReport:
    """Load what fits into `model`; outputs that stand for `classes` take the rows of the classes whose names they share."""
    by_name = model.num_classes == len(classes) and set(classes) & set(start.classes)
    rows = classes if by_name else None
    report = load_weights(model, start.weights, classes=rows, their_classes=start.classes, source=start.source)
    return replace(report, notes=(*report.notes, start.guess)) if start.guess else report


def recipe_of_run(folder: str | Path) -> Recipe | None:
    """The recipe that the run in `folder` began with, as its last checkpoint has it; None where there is no checkpoint."""
    folder = Path(folder)
    if not (folder / CHECKPOINTS / INDEX).is_file():
        return None
    about = json_beside(model_file(folder), "state.json").get("about", {})
    try:
        return Recipe.from_json(about["recipe"]) if "recipe" in about else None
    except TypeError as error:
        raise ValueError(f"the recipe of {folder} must be one that this version knows, got: {error}; get newer code") from error
