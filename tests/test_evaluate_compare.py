"""The paired bootstrap: against a plain loop, on cases whose answer is known, and the rules for what can be compared."""

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vistalib.evaluate import ConfusionMatrix, Evaluation, PerImage, compare, verdict
from vistalib.evaluate.compare import STUDENT, over_seeds
from vistalib.evaluate.confusion import iou, mean
from vistalib.evaluate.per_image import cells_of

CLASSES = ("road", "car", "sky", "train")
IMAGES = 12


def evaluation(right: float | np.ndarray, *, seed: int = 1, images: int = IMAGES, mode: str = "single scale") -> Evaluation:
    """Random streets, the same for every seed, of which a share `right` (one, or one an image) is found; few show a train."""
    streets, guesses = np.random.default_rng(0), np.random.default_rng(seed)
    shares = np.broadcast_to(right, images)
    kept = []
    for i in range(images):
        target = streets.choice([0, 1, 2, 255] if i % 5 else [0, 1, 2, 3], (16, 24))
        prediction = np.where(guesses.random((16, 24)) < shares[i], target, guesses.integers(0, 5, (16, 24)))
        counts = ConfusionMatrix(4)
        counts.update(np.where(target == 255, 0, prediction), target)
        kept.append(cells_of(counts))
    per_image = PerImage.of(kept, [f"street_{i}" for i in range(images)], 4)
    total = per_image.total()
    return Evaluation(CLASSES, total[:, :-1], total[:, -1], images, 1.0, mode, per_image)


def ordered(run: Evaluation, order: np.ndarray) -> Evaluation:
    assert run.per_image is not None
    return replace(run, per_image=run.per_image.ordered(order))


A, B = evaluation(0.6), evaluation(0.7, seed=2)


def test_the_difference_is_that_of_the_two_evaluations() -> None:
    found = compare(A, B, resamples=100)
    # worst error measured: 0
    assert found.mean_iou.value == pytest.approx(B.mean_iou - A.mean_iou, abs=1e-15)
    np.testing.assert_allclose(found.iou_b - found.iou_a, B.iou - A.iou, rtol=0, atol=1e-15)


def test_the_intervals_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    gains, class_gains = [], []
    for _ in range(150):
        drawn = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES))
        scores = []
        for run in (A, B):
            whole = sum(times * run.per_image.matrix(i) for i, times in enumerate(drawn))
            scores.append(iou(whole[:, :-1], whole[:, -1]))
        gains.append(mean(scores[1]) - mean(scores[0]))
        class_gains.append(scores[1] - scores[0])
    found = compare(A, B, resamples=150, seed=5)
    ends = [(d.low, d.high) for d in (found.mean_iou, *found.iou)]
    expected = [np.percentile(gains, [2.5, 97.5]), *np.nanpercentile(class_gains, [2.5, 97.5], axis=0).T]
    # worst error measured: 1.1e-16
    np.testing.assert_allclose(ends, expected, rtol=0, atol=1e-14)
    assert found.share_better == np.mean(np.array(gains) > 0)


def test_draws_in_blocks_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare(A, B, resamples=150).to_json()
    monkeypatch.setattr(sys.modules["vistalib.evaluate.compare"], "BLOCK", 7 * IMAGES)
    assert compare(A, B, resamples=150).to_json() == whole


def test_a_run_does_not_differ_from_itself() -> None:
    found = compare(A, A)
    assert (found.mean_iou.low, found.mean_iou.high, found.share_better, found.distinct_classes()) == (0, 0, 0.5, [])
    assert "nothing to tell apart" in verdict(found)


def test_what_is_better_on_every_image_is_better_in_every_draw() -> None:
    found = compare(evaluation(0.5), evaluation(0.9))
    assert found.mean_iou.low > 0
    assert found.share_better == 1


def test_a_difference_of_seeds_alone_is_not_taken_for_one() -> None:
    found = compare(evaluation(0.6, seed=1), evaluation(0.6, seed=7))
    assert found.mean_iou.low < 0 < found.mean_iou.high
    assert "cannot tell the two apart" in verdict(found)


def test_pairing_leaves_out_how_hard_the_images_are() -> None:
    """B is two points better on images that differ by thirty: each alone is uncertain by far more than the difference."""
    hard = np.linspace(0.4, 0.7, 40)
    a, b = evaluation(hard, images=40), evaluation(hard + 0.05, images=40)
    alone = compare(a, evaluation(hard[::-1], images=40)).mean_iou
    assert compare(a, b).mean_iou.low > 0
    assert compare(a, b).mean_iou.high - compare(a, b).mean_iou.low < 0.5 * (alone.high - alone.low)


def test_the_order_of_the_images_does_not_matter() -> None:
    other = ordered(B, np.random.default_rng(0).permutation(IMAGES))
    assert compare(A, other, resamples=100).to_json() == compare(A, B, resamples=100).to_json()


def test_a_class_in_few_images_is_not_judged() -> None:
    found = compare(evaluation(0.3, images=40), evaluation(0.95, images=40))
    assert found.iou[3].distinct
    assert found.holding.tolist() == [40, 40, 40, 8]
    assert sorted(found.distinct_classes()) == ["car", "road", "sky"]


def test_a_class_without_iou_has_no_difference() -> None:
    counts = ConfusionMatrix(4)
    counts.update(np.array([0, 1, 2]), np.array([0, 1, 1]))
    images = PerImage.of([cells_of(counts)] * 3, ["a", "b", "c"], 4)
    run = Evaluation(CLASSES, images.total()[:, :-1], images.total()[:, -1], 3, 1.0, "single scale", images)
    found = compare(run, run)
    assert found.iou[3] is None
    assert found.to_json()["iou"]["train"]["a"] is None


def test_several_runs_a_side_are_averaged() -> None:
    runs = [evaluation(0.6, seed=seed) for seed in (1, 2, 3)]
    found = compare(runs, B, resamples=100)
    assert found.a == tuple(run.mean_iou for run in runs)
    assert found.mean_iou.value == pytest.approx(B.mean_iou - np.mean(found.a), abs=1e-15)


def test_the_interval_over_seeds_is_welchs() -> None:
    a, b = np.array([0.60, 0.61, 0.65]), np.array([0.70, 0.72, 0.71, 0.75])
    found = over_seeds(a, b)
    # By hand: variances 7e-4 and 4.67e-4, error 0.01871, 3.86 degrees of freedom, so 3: 3.182 times that.
    assert (found.value, found.high - found.value) == (pytest.approx(0.1), pytest.approx(3.182 * 0.0187083, rel=1e-4))


def test_one_run_a_side_says_nothing_about_seeds() -> None:
    assert over_seeds(np.array([0.6, 0.7]), np.array([0.5])) is None
    assert "another seed" in verdict(compare(A, B))


@pytest.mark.parametrize("freedom", [1, 2, 5, 30])
def test_the_quantiles_are_students(freedom: int) -> None:
    t = np.linspace(0, STUDENT[freedom - 1], 200_001)
    density = (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    tail = 1 / np.linspace(1e-9, 1 / STUDENT[freedom - 1], 200_001)  # the rest, over 1 / t
    rest = (1 + tail**2 / freedom) ** (-(freedom + 1) / 2) * tail**2
    inside, outside = np.trapezoid(density, t), np.trapezoid(rest, 1 / tail)
    # worst error measured: 2.9e-5 for 30; the table has three decimals
    assert outside / (inside + outside) == pytest.approx(0.05, abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([(0.5, 1), (0.5, 2), (0.5, 3)], [(0.9, 4), (0.9, 5), (0.9, 6)], "the seeds do not explain the difference either"),
        ([(0.5, 1), (0.8, 2)], [(0.6, 4), (0.9, 5)], "other seeds could say the opposite"),
        ([(0.5, 1), (0.51, 2)], [(0.9, 4)], "B has one run"),
    ],
    ids=["clear", "seeds spread", "one seed"],
)
def test_the_verdict_says_what_the_seeds_allow(a: Any, b: Any, said: str) -> None:
    found = compare(*([evaluation(right, seed=seed) for right, seed in side] for side in (a, b)), resamples=200)
    assert said in verdict(found)


def test_the_verdict_reads_as_a_sentence() -> None:
    said = verdict(compare(A, B))
    assert said.startswith(f"B is better by {100 * (B.mean_iou - A.mean_iou):.2f} points of mIoU: B has")
    assert "other images of this kind should say the same" in said


def test_a_worse_b_is_called_worse() -> None:
    assert verdict(compare(B, A)).startswith("B is worse by")


def test_the_result_is_json() -> None:
    json.dumps(compare([A, B], [B, A], resamples=100).to_json(), allow_nan=False)


def test_runs_that_were_shown_the_images_in_another_way_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"not evaluated in the same way \(single scale, multi-scale \+ flip\)"):
        compare(A, replace(B, mode="multi-scale + flip"), resamples=100)


def _renamed(run: Evaluation) -> Evaluation:
    return replace(run, per_image=replace(run.per_image, names=("other", *run.per_image.names[1:])))


def _relabelled() -> Evaluation:
    counts = ConfusionMatrix(4)
    counts.update(np.zeros((16, 24), int), np.zeros((16, 24), int))
    kept = [(A.per_image.cell[s], A.per_image.count[s]) for s in map(slice, A.per_image.start[:-1], A.per_image.start[1:])]
    return replace(A, per_image=PerImage.of([*kept[:3], cells_of(counts), *kept[4:]], A.per_image.names, 4))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(B, per_image=None), "run 2 must have the matrices of its images"),
        (replace(B, classes=("road", "bus", "sky", "train")), "the same classes"),
        (_renamed(B), "12 in run 2 and 12 in run 1, 11 of them the same"),
        (evaluation(0.6, images=9), "9 in run 2 and 12 in run 1"),
        (_relabelled(), "the same labels, got others for street_3 in run 2"),
        ([], "a run on each side"),
    ],
    ids=["without matrices", "other classes", "another image", "fewer images", "other labels", "no run"],
)
def test_what_cannot_be_compared_is_refused(other: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compare(A, other, resamples=100)


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """200 pairs of runs on 100 streets each, from a kind of street whose true difference a hundred times as many tell."""

    def street(rng: np.random.Generator) -> tuple[Any, Any]:
        share = rng.dirichlet([4, 1, 1, 0.3])
        target = rng.choice(4, 400, p=share)
        kept = []
        for right in (rng.beta(6, 4), rng.beta(6.5, 4)):
            counts = ConfusionMatrix(4)
            counts.update(np.where(rng.random(400) < right, target, rng.integers(0, 4, 400)), target)
            kept.append(cells_of(counts))
        return kept[0], kept[1]

    def pair(rng: np.random.Generator, n: int) -> tuple[Evaluation, Evaluation]:
        streets = [street(rng) for _ in range(n)]
        names = [str(i) for i in range(n)]
        sides = [PerImage.of([one[side] for one in streets], names, 4) for side in (0, 1)]
        a, b = (Evaluation(CLASSES, x.total()[:, :-1], x.total()[:, -1], n, 1.0, "single scale", x) for x in sides)
        return a, b

    many = pair(np.random.default_rng(1), 10_000)
    truth = many[1].mean_iou - many[0].mean_iou
    covered = 0
    for seed in range(200):
        found = compare(*pair(np.random.default_rng(1000 + seed), 100), resamples=500).mean_iou
        covered += found.low <= truth <= found.high
    # measured: 194 of 200; 190 are expected, with a standard deviation of 3
    assert 178 <= covered <= 199
