"""An outside opinion on the score: Cityscapes' own evaluation scripts, on the same predictions.

Source: the PyPI package cityscapesScripts (https://github.com/mcordts/cityscapesScripts), its `evalPixelLevelSemanticLabeling`.
Any image size will do, as long as a prediction has the size of its ground truth. Install it with `--no-deps`: it asks for the
obsolete `typing` package, and this evaluation needs only numpy and Pillow.
"""

import contextlib
import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vistalib.data.labels import TRAIN_CLASSES
from vistalib.evaluate.categories import CATEGORIES
from vistalib.evaluate.evaluation import Evaluation, plain
from vistalib.evaluate.instances import INSTANCE_CATEGORIES, INSTANCE_CLASSES
from vistalib.extras import missing


def score_with_cityscapes_scripts(predictions: str | Path, ground_truth: str | Path) -> dict[str, Any]:
    """Score label-id PNGs with cityscapesScripts; needs that package.

    `predictions` is a folder as `evaluate_dataset(export=...)` writes it; `ground_truth` one with `*_gtFine_labelIds.png`, at
    any depth, such as `gtFine/val`. Returns "iou" by class and "category_iou"; "instance_iou" and "instance_category_iou", None
    unless each ground truth has its `*_gtFine_instanceIds.png` beside it; the mean of each, as "mean_iou" and so on; and
    "images". Scores are fractions, None where a class is absent. `ValueError` where there is no ground truth, or with the
    scripts' own message where they give up.
    """
    try:
        from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as scripts
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cityscapesscripts":  # it is installed, and something it needs is not
            raise
        raise missing("cityscapesscripts", "check the score with Cityscapes' own scripts") from error
    targets = sorted(str(path) for path in Path(ground_truth).rglob("*_gtFine_labelIds.png"))
    if not targets:
        raise ValueError(f"the ground truth must hold *_gtFine_labelIds.png, got none below {ground_truth}; try gtFine/val")
    settings = copy.copy(scripts.args)  # theirs is global
    settings.predictionPath, settings.predictionWalk = str(predictions), None
    settings.evalInstLevelScore = all(Path(target.replace("labelIds", "instanceIds")).is_file() for target in targets)
    settings.JSONOutput, settings.quiet = False, True
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), _in1d():
            found = [scripts.getPrediction(settings, target) for target in targets]
            result = scripts.evaluateImgLists(found, targets, settings)
    except SystemExit:  # how they end on any fault, having printed it
        raise ValueError(f"cityscapesScripts could not score {predictions}: {said.getvalue().strip()}") from None
    except IndexError as error:
        raise ValueError(f"predictions must be label ids 0..33, got others in {predictions}; export them again") from error
    tables = {  # ours: theirs, their mean, and what of it
        "iou": ("classScores", "averageScoreClasses", TRAIN_CLASSES),
        "category_iou": ("categoryScores", "averageScoreCategories", CATEGORIES),
        "instance_iou": ("classInstScores", "averageScoreInstClasses", INSTANCE_CLASSES),
        "instance_category_iou": ("categoryInstScores", "averageScoreInstCategories", INSTANCE_CATEGORIES),
    }
    scores: dict[str, Any] = {"images": len(targets)}
    for name, (table, mean, kept) in tables.items():
        known = settings.evalInstLevelScore or not name.startswith("instance")
        scores[f"mean_{name}"] = plain(result[mean]) if known else None
        scores[name] = {key: plain(result[table][key]) for key in kept} if known else None
    return scores


def scripts_check(evaluation: Evaluation, predictions: str | Path, ground_truth: str | Path) -> dict[str, Any]:
    """Whether cityscapesScripts finds in `predictions` what `evaluation` says of them: "ours", "cityscapesscripts", "agree".

    The two agree where the mean IoU, the IoU of every class and category, and the iIoU where both have it are equal to 12
    digits; the scripts print three.
    """
    theirs = score_with_cityscapes_scripts(predictions, ground_truth)
    ours = evaluation.to_json()
    pairs: list[tuple[float | None, float | None]] = []
    for name in ("iou", "category_iou", "instance_iou", "instance_category_iou"):
        if theirs[name] is not None and name in ours:
            pairs.append((ours[f"mean_{name}"], theirs[f"mean_{name}"]))
            pairs += [(ours[name][key], score) for key, score in theirs[name].items()]
    return {
        "ours": ours["mean_iou"],
        "cityscapesscripts": theirs["mean_iou"],
        "agree": all(a == b if a is None or b is None else abs(a - b) < 1e-12 for a, b in pairs),
    }


@contextlib.contextmanager
def _in1d() -> Iterator[None]:
    """`numpy.in1d`, which the scripts call, for the length of a call: deprecated in numpy 2.0 and gone from 2.4."""
    own = vars(np).get("in1d")
    vars(np)["in1d"] = np.isin
    try:
        yield
    finally:
        if own is None:
            del vars(np)["in1d"]
        else:
            vars(np)["in1d"] = own
