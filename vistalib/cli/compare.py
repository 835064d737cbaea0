"""`vistalib compare`: whether one run is better than another, and whether that can be believed."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import tyro

from vistalib.cli.parts import UsageError
from vistalib.files import check_writable, replacing, write_json

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.evaluate import Comparison

NOTE = "* more than the choice of the images explains, by this class's own 95% interval"


def compare(
    runs: tyro.conf.Positional[tuple[Path, ...]] = (),
    *,
    a: tuple[Path, ...] = (),
    b: tuple[Path, ...] = (),
    resamples: int = 2000,
    seed: int = 0,
    figure: Path | None = None,
    json: Path | None = None,
) -> None:
    """Say whether B is better than A on the same images, by how much, and whether images or seeds explain it.

    Args:
        runs: A and B, one run each: a run's folder, or a file of `vistalib evaluate --json` with its .npz.
        a: Instead, several runs of A that differ in their seed.
        b: Instead, several runs of B that differ in their seed.
        resamples: How often the images are drawn again.
        seed: Seed of these draws.
        figure: File for the differences by class, as .svg, .png or .pdf.
        json: File for the figures.
    """
    from vistalib.evaluate import compare as compared
    from vistalib.evaluate import read_evaluation, verdict

    if runs and (a or b or len(runs) != 2):
        raise UsageError(f"give two runs, A and B, got {len(runs)}; several seeds go behind --a and --b")
    sides = ((runs[0],), (runs[1],)) if runs else (a, b)
    if not all(sides):
        raise UsageError("two sides are needed: `vistalib compare A B`, or `--a RUN RUN ... --b RUN RUN ...`")
    if figure is not None and figure.suffix not in (".svg", ".png", ".pdf"):
        raise UsageError(f"the figure must be a .svg, .png or .pdf, got {figure}")
    for path in filter(None, (json, figure)):
        check_writable(path)
    read = [[read_evaluation(path) for path in side] for side in sides]
    for path, run in zip([*sides[0], *sides[1]], [*read[0], *read[1]], strict=True):
        if run.per_image is None:
            raise ValueError(
                f"{path} must have the matrices of its images beside it, as .npz, got scores alone; evaluate it again with "
                "`vistalib evaluate --json`"
            )
    found = compared(*read, resamples=resamples, seed=seed)
    for letter, paths, scores in (("A", sides[0], found.a), ("B", sides[1], found.b)):
        for path, score in zip(paths, scores, strict=True):
            print(f"{letter}  {100 * score:6.2f}%  {path}")
    print(f"\n{_table(found)}\n\n{fill(verdict(found), 100)}")
    if figure is not None:
        from vistalib.viz import plot_comparison

        with replacing(figure) as beside:
            plot_comparison(found.to_json()).savefig(beside, dpi=144)
    if json is not None:
        runs_of = {side: [str(path) for path in paths] for side, paths in zip("ab", sides, strict=True)}
        write_json(json, {"runs": runs_of, **found.to_json(), "verdict": verdict(found)})


def _table(found: "Comparison") -> str:
    """Every class with its difference and interval in points, largest gain of B first."""
    width = max(map(len, found.classes))
    lines = [f"{'':{width}}       A      B   B - A   95% interval  images"]
    values = found.to_json()["iou"]
    order = sorted(values, key=lambda name: -(values[name]["difference"] or {"value": -2.0})["value"])
    for name in order:
        row = values[name]
        a, b = ("     -" if row[side] is None else f"{100 * row[side]:6.1f}" for side in "ab")
        line = f"{name:{width}}  {a} {b}"
        if row["difference"] is not None:
            value, low, high = (f"{100 * row['difference'][key]:+.1f}" for key in ("value", "low", "high"))
            line += f"  {value:>6}  {low:>6} {high:>6}"
        else:
            line += " " * 23
        lines.append(f"{line}  {row['images']:>5}{' *' if row['distinct'] else ''}")
    return "\n".join([*lines, NOTE] if found.distinct_classes() else lines)
