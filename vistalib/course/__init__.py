"""What the notebooks lean on: checkers of exercises, figures that suit their page, recorded results."""

from vistalib.course.checkers import check_flattering, check_iou, check_mean_iou
from vistalib.course.comparison_checkers import check_believable, check_gain, check_losers
from vistalib.course.figures import show
from vistalib.course.records import look_up, quote, read_record, recorded_on, results_folder
from vistalib.course.verdict import Verdict

__all__ = [
    "Verdict",
    "check_believable",
    "check_flattering",
    "check_gain",
    "check_iou",
    "check_losers",
    "check_mean_iou",
    "look_up",
    "quote",
    "read_record",
    "recorded_on",
    "results_folder",
    "show",
]
