"""The sections of the report, each a piece of HTML made from the demo's record.

Everything that comes from the record is escaped here; headings, anchors and alternative texts are set here too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from vistalib.viz.embed import figure_svg, label_map, photograph, stain
from vistalib.viz.overlay import wrong_pixels
from vistalib.viz.plots import plot_confusion, plot_curves, plot_iou_bars
from vistalib.viz.sampling import plot_sampling
from vistalib.viz.style import WRONG

if TYPE_CHECKING:
    from vistalib.viz.report import Demo

SINGLE = "single scale"
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """One section of the page: its anchor, its short name in the navigation, its HTML."""

    anchor: str
    short: str
    html: str


def answer(demo: "Demo") -> tuple[str, str]:
    """The headline as text, and the sentence under it as HTML: finetuned against the stronger control."""
    ours = _points(_evaluation(demo.runs["finetune"])["mean_iou"])
    control = _stronger(demo)
    theirs = _points(_evaluation(control)["mean_iou"])
    gain = round(ours - theirs, 1)
    if gain > 0:
        headline = f"Pretraining adds {gain:.1f} points of mIoU"
    elif gain < 0:
        headline = f"Pretraining costs {-gain:.1f} points of mIoU here"
    else:
        headline = "Pretraining changes nothing here"
    lead = (
        f"Pretrained on streets of one kind and finetuned on another, the network reaches <strong>{ours:.1f}%</strong> mIoU on streets "
        f"it has never seen. The stronger control, <q>{escape(control['title'])}</q>, reaches <strong>{theirs:.1f}%</strong>."
    )
    return headline, lead


def kicker(demo: "Demo") -> str:
    facts = demo.record["facts"]
    parts = ["vistalib demo", str(facts.get("when") or "")[:10], f"commit {facts['commit']}" if facts.get("commit") else ""]
    return " · ".join(escape(part) for part in parts if part)


def tiles(demo: "Demo") -> str:
    """The few numbers that matter, as a description list."""
    rows = [(run["title"], f"{_points(_evaluation(run)['mean_iou']):.1f}", "% mIoU") for run in (demo.runs["finetune"], *demo.controls)]
    best = max(demo.runs["finetune"]["evaluations"], key=lambda evaluation: evaluation["mean_iou"])
    if best["mode"] != SINGLE:
        rows.insert(1, (f"{demo.runs['finetune']['title']}, {best['mode']}", f"{_points(best['mean_iou']):.1f}", "% mIoU"))
    rows.append(("Everything, from nothing", f"{demo.record['seconds'] / 60:.1f}", "minutes"))
    return "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{value}<span class="unit"> {unit}</span></dd></div>' for name, value, unit in rows
    )


def hero(demo: "Demo") -> str:
    """The first example, to be wiped from photograph to prediction."""
    return (
        f'<img class="under" src="{photograph(demo.examples["image"][0])}" alt="Photograph of a street">'
        f'<img class="over" src="{label_map(demo.examples["prediction_finetune"][0], demo.colors)}" '
        'alt="The finetuned network\'s prediction for the same street, a colour for each class">'
    )


def pictures(demo: "Demo") -> Section:
    """Every example as photograph, truth and the prediction of the chosen run, with its mistakes on request."""
    examples, colors, classes = demo.examples, demo.colors, demo.record["classes"]
    runs = [run for name, run in demo.runs.items() if f"prediction_{name}" in examples]
    choices = "".join(
        f'<input type="radio" name="run" id="run-{i}" class="pick"{" checked" if i == 0 else ""}><label for="run-{i}">{escape(run["title"])}</label>'
        for i, run in enumerate(runs)
    )
    shows = "".join(f"#run-{i}:checked~.gallery .of-{i}{{display:block}}" for i in range(len(runs)))
    rows = []
    for n, (image, target) in enumerate(zip(examples["image"], examples["target"], strict=True)):
        panels = [
            _panel("photograph", f'<img src="{photograph(image)}" alt="Example {n + 1}: photograph" data-role="image">'),
            _panel("truth", f'<img src="{label_map(target, colors)}" alt="Example {n + 1}: true classes" data-role="truth">'),
        ]
        for i, run in enumerate(runs):
            prediction = examples[f"prediction_{run['name']}"][n]
            wrong = wrong_pixels(target, prediction, num_classes=len(classes))
            known = max(int((target < len(classes)).sum()), 1)
            right = f"{100 * (1 - wrong.sum() / known):.1f}% of pixels right"
            picture = (
                f'<img src="{label_map(prediction, colors)}" alt="Example {n + 1}: prediction, {escape(run["title"])}; {right}" '
                f'data-role="prediction"><img class="stain" src="{stain(wrong, WRONG)}" alt="">'
            )
            panels.append(_panel(f"prediction <small>{right}</small>", picture, f"of of-{i}"))
        rows.append(f'<div class="row">{"".join(panels)}</div>')
    labels = np.concatenate([examples["target"].ravel(), *(examples[f"prediction_{run['name']}"].ravel() for run in runs)])
    present = [c for c in np.unique(labels) if c < len(classes)]
    html = (
        "<p>Streets from the validation split, which no training saw. Black is ignored: nobody is asked about those pixels.</p>"
        f'<style>{shows}</style><div class="choice"><span>Prediction of</span>{choices}'
        '<input type="checkbox" id="wrong" class="pick"><label for="wrong">Show mistakes</label>'
        f'<div class="gallery">{"".join(rows)}</div></div>{_legend(classes, demo.record["colors"], present)}'
    )
    return _section("pictures", "What it sees", html, short="Pictures")


def curves(demo: "Demo") -> Section:
    logs = {run["title"]: demo.logs[name] for name, run in demo.runs.items()}
    text = "Loss and learning rate over iterations, and mIoU where a run was evaluated on the way; a line for each of: " + ", ".join(logs)
    html = _figure(
        figure_svg(plot_curves(logs), text),
        "The thin line is the loss as logged, the thick one its moving average. The learning rate warms up, then falls "
        "to zero along a straight line. Loss is comparable only between runs on the same dataset.",
    )
    return _section("curves", "How it learned", html, short="Curves")


def scores(demo: "Demo") -> Section:
    """Per-class bars, the reasons behind zeros, and two tables: every evaluation, every class."""
    classes = demo.record["classes"]
    compared = {run["title"]: _evaluation(run) for run in (demo.runs["finetune"], *demo.controls)}
    reasons = "".join(f"<p>{_zeros(title, evaluation, classes)}</p>" for title, evaluation in compared.items())
    rows = [
        (run["title"], run["dataset"], evaluation["mode"], *_percents(evaluation, "mean_iou", "pixel_accuracy", "mean_accuracy"), evaluation["images"])
        for run in demo.runs.values()
        for evaluation in run["evaluations"]
    ]
    per_class = [(name, *(_percent(evaluation["iou"][name]) for evaluation in compared.values())) for name in classes]
    text = "Intersection over union of every class, a bar for each of: " + ", ".join(compared) + ". The table below has the numbers."
    html = (
        _table(("run", "evaluated on", "mode", "mIoU", "pixel accuracy", "mean accuracy", "images"), rows, numbers=4)
        + _figure(figure_svg(plot_iou_bars(compared, classes, colors=demo.colors), text), "Intersection over union per class, in percent.")
        + f'<div class="note">{reasons}</div>'
        + f"<details><summary>Every class in numbers</summary>{_table(('class', *compared), per_class, numbers=len(compared))}</details>"
    )
    return _section("classes", "Class by class", html, short="Classes")


def confusion(demo: "Demo") -> Section:
    run, classes = demo.runs["finetune"], demo.record["classes"]
    matrix = np.asarray(_evaluation(run)["confusion"], np.int64)
    worst = _worst_confusions(matrix, classes)
    caption = "Read along a row: where the pixels of one true class went. Numbers below half a percent are left out."
    text = f"Confusion matrix of {run['title']}, in percent of each true class. {worst}"
    html = f"<p>{escape(worst)}</p>" + _figure(figure_svg(plot_confusion(matrix, classes), text), caption, narrow=True)
    return _section("confusion", "What it takes for what", html, short="Confusion")


def sampling(demo: "Demo") -> Section:
    arrays = demo.sampling or {}
    levels = [key.removeprefix("location_") for key in arrays if key.startswith("location_")]
    figure = plot_sampling(
        arrays["image"],
        arrays["query"],
        {level: arrays[f"location_{level}"] for level in levels},
        {level: arrays[f"weight_{level}"] for level in levels},
    )
    text = f"A street with {len(arrays['query'])} marked pixels, and for each the points the network samples at {', '.join(levels)}"
    html = (
        "<p>A convolution looks at a fixed grid. DCNv3 decides for every pixel where to look and how much each look counts: below, the "
        "sampling points behind one output at each level, for a few pixels. The larger and brighter a point, the more it weighs; the "
        "cross is the pixel itself.</p>" + _figure(figure_svg(figure, text), "Every window is as wide as its title says, in pixels of the image.")
    )
    return _section("sampling", "Where it looks", html, short="Sampling")


def check(demo: "Demo") -> Section:
    result = demo.record["scripts_check"]
    agree = bool(result["agree"])
    verdict = "agree" if agree else "do not agree"
    html = (
        f'<p class="verdict {"yes" if agree else "no"}"><strong>The two {verdict}.</strong> The predictions were also written as the '
        "benchmark server wants them and scored by cityscapesScripts, a program this project did not write.</p>"
        + _table(("scored by", "mIoU"), [("vistalib", _plain(result["ours"])), ("cityscapesScripts", _plain(result["cityscapesscripts"]))], numbers=1)
    )
    return _section("check", "Checked from outside", html, short="Check")


def facts(demo: "Demo") -> Section:
    record = demo.record
    longest = max((stage["seconds"] for stage in record["stages"]), default=1.0) or 1.0
    stages = "".join(
        f'<tr><th scope="row">{escape(str(stage["name"]))}</th><td class="number">{stage["seconds"]:.1f} s</td>'
        f'<td class="meter"><span style="width:{100 * stage["seconds"] / longest:.1f}%"></span></td></tr>'
        for stage in record["stages"]
    )
    total = f'<tr class="total"><th scope="row">in all</th><td class="number">{record["seconds"]:.1f} s</td><td></td></tr>'
    runs = [
        (run["title"], run["dataset"], run["seed"], run["iterations"], f"{run['seconds']:.1f}", f"{run['seconds'] / max(run['iterations'], 1):.2f}")
        for run in record["runs"]
    ]
    memory = [("peak memory", f"{record['peak_memory_mb']:.0f} MB")] if record.get("peak_memory_mb") is not None else []
    html = (
        f'<div class="columns"><div><h3>Where the time went</h3><div class="scroll"><table>{stages}{total}</table></div></div>'
        f"<div><h3>Where it ran</h3>{_pairs([*memory, *_flat(record['facts'])])}</div></div>"
        f"<h3>The runs</h3>{_table(('run', 'dataset', 'seed', 'iterations', 'seconds', 'seconds an iteration'), runs, numbers=4)}"
        f"<details><summary>All settings</summary>{_pairs(_flat(record['settings']))}</details>"
    )
    return _section("facts", "The facts of this run", html, short="Facts")


def commands(demo: "Demo") -> Section:
    lines = "".join(
        f'<li><code>{escape(command)}</code><button type="button" class="copy" aria-label="Copy this command">copy</button></li>'
        for command in demo.record["commands"]
    )
    html = (
        "<p>This page shows a small network on drawn streets. The same code does the real thing, with the real datasets on disk and a GPU or "
        f'more:</p><ol class="commands">{lines}</ol>'
    )
    return _section("commands", "The same with the real datasets", html, short="Commands")


def _evaluation(run: Record) -> Record:
    """The run's single-scale evaluation, or the first there is."""
    evaluations: Sequence[Record] = run["evaluations"]
    if not evaluations:
        raise ValueError(f"run {run['name']} must have an evaluation, got none; run the demo to its end")
    return next((evaluation for evaluation in evaluations if evaluation["mode"] == SINGLE), evaluations[0])


def _stronger(demo: "Demo") -> Record:
    return max(demo.controls, key=lambda run: float(_evaluation(run)["mean_iou"]))


def _zeros(title: str, evaluation: Record, classes: Sequence[str]) -> str:
    """One sentence on the classes without a proper IoU, and why."""
    matrix = np.asarray(evaluation["confusion"], np.int64)
    truth, predicted, hits = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    groups = (
        ("never predicted, though the truth has it", (truth > 0) & (predicted == 0)),
        ("predicted, but never on the right pixel", (truth > 0) & (predicted > 0) & (hits == 0)),
        ("absent from the truth, yet predicted", (truth == 0) & (predicted > 0)),
        ("undefined, since neither truth nor prediction has it; left out of the mean", (truth == 0) & (predicted == 0)),
    )
    said = [f"{', '.join(f'<em>{escape(classes[c])}</em>' for c in np.flatnonzero(where))} ({why})" for why, where in groups if where.any()]
    if not said:
        return f"<strong>{escape(title)}</strong>: every class is found somewhere; no IoU is zero or undefined."
    return f"<strong>{escape(title)}</strong>, classes with an IoU of zero or none: {'; '.join(said)}."


def _worst_confusions(matrix: np.ndarray[Any, Any], classes: Sequence[str]) -> str:
    truth = matrix.sum(1, keepdims=True)
    share = np.where(truth > 0, matrix / np.maximum(truth, 1), 0.0)
    np.fill_diagonal(share, 0.0)
    worst = np.argsort(share, axis=None)[::-1][:3]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(worst, share.shape), strict=True) if share[i, j] > 0]
    if not pairs:
        return "Nothing is taken for anything else."
    said = [f"{100 * share[i, j]:.0f}% of {classes[i]} is taken for {classes[j]}" for i, j in pairs]
    return "The most frequent mistakes: " + ", ".join(said) + "."


def _section(anchor: str, heading: str, html: str, *, short: str) -> Section:
    return Section(anchor, short, f'<section id="{anchor}" aria-labelledby="{anchor}-h"><h2 id="{anchor}-h">{heading}</h2>{html}</section>')


def _panel(caption: str, picture: str, kind: str = "") -> str:
    return f'<figure class="panel {kind}"><div class="frame">{picture}</div><figcaption>{caption}</figcaption></figure>'


def _figure(svg: str, caption: str, *, narrow: bool = False) -> str:
    return f'<figure class="plot{" narrow" if narrow else ""}"><div class="scroll">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'


def _legend(classes: Sequence[str], colors: Sequence[Sequence[int]], present: Iterable[int]) -> str:
    items = "".join(f'<li><span style="background:rgb({",".join(map(str, colors[c]))})"></span>{escape(classes[c])}</li>' for c in present)
    return f'<ul class="legend" aria-label="Colours of the classes in these pictures">{items}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: int) -> str:
    """A table whose first column heads its rows and whose last `numbers` columns are numbers."""
    first_number = len(head) - numbers

    def cell(position: int, value: Any) -> str:
        if position == 0:
            return f'<th scope="row">{escape(str(value))}</th>'
        return f"<td{' class=number' if position >= first_number else ''}>{escape(str(value))}</td>"

    top = "".join(f'<th scope="col"{" class=number" if i >= first_number else ""}>{escape(name)}</th>' for i, name in enumerate(head))
    body = "".join(f"<tr>{''.join(cell(i, value) for i, value in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<div class="scroll"><table class="pairs">{body}</table></div>'


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested mappings as rows (dotted name, text), without what is not known."""
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in _flat(inner, f"{name}.{key}" if name else str(key))]
    return [] if value is None else [(name.removeprefix("versions."), _plain(value))]


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " x ".join(map(_plain, value)) if all(isinstance(item, int | float) for item in value) else ", ".join(map(_plain, value))
    return str(value)


def _points(fraction: float) -> float:
    """Percent with one decimal, as the page shows it, so that its differences are differences of what is shown."""
    return round(100 * fraction, 1)


def _percents(evaluation: Record, *names: str) -> list[str]:
    return [_percent(evaluation[name]) for name in names]


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}"
