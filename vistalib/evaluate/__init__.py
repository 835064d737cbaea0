"""Scores: confusion matrix, inference, evaluation of a dataset, comparison of runs, the check by Cityscapes' own scripts."""

from vistalib.evaluate.cityscapes_scripts import score_with_cityscapes_scripts, scripts_check
from vistalib.evaluate.compare import Comparison, Difference, compare
from vistalib.evaluate.confusion import ConfusionMatrix
from vistalib.evaluate.dataset import evaluate_dataset
from vistalib.evaluate.evaluation import Evaluation, read_evaluation
from vistalib.evaluate.inference import MULTI_SCALES, Window, mode_name, predict_labels, predict_probabilities
from vistalib.evaluate.per_image import PerImage
from vistalib.evaluate.verdict import verdict

__all__ = [
    "MULTI_SCALES",
    "Comparison",
    "ConfusionMatrix",
    "Difference",
    "Evaluation",
    "PerImage",
    "Window",
    "compare",
    "evaluate_dataset",
    "mode_name",
    "predict_labels",
    "predict_probabilities",
    "read_evaluation",
    "score_with_cityscapes_scripts",
    "scripts_check",
    "verdict",
]
