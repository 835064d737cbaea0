"""Whether B is better than A: the paired bootstrap over images, and the spread over seeds.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile intervals); Welch, "The generalization of
Student's problem when several different population variances are involved", Biometrika 34, 1947.

mIoU is no mean over images, so it has no standard error that could be written down. Instead the images are drawn again and
again, with replacement, as many as there are; each draw gives another mIoU of A, of B, and a difference. Both sides get the
same draw ("paired"): that some streets are harder than others then cancels. The middle 95% of the differences are the interval:
what other images of this kind would have said. It knows nothing of what another seed of the training would have given; runs
with several seeds do, through their spread.
Letters: n = images, C = classes, r = runs of a side, R = resamples.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistalib.evaluate.evaluation import Evaluation, plain
from vistalib.evaluate.per_image import PerImage

RESAMPLES = 2000
FEWEST = 10  # images with a class, below which its interval is too narrow to be believed
BLOCK = 2**22  # draws held at a time: 32 MB
# 97.5% quantiles of Student's t with 1, 2, ... degrees of freedom; beyond, the last one is on the safe side.
STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Difference:
    """A difference of B less A, as a fraction, with its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def distinct(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, float]:
        """Plain values for a JSON file."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Comparison:
    """What two sides of one or several runs each say about the same n images. Scores are fractions, NaN where undefined.

    `a` and `b` are the mIoU of each run, `iou_a` and `iou_b` (C,) the mean over the runs of a side. `mean_iou` and `iou` hold
    the differences with their intervals over images, None for a class without one; `share_better` is the share of resamples in
    which B has the higher mIoU, ties halved. `seeds` is the difference with its interval over seeds, where both sides have
    several. `holding` (C,) counts the images that show a class.
    """

    classes: tuple[str, ...]
    modes: tuple[str, str]
    images: int
    a: tuple[float, ...]
    b: tuple[float, ...]
    iou_a: NDArray[np.float64]
    iou_b: NDArray[np.float64]
    mean_iou: Difference
    share_better: float
    iou: tuple[Difference | None, ...]
    holding: NDArray[np.int64]
    seeds: Difference | None
    resamples: int
    seed: int

    def distinct_classes(self) -> list[str]:
        """The classes whose interval leaves zero out, of those that at least `FEWEST` images show; largest gain of B first."""
        found = [
            (difference.value, name)
            for name, difference, images in zip(self.classes, self.iou, self.holding, strict=True)
            if difference is not None and difference.distinct and images >= FEWEST
        ]
        return [name for _, name in sorted(found, reverse=True)]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; NaN becomes None."""
        distinct = self.distinct_classes()
        return {
            "modes": dict(zip("ab", self.modes, strict=True)),
            "images": self.images,
            "mean_iou": {"a": list(self.a), "b": list(self.b), "difference": self.mean_iou.to_json()},
            "share_better": self.share_better,
            "seeds": None if self.seeds is None else self.seeds.to_json(),
            "iou": {
                name: {
                    "a": plain(self.iou_a[c]),
                    "b": plain(self.iou_b[c]),
                    "difference": None if (found := self.iou[c]) is None else found.to_json(),
                    "images": int(self.holding[c]),
                    "distinct": name in distinct,
                }
                for c, name in enumerate(self.classes)
            },
            "resamples": self.resamples,
            "seed": self.seed,
        }


def compare(
    a: Evaluation | Sequence[Evaluation],
    b: Evaluation | Sequence[Evaluation],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two sides of one or several runs each, evaluated on the same images in any order.

    `resamples` draws of the images are made from `seed`. Warns where the runs were not all shown the images in the same way.
    Raises `ValueError` for runs without the matrices of their images, on other images or labels, and of other classes.
    """
    sides = [[a] if isinstance(a, Evaluation) else list(a), [b] if isinstance(b, Evaluation) else list(b)]
    if not all(sides) or resamples < 100:
        raise ValueError(
            "a comparison needs a run on each side and at least 100 resamples, got "
            f"{len(sides[0])} and {len(sides[1])} runs and {resamples}; {RESAMPLES} are usual"
        )
    runs = [run for side in sides for run in side]
    kept = _same_images(runs)
    n, C = len(kept[0]), kept[0].num_classes
    targets = kept[0].targets()  # (n, C)
    if not targets.any():
        raise ValueError("a comparison needs labelled pixels, got images without any; check the split")
    hits = [one.hits().astype(np.float64) for one in kept]
    unions = [targets + one.predictions() - hit for one, hit in zip(kept, hits, strict=True)]
    cut = len(sides[0])

    def scores(weights: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """IoU (2, R, C) of the two sides and mIoU (runs, R), with the images weighted by `weights` (R, n)."""
        weights = weights.astype(np.float64)
        with np.errstate(invalid="ignore"):  # the products are exact: float64 that hold integers
            iou = np.stack([(weights @ h) / (weights @ u) for h, u in zip(hits, unions, strict=True)])
            defined = ~np.isnan(iou)  # (runs, R, C)
            mean = np.where(defined, iou, 0).sum(2) / defined.sum(2)
        return np.stack([iou[:cut].mean(0), iou[cut:].mean(0)]), mean

    iou, miou = (found[:, 0] for found in scores(np.ones((1, n), np.int64)))  # (2, C), (runs,)
    drawn_iou, drawn_miou = np.empty((2, resamples, C)), np.empty((len(runs), resamples))
    for rows, weights in _draws(n, resamples, seed):
        drawn_iou[:, rows], drawn_miou[:, rows] = scores(weights)
    gains = drawn_miou[cut:].mean(0) - drawn_miou[:cut].mean(0)  # (R,)
    class_gains = drawn_iou[1] - drawn_iou[0]  # (R, C)
    value = float(miou[cut:].mean() - miou[:cut].mean())
    return Comparison(
        classes=runs[0].classes,
        modes=(_modes(sides[0]), _modes(sides[1])),
        images=n,
        a=tuple(miou[:cut].tolist()),
        b=tuple(miou[cut:].tolist()),
        iou_a=iou[0],
        iou_b=iou[1],
        mean_iou=_interval(value, gains),
        share_better=float((gains > 0).mean() + (gains == 0).mean() / 2),
        iou=tuple(None if math.isnan(d) else _interval(d, class_gains[:, c]) for c, d in enumerate((iou[1] - iou[0]).tolist())),
        holding=(targets > 0).sum(0),
        seeds=over_seeds(miou[:cut], miou[cut:]),
        resamples=resamples,
        seed=seed,
    )


def over_seeds(a: NDArray[np.float64], b: NDArray[np.float64]) -> Difference | None:
    """The difference of the means of `b` and `a` with Welch's 95% interval; None unless both sides have two runs or more."""
    if min(len(a), len(b)) < 2:
        return None
    value = float(b.mean() - a.mean())
    parts = [float(side.var(ddof=1)) / len(side) for side in (a, b)]
    if sum(parts) == 0:
        return Difference(value, value, value)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True))
    reach = STUDENT[min(max(1, int(freedom)), len(STUDENT)) - 1] * math.sqrt(sum(parts))
    return Difference(value, value - reach, value + reach)


def _modes(side: Sequence[Evaluation]) -> str:
    return " and ".join(dict.fromkeys(run.mode for run in side))


def _draws(n: int, resamples: int, seed: int) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """How often each image is in each resample: rows of them, and the counts (rows, n)."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // n)
    for first in range(0, resamples, step):
        last = min(first + step, resamples)
        yield slice(first, last), rng.multinomial(n, np.full(n, 1 / n), size=last - first)


def _interval(value: float, drawn: NDArray[np.float64]) -> Difference:
    """The middle 95% of what was drawn; a class that no image of a draw shows has no say there."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Difference(float(value), float(low), float(high))


def _same_images(runs: Sequence[Evaluation]) -> list[PerImage]:
    """The matrices of each run, in the order of the first one's images."""
    first = runs[0]
    if len({run.mode for run in runs}) > 1:
        modes = ", ".join(dict.fromkeys(run.mode for run in runs))
        warnings.warn(f"the runs were not evaluated in the same way ({modes}): the difference is of that, too", stacklevel=3)
    kept: list[PerImage] = []
    for number, run in enumerate(runs, 1):
        if run.per_image is None:
            raise ValueError(
                f"run {number} must have the matrices of its images (the .npz beside the .json), got scores alone; "
                "evaluate it again with `vistalib evaluate --json`"
            )
        if run.classes != first.classes:
            raise ValueError(
                f"all runs must be evaluated on the same classes, got {len(run.classes)} in run {number} "
                f"({', '.join(run.classes[:3])}, ...) and {len(first.classes)} in run 1 ({', '.join(first.classes[:3])}, ...); "
                "evaluate them on one dataset with one map"
            )
        kept.append(_as_ordered(run.per_image, kept[0].names if kept else run.per_image.names, number))
    targets = kept[0].targets()
    for number, one in enumerate(kept, 1):
        if (other := (one.targets() != targets).any(1)).any():
            name = one.names[int(np.flatnonzero(other)[0])]
            raise ValueError(
                f"all runs must be evaluated against the same labels, got others for {name} in run {number}; "
                "evaluate them again on one dataset with one map"
            )
    return kept


def _as_ordered(one: PerImage, names: tuple[str, ...], number: int) -> PerImage:
    """`one` with its images in the order of `names`."""
    if one.names == names:
        return one
    place = {name: i for i, name in enumerate(one.names)}
    if sorted(place) != sorted(names):
        shared = len(place.keys() & set(names))
        raise ValueError(
            f"all runs must be evaluated on the same images, got {len(one)} in run {number} and {len(names)} in run 1, "
            f"{shared} of them the same; evaluate them on one split of one dataset"
        )
    return one.ordered(np.array([place[name] for name in names]))
