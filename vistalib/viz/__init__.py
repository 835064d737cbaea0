"""What a person looks at: label maps in colour, figures of training, evaluation and speed, sampling points, the report.

Importing this needs numpy alone; what draws needs seaborn and says so where it is missing.
"""

from vistalib.viz.embed import figure_svg
from vistalib.viz.legend import beneath, legend
from vistalib.viz.overlay import colorize, overlay, triptych, wrong_pixels
from vistalib.viz.plots import plot_confusion, plot_curves, plot_images, plot_iou_bars
from vistalib.viz.report import write_report
from vistalib.viz.sampling import plot_sampling
from vistalib.viz.speed import plot_bench

__all__ = [
    "beneath",
    "colorize",
    "figure_svg",
    "legend",
    "overlay",
    "plot_bench",
    "plot_confusion",
    "plot_curves",
    "plot_images",
    "plot_iou_bars",
    "plot_sampling",
    "triptych",
    "write_report",
    "wrong_pixels",
]
