"""What a person looks at: label maps in colour, figures of training, evaluation and speed, sampling points, the report.

Importing this needs numpy alone; what draws needs seaborn and says so where it is missing.
"""

from vistalib.viz.comparison import plot_comparison
from vistalib.viz.datasets import plot_augmentations, plot_class_balance, plot_class_places, plot_image_sizes
from vistalib.viz.embed import figure_svg
from vistalib.viz.flow import plot_map_flow
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
    "plot_augmentations",
    "plot_bench",
    "plot_class_balance",
    "plot_class_places",
    "plot_comparison",
    "plot_confusion",
    "plot_curves",
    "plot_image_sizes",
    "plot_images",
    "plot_iou_bars",
    "plot_map_flow",
    "plot_sampling",
    "triptych",
    "write_report",
    "wrong_pixels",
]
