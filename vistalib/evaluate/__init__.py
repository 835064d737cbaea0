"""Scores: confusion matrix, inference, evaluation of a dataset, and the check by Cityscapes' own scripts."""

from vistalib.evaluate.cityscapes_scripts import score_with_cityscapes_scripts, scripts_check
from vistalib.evaluate.confusion import ConfusionMatrix
from vistalib.evaluate.dataset import Evaluation, evaluate_dataset
from vistalib.evaluate.inference import MULTI_SCALES, Window, mode_name, predict_labels, predict_probabilities

__all__ = [
    "MULTI_SCALES",
    "ConfusionMatrix",
    "Evaluation",
    "Window",
    "evaluate_dataset",
    "mode_name",
    "predict_labels",
    "predict_probabilities",
    "score_with_cityscapes_scripts",
    "scripts_check",
]
