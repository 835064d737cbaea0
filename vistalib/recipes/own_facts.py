"""What `own_recipe` has to know: what a folder holds, and which model a checkpoint is of."""

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from vistalib.data import Folder
from vistalib.data.folder import FolderLayout
from vistalib.models.identify import describe, models_of
from vistalib.models.weight_files import find_tensors
from vistalib.models.weights import under_our_names
from vistalib.recipes.own import OwnData, OwnStart
from vistalib.recipes.run import same_classes
from vistalib.recipes.start import find_start

TRAINING, VALIDATION = ("train", "training"), ("val", "validation", "valid")  # names of splits, in order of preference
MOST_SIZES = 200  # images whose size is looked up
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # EXIF: a photograph stored on its side


def look_at_folder(root: str | Path) -> OwnData:
    """What lies in a folder of one's own; `ValueError` for one that cannot be trained on, with what to mend."""
    root = Path(root)
    there = [part.split for part in FolderLayout(root, None).parts]
    train, validation = (next((name for name in names if name in there), None) for names in (TRAINING, VALIDATION))
    train = train or TRAINING[0]
    data = Folder(root, train)
    if validation is None:
        raise ValueError(
            f"{root} must hold images to score on in images/val and labels/val, got the splits {', '.join(there)}; move about "
            "every tenth image and its label there, of videos whole ones, since the frames beside one that was trained on say "
            "little"
        )
    scored = Folder(root, validation)
    same_classes(data.classes, scored.classes)
    chosen = np.linspace(0, len(data) - 1, min(len(data), MOST_SIZES)).round().astype(int)
    sizes = tuple(image_size(data.image_path(int(i))) for i in chosen)
    return OwnData(root, (train, validation), len(data), len(scored), data.classes, sizes)


def look_at_checkpoint(source: str | Path) -> OwnStart:
    """What the checkpoint that `source` names is of (see `vistalib.models.locate`); of a backbone alone, UperNet's model.

    Raises `ValueError` where there is none, and for weights of no model of `list_models()`.
    """
    start = find_start(source)
    tensors = under_our_names(find_tensors(start.weights).tensors)
    names = models_of(tensors)
    if not names:
        raise ValueError(
            f"{source} must be of a model that `vistalib zoo` lists, or of its backbone, got {describe(tensors)}; "
            "give another checkpoint"
        )
    return OwnStart(str(source), names[0], start.classes, start.made_by)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of a photograph as it is decoded, from its first bytes; `ValueError` names a file that is none."""
    try:
        with PillowImage.open(path) as image:
            width, height = image.size
            lying = image.getexif().get(ORIENTATION) in LYING
    except (OSError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise ValueError(
            f"{path} must be a whole JPEG or PNG image, got: {error}; `vistalib data check` finds all such files"
        ) from None
    return (width, height) if lying else (height, width)
