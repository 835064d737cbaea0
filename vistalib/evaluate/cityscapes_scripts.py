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

from vistalib.data.labels import CITYSCAPES, TRAIN_CLASSES
from vistalib.evaluate.dataset import Evaluation, plain
from vistalib.extras import missing

INSTANCE_CLASSES = tuple(label.name for label in CITYSCAPES.trained if label.has_instances)


def score_with_cityscapes_scripts(predictions: str | Path, ground_truth: str | Path) -> dict[str, Any]:
    """Score label-id PNGs with cityscapesScripts; needs that package.

    `predictions` is a folder as `evaluate_dataset(export=...)` writes it; `ground_truth` one with `*_gtFine_labelIds.png`, at
    any depth, such as `gtFine/val`. Returns "mean_iou" and "iou" by class; "mean_instance_iou" and "instance_iou" by
    class, None unless each ground truth has its `*_gtFine_instanceIds.png` beside it; and "images". Scores are fractions, None
    where a class is absent. `ValueError` where there is no ground truth, or with the scripts' own message where they give up.
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
    instances = settings.evalInstLevelScore
    return {
        "mean_iou": plain(result["averageScoreClasses"]),
        "iou": {name: plain(result["classScores"][name]) for name in TRAIN_CLASSES},
        "mean_instance_iou": plain(result["averageScoreInstClasses"]) if instances else None,
        "instance_iou": {name: plain(result["classInstScores"][name]) for name in INSTANCE_CLASSES} if instances else None,
        "images": len(targets),
    }


def scripts_check(evaluation: Evaluation, predictions: str | Path, ground_truth: str | Path) -> dict[str, Any]:
    """Whether cityscapesScripts finds in `predictions` what `evaluation` says of them: "ours", "cityscapesscripts", "agree".

    The two agree where the mean IoU and the IoU of every class are equal to 12 digits; the scripts print three.
    """
    theirs = score_with_cityscapes_scripts(predictions, ground_truth)
    ours = evaluation.to_json()
    pairs = [(ours["mean_iou"], theirs["mean_iou"]), *((ours["iou"][name], score) for name, score in theirs["iou"].items())]
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
