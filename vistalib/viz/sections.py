"""The sections of the report, each a piece of HTML made from the demo's record; what comes from the record is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from vistalib.viz import markup
from vistalib.viz.embed import figure_svg, label_map, photograph, stain
from vistalib.viz.markup import percent, points
from vistalib.viz.overlay import wrong_pixels
from vistalib.viz.plots import plot_confusion, plot_curves, plot_iou_bars
from vistalib.viz.record import SINGLE, Arrays, Demo, Record, evaluation
from vistalib.viz.sampling import plot_sampling
from vistalib.viz.style import WRONG


@dataclass(frozen=True)
class Section:
    """One section of the page: its anchor, its short name in the navigation, its HTML."""

    anchor: str
    short: str
    html: str


def answer(demo: Demo) -> tuple[str, str]:
    """The headline as text and the sentences under it as HTML: finetuned against the stronger control."""
    control = max(demo.controls, key=lambda run: float(evaluation(run)["mean_iou"]))
    ours, theirs = (points(evaluation(run)["mean_iou"]) for run in (demo.finetuned, control))
    gain = round(ours - theirs, 1)
    if gain > 0:
        headline = f"Pretraining adds {gain:.1f} points of mIoU"
    elif gain < 0:
        headline = f"Pretraining costs {-gain:.1f} points of mIoU here"
    else:
        headline = "Pretraining changes nothing here"
    seeds = sorted({run["seed"] for run in (demo.finetuned, *demo.controls)})
    lead = (
        "Pretrained on streets of one kind and finetuned on streets of another, the network reaches "
        f"<strong>{ours:.1f}%</strong> mIoU on streets it has never seen. "
        f"The stronger control, <q>{escape(control['title'])}</q>, reaches <strong>{theirs:.1f}%</strong>. "
        f"<small>One run each, seed {escape(', '.join(map(str, seeds)))}: other seeds give somewhat other numbers.</small>"
    )
    return headline, lead


def kicker(demo: Demo) -> str:
    """Program, day and commit in one line."""
    facts = demo.record["facts"]
    known = ["vistalib demo", str(facts.get("when") or "")[:10], f"commit {facts['commit']}" if facts.get("commit") else ""]
    return " · ".join(escape(part) for part in known if part)


def tiles(demo: Demo) -> str:
    """The few numbers that matter, as the items of a description list."""
    rows = [(run["title"], points(evaluation(run)["mean_iou"]), "% mIoU") for run in (demo.finetuned, *demo.controls)]
    best = max(demo.finetuned["evaluations"], key=lambda found: float(found["mean_iou"]))
    if best["mode"] != SINGLE:
        rows.insert(1, (f"{demo.finetuned['title']}, {best['mode']}", points(best["mean_iou"]), "% mIoU"))
    whole = "The last call of a resumed demo" if demo.record["resumed"] else "Everything, from nothing"
    rows.append((whole, demo.record["seconds"] / 60, "minutes"))
    return "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{value:.1f}<span class="unit"> {unit}</span></dd></div>'
        for name, value, unit in rows
    )


def hero(demo: Demo) -> str:
    """The first example, to be wiped from photograph to prediction."""
    image, prediction = demo.examples["image"][0], demo.examples["prediction_finetune"][0]
    return (
        f'<img class="under" draggable="false" src="{photograph(image)}" alt="A street">'
        f'<img class="over" draggable="false" src="{label_map(prediction, demo.colors)}" '
        'alt="The finetuned prediction for the same street, a colour for each class">'
    )


def pictures(demo: Demo) -> Section:
    """Every example as photograph, truth and the prediction of the chosen run, with its mistakes on request."""
    runs = [run for name, run in demo.runs.items() if f"prediction_{name}" in demo.examples]
    choices = "".join(
        f'<input type="radio" name="run" id="run-{i}" class="pick"{"" if i else " checked"}>'
        f'<label for="run-{i}">{escape(run["title"])}</label>'
        for i, run in enumerate(runs)
    )
    shows = "".join(f"#run-{i}:checked~.gallery .of-{i}{{display:block}}" for i in range(len(runs)))
    rows = "".join(_row(demo, n, runs) for n in range(len(demo.examples["image"])))
    labels = [demo.examples["target"], *(demo.examples[f"prediction_{run['name']}"] for run in runs)]
    present = [int(c) for c in np.unique(np.stack(labels)) if c < len(demo.classes)]
    html = (
        "<p>Streets from the validation split, which no training saw. Black is ignored: nobody is asked about those pixels.</p>"
        f'<style>{shows}</style><div class="choice"><span>Prediction of</span>{choices}'
        '<input type="checkbox" id="wrong" class="pick"><label for="wrong">Show mistakes</label>'
        f'{markup.legend(demo.classes, demo.record["colors"], present)}<div class="gallery">{rows}</div></div>'
    )
    return _section("pictures", "What it sees", html, short="Pictures")


def curves(demo: Demo) -> Section:
    """Loss, learning rate and mIoU over iterations."""
    logs = {run["title"]: demo.logs[name] for name, run in demo.runs.items()}
    described = (
        f"Loss, learning rate and, where measured on the way, mIoU over iterations, a line for each of: {', '.join(logs)}"
    )
    caption = (
        "The thin line is the loss as logged, the thick one its moving average. Losses compare only between runs on the same "
        "dataset; what decides is the mIoU at the end."
    )
    html = markup.figure(figure_svg(plot_curves(logs), described), caption)
    return _section("curves", "How it learned", html, short="Curves")


def scores(demo: Demo) -> Section:
    """A table of every evaluation, bars per class, the reasons behind zeros, and every class in numbers."""
    compared = {run["title"]: evaluation(run) for run in (demo.finetuned, *demo.controls)}
    head = ("run", "evaluated on", "mode", "mIoU, %", "pixel accuracy, %", "mean accuracy, %", "images")
    rows = [
        (
            run["title"],
            run["dataset"],
            found["mode"],
            *(percent(found[name]) for name in ("mean_iou", "pixel_accuracy", "mean_accuracy")),
            found["images"],
        )
        for run in demo.runs.values()
        for found in run["evaluations"]
    ]
    described = (
        f"Intersection over union of every class, a bar for each of: {', '.join(compared)}; a table below has the numbers"
    )
    bars = figure_svg(plot_iou_bars(compared, demo.classes, colors=demo.colors), described)
    reasons = "".join(f"<p>{_zeros(title, found, demo.classes)}</p>" for title, found in compared.items())
    per_class = [(name, *(percent(found["iou"][name]) for found in compared.values())) for name in demo.classes]
    html = (
        f"{markup.table(head, rows, numbers=4)}{markup.figure(bars, 'Intersection over union of every class, in percent.')}"
        f'<div class="note">{reasons}</div><details><summary>Every class in numbers</summary>'
        f"{markup.table(('class', *compared), per_class, numbers=len(compared))}</details>"
    )
    return _section("classes", "Class by class", html, short="Classes")


def confusion(demo: Demo) -> Section:
    """The finetuned run's confusion matrix and its largest mistakes."""
    matrix = np.asarray(evaluation(demo.finetuned)["confusion"], np.int64)
    worst = _worst(matrix, demo.classes)
    svg = figure_svg(plot_confusion(matrix, demo.classes), f"Confusion matrix, {demo.finetuned['title']}. {worst}")
    caption = (
        "Read along a row: where the pixels of one true class went. Blue is right; red is mistaken, drawn twice as strong. "
        "Shares below half a percent are left out."
    )
    html = f"<p>{escape(worst)}</p>{markup.figure(svg, caption, narrow=True)}"
    return _section("confusion", "What it takes for what", html, short="Confusion")


def sampling(demo: Demo, arrays: Arrays) -> Section:
    """Where the network samples for a few pixels."""
    levels = [key.removeprefix("location_") for key in arrays if key.startswith("location_")]
    locations = {level: arrays[f"location_{level}"] for level in levels}
    weights = {level: arrays[f"weight_{level}"] for level in levels}
    drawn = plot_sampling(arrays["image"], arrays["query"], locations, weights)
    described = f"A street with {len(arrays['query'])} marked pixels and, for each, the points sampled at {', '.join(levels)}"
    caption = "Each column has its own scale: its title says how much of the image it shows."
    html = (
        "<p>A convolution looks at a fixed grid. DCNv3 decides for every pixel where to look and how much each look counts. "
        "Below are the sampling points behind one output at each level, for a few pixels of one street. The larger and "
        "brighter a point, the more it weighs; the cross is the pixel itself.</p>"
        f"{markup.figure(figure_svg(drawn, described), caption)}"
    )
    return _section("sampling", "Where it looks", html, short="Sampling")


def check(demo: Demo) -> Section:
    """Our score beside that of cityscapesScripts."""
    result = demo.record["scripts_check"]
    kind, verdict = ("yes", "agree") if result["agree"] else ("no", "do not agree")
    rows = [("vistalib", result["ours"]), ("cityscapesScripts", result["cityscapesscripts"])]
    html = (
        f'<p class="verdict {kind}"><strong>The two {verdict}.</strong> The predictions were also written as the benchmark '
        "server wants them and scored by cityscapesScripts, a program this project did not write.</p>"
        f"{markup.table(('scored by', 'mIoU'), rows, numbers=1)}"
    )
    return _section("check", "Checked from outside", html, short="Check")


def facts(demo: Demo) -> Section:
    """Time, machine, versions, runs and settings."""
    record = demo.record
    longest = max((stage["seconds"] for stage in record["stages"]), default=0.0) or 1.0
    stages = "".join(
        f'<tr><th scope="row">{escape(stage["name"])}</th><td class="number">{stage["seconds"]:.1f} s</td>'
        f'<td class="meter"><span style="width:{100 * stage["seconds"] / longest:.1f}%"></span></td></tr>'
        for stage in record["stages"]
    )
    total = f'<tr class="total"><th scope="row">in all</th><td class="number">{record["seconds"]:.1f} s</td><td></td></tr>'
    memory = record.get("peak_memory_mb")
    machine = [("peak memory", f"{memory:.0f} MB")] if memory is not None else []
    machine += [(name.removeprefix("versions."), value) for name, value in markup.flat(record["facts"])]
    head = ("run", "dataset", "seed", "iterations", "seconds", "seconds an iteration")
    runs = [
        (*(run[name] for name in head[:4]), f"{run['seconds']:.1f}", f"{run['seconds'] / max(run['iterations'], 1):.2f}")
        for run in ({**run, "run": run["title"]} for run in record["runs"])
    ]
    html = (
        '<div class="columns"><div><h3>Where the time went</h3>'
        f'<div class="scroll"><table><tbody>{stages}{total}</tbody></table></div></div>'
        f"<div><h3>Where it ran</h3>{markup.pairs(machine)}</div></div>"
        f"<h3>The runs</h3>{markup.table(head, runs, numbers=4)}"
        f"<details><summary>All settings</summary>{markup.pairs(markup.flat(record['settings']))}</details>"
    )
    return _section("facts", "The facts of this run", html, short="Facts")


def commands(demo: Demo) -> Section:
    """What to type for the same with the real datasets."""
    copy = '<button type="button" class="copy" aria-label="Copy this command">copy</button>'
    lines = "".join(f"<li><code>{escape(command)}</code>{copy}</li>" for command in demo.record["commands"])
    html = (
        "<p>This page shows a small network on drawn streets. The same code does the real thing once the real datasets are on "
        f'disk and there is a GPU or more:</p><ol class="commands">{lines}</ol>'
    )
    return _section("commands", "The same with the real datasets", html, short="Commands")


def _section(anchor: str, heading: str, html: str, *, short: str) -> Section:
    title = f'<h2 id="{anchor}-title">{heading}</h2>'
    return Section(anchor, short, f'<section id="{anchor}" aria-labelledby="{anchor}-title">{title}{html}</section>')


def _row(demo: Demo, n: int, runs: Sequence[Record]) -> str:
    """Example `n`: its photograph, its truth, and a prediction of every run, of which the page shows one."""
    target = demo.examples["target"][n]
    picture, truth = photograph(demo.examples["image"][n]), label_map(target, demo.colors)
    row = _panel("image", f'<img src="{picture}" alt="Example {n + 1}: image" data-role="image">')
    row += _panel("truth", f'<img src="{truth}" alt="Example {n + 1}: true classes" data-role="truth">')
    for i, run in enumerate(runs):
        prediction = demo.examples[f"prediction_{run['name']}"][n]
        wrong = wrong_pixels(target, prediction, num_classes=len(demo.classes))
        right = f"{100 * (1 - wrong.sum() / max(int((target < len(demo.classes)).sum()), 1)):.1f}% of pixels right"
        alt = f"Example {n + 1}: prediction, {escape(run['title'])}, {right}"
        row += _panel(
            f"prediction <small>{right}</small>",
            f'<img src="{label_map(prediction, demo.colors)}" alt="{alt}" data-role="prediction">'
            f'<img class="stain" src="{stain(wrong, WRONG)}" alt="">',
            kind=f"of of-{i}",
        )
    return f'<div class="row">{row}</div>'


def _panel(caption: str, picture: str, *, kind: str = "") -> str:
    return f'<figure class="panel {kind}"><div class="frame">{picture}</div><figcaption>{caption}</figcaption></figure>'


def _zeros(title: str, found: Record, classes: Sequence[str]) -> str:
    """One sentence on the classes whose IoU is zero or undefined, and why."""
    matrix = np.asarray(found["confusion"], np.int64)
    truth, predicted, hits = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    reasons = (
        ("never predicted, though the truth has it", (truth > 0) & (predicted == 0)),
        ("predicted, but never on a right pixel", (truth > 0) & (predicted > 0) & (hits == 0)),
        ("absent from the truth, yet predicted", (truth == 0) & (predicted > 0)),
        ("undefined and left out of the mean: neither truth nor prediction has it", (truth == 0) & (predicted == 0)),
    )
    said = []
    for reason, where in reasons:
        names = ", ".join(f"<em>{escape(name)}</em>" for name, holds in zip(classes, where, strict=True) if holds)
        said += [f"{names} ({reason})"] if names else []
    if not said:
        return f"<strong>{escape(title)}</strong>: every class is found somewhere; no IoU is zero or undefined."
    return f"<strong>{escape(title)}</strong>, classes whose IoU is zero or undefined: {'; '.join(said)}."


def _worst(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """The three largest shares of one class taken for another, in a sentence."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    np.fill_diagonal(share, 0.0)
    worst = [divmod(int(position), len(classes)) for position in np.argsort(share, axis=None)[::-1][:3]]
    said = [f"{100 * share[i, j]:.0f}% of {classes[i]} is taken for {classes[j]}" for i, j in worst if share[i, j] > 0]
    return f"The largest mistakes: {', '.join(said)}." if said else "Nothing is taken for anything else."
