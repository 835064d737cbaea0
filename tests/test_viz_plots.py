"""Figures: the right axes, the right numbers, no traces elsewhere."""

import sys
from typing import Any

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from viz_helpers import CLASSES, COLORS, CONFUSION, evaluation, log, sampling

from vistalib.viz import figure_svg, plot_comparison, plot_confusion, plot_curves, plot_images, plot_iou_bars, plot_sampling
from vistalib.viz.plots import smooth
from vistalib.viz.style import MUTED, run_color


@pytest.mark.parametrize(("evaluations", "panels"), [(0, 2), (2, 3)], ids=["training only", "evaluated on the way"])
def test_curves_have_a_panel_for_what_was_logged(evaluations: int, panels: int) -> None:
    figure = plot_curves({"one": log(8, evaluations=evaluations), "two": log(4)})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["loss", "learning rate", "mIoU, %"][:panels]
    assert len(figure.axes[0].lines) == 4  # raw and smoothed, two runs
    assert figure.axes[1].lines[0].get_ydata()[0] == pytest.approx(1e-3 * 7 / 8)


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value() -> None:
    assert np.allclose(smooth(np.full(50, 2.5)), 2.5, rtol=0, atol=1e-12)
    assert smooth(np.array([3.0, 0.0, 0.0]), window=2).tolist() == pytest.approx([3.0, 1.0, 3 / 7])


def test_bars_sort_by_the_first_run_and_put_undefined_last() -> None:
    figure = plot_iou_bars({"a": evaluation(), "b": evaluation(CONFUSION.T)}, CLASSES, colors=COLORS)
    (axes,) = figure.axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["sky", "road", "<b>car</b> & co", "pole", "train"]
    assert len(axes.patches) == 2 * len(CLASSES)
    assert [text.get_text() for text in axes.texts] == ["92.4", "76.3", "57.7", "0.0", "undefined"]


def test_confusion_writes_row_shares_and_marks_rows_without_truth() -> None:
    (axes,) = plot_confusion(CONFUSION, CLASSES).axes
    texts = {(int(text.get_position()[0]), int(text.get_position()[1])): text.get_text() for text in axes.texts}
    assert texts[0, 0] == "90"
    assert texts[0, 1] == "25"  # column road, row car: 10 of 40
    assert texts[2, 3] == "no such pixel in the truth"
    assert (2, 2) not in texts


def test_sampling_draws_the_image_and_a_window_for_each_pixel_and_level() -> None:
    arrays = sampling()
    locations = {level: arrays[f"location_{level}"] for level in ("stage_1", "stage_2")}
    weights = {level: arrays[f"weight_{level}"] for level in ("stage_1", "stage_2")}
    figure = plot_sampling(arrays["image"], arrays["query"], locations, weights)
    assert len(figure.axes) == 1 + 2 * 2
    low, high = figure.axes[1].get_xlim()
    assert (low + high) / 2 == pytest.approx(10.0)  # the window is centred on its pixel
    drawn = np.asarray(figure.axes[1].collections[0].get_offsets())
    assert {tuple(point) for point in drawn} <= {tuple(point) for point in arrays["location_stage_1"][0]}
    assert len(drawn) >= 8


def test_sampling_names_the_level_whose_shapes_do_not_fit() -> None:
    arrays = sampling()
    with pytest.raises(ValueError, match=r"level stage_1 must have .* got \(2, 9, 2\) and \(2, 4\)"):
        plot_sampling(
            arrays["image"],
            arrays["query"],
            {"stage_1": arrays["location_stage_1"]},
            {"stage_1": arrays["weight_stage_1"][:, :4]},
        )


def compared(difference: dict[str, float] | None, *, distinct: bool = False) -> dict[str, Any]:
    return {"difference": difference, "images": 20, "distinct": distinct}


def test_a_comparison_shows_the_mean_first_then_the_largest_gain_and_leaves_out_what_has_none() -> None:
    gain, loss, little = ({"value": v, "low": v - 0.02, "high": v + 0.02} for v in (0.05, -0.07, 0.01))
    iou = {"pole": compared(little), "car": compared(gain, distinct=True), "sky": compared(None)}
    iou["road"] = compared(loss, distinct=True)
    found = {"iou": iou, "mean_iou": {"difference": little}, "images": 20, "resamples": 2000}
    axes = plot_comparison(found).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mIoU", "car", "pole", "road"]
    intervals = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]]
    ends = {round(line.get_ydata()[0]): tuple(line.get_xdata()) for line in intervals if line.get_ydata()[0] in range(4)}
    assert ends[1] == pytest.approx((3, 7))
    colors = [line.get_color() for line in intervals if line.get_ydata()[0] in range(4)]
    assert colors == [MUTED, run_color(1), MUTED, run_color(0)]


@pytest.mark.parametrize(("count", "cells"), [(1, 1), (3, 3), (4, 6)])
def test_a_grid_fills_whole_rows_of_three(count: int, cells: int) -> None:
    figure = plot_images([np.zeros((4, 8, 3), np.uint8)] * count, [f"no. {i}" for i in range(count)])
    assert len(figure.axes) == cells
    assert sum(bool(axes.images) for axes in figure.axes) == count


def test_drawing_leaves_no_trace() -> None:
    before = dict(matplotlib.rcParams)
    plot_confusion(CONFUSION, CLASSES)
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.pyplot.get_fignums() == []


def test_a_figure_in_a_page_takes_the_page_colors_and_keeps_its_text() -> None:
    svg = figure_svg(plot_iou_bars({"a <run>": evaluation()}, CLASSES), 'bars of "a"')
    assert svg.startswith("<svg ")
    assert 'aria-label="bars of &quot;a&quot;"' in svg
    assert "var(--run-0, #0f6cbd)" in svg
    assert "a &lt;run&gt;, mIoU 56.6" in svg
    assert "<metadata" not in svg


def test_a_missing_seaborn_is_answered_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "seaborn", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"seaborn is needed to draw the figures, .* run: python -m pip install seaborn"
    ):
        plot_confusion(CONFUSION, CLASSES)


@pytest.mark.slow
def test_a_notebook_shows_a_returned_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel chooses its own
    nbformat, nbclient = pytest.importorskip("nbformat").v4, pytest.importorskip("nbclient")
    code = "import numpy as np\nfrom vistalib.viz import plot_images\nplot_images([np.zeros((4, 8, 3), np.uint8)])"
    notebook = nbformat.new_notebook(cells=[nbformat.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert ["image/png" in output.get("data", {}) for output in notebook.cells[0].outputs] == [True]
