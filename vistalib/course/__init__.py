"""What the notebooks lean on: checkers of exercises, figures that suit their page, recorded results."""

from vistalib.course.checkers import Verdict, check_flattering, check_iou, check_mean_iou
from vistalib.course.figures import show
from vistalib.course.records import look_up, quote, read_record, recorded_on, results_folder

__all__ = [
    "Verdict",
    "check_flattering",
    "check_iou",
    "check_mean_iou",
    "look_up",
    "quote",
    "read_record",
    "recorded_on",
    "results_folder",
    "show",
]
