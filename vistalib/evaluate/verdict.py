"""What a comparison says, in sentences for a person who decides something."""

from collections.abc import Sequence

from vistalib.evaluate.compare import FEWEST, Comparison, Difference


def verdict(comparison: Comparison) -> str:
    """One sentence on the difference, one on what the images allow to say, one on the seeds, one on the classes."""
    return " ".join([_difference(comparison), _images(comparison), _seeds(comparison), _classes(comparison)])


def _difference(found: Comparison) -> str:
    a, b = (100 * sum(side) / len(side) for side in (found.a, found.b))
    if found.mean_iou.value == found.mean_iou.low == found.mean_iou.high == 0:
        return f"A and B have the same mIoU, {a:.2f}%, on these images and on every draw of them."
    return (
        f"{_better(found.mean_iou.value)} of mIoU: B has {b:.2f}%, A {a:.2f}% "
        f"(95% interval of B - A over {found.images} images {_range(found.mean_iou)}; "
        f"B is ahead in {100 * found.share_better:.1f}% of {found.resamples:,} draws of the images)."
    )


def _images(found: Comparison) -> str:
    difference = found.mean_iou
    if difference.low == difference.high == 0:
        return "There is nothing to tell apart."
    if difference.distinct:
        return "That is more than the choice of these images explains: other images of this kind should say the same."
    return "These images cannot tell the two apart: others of this kind could say the opposite."


def _seeds(found: Comparison) -> str:
    if len(found.a) == len(found.b) == 1:
        return "One run a side does not say what another seed would change; train each with three seeds to know."
    spread = f"Over seeds, A {_spread(found.a)} and B {_spread(found.b)}"
    if found.seeds is None:
        return f"{spread}: one run has no spread, so that the seed remains a possible cause."
    interval = f"the 95% interval of B - A over seeds is {_range(found.seeds)}"
    if found.seeds.distinct and found.mean_iou.distinct:
        return f"{spread}; {interval}: the seeds do not explain the difference either."
    if found.seeds.distinct:
        return f"{spread}; {interval}: the seeds agree, on these images."
    return f"{spread}; {interval}: other seeds could say the opposite."


def _classes(found: Comparison) -> str:
    distinct = found.distinct_classes()
    scored = sum(difference is not None for difference in found.iou)
    if not distinct:
        return f"No class of {scored} can be told apart by itself."
    value = dict(zip(found.classes, found.iou, strict=True))
    named = [f"{name} {_points(value[name])}" for name in distinct]
    listed = ", ".join(named if len(named) <= 6 else [*named[:3], "...", *named[-3:]])
    return (
        f"By themselves {len(distinct)} of {scored} classes differ ({listed}); about {max(1, round(0.05 * scored))} would seem "
        f"to by chance. A class that fewer than {FEWEST} images show is not judged."
    )


def _better(value: float) -> str:
    points = f"{abs(100 * value):.2f} points"
    return f"B is {'better' if value > 0 else 'worse'} by {points}" if value else "A and B are alike to 0.00 points"


def _range(difference: Difference) -> str:
    return f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"


def _spread(side: Sequence[float]) -> str:
    if len(side) == 1:
        return f"has one run ({100 * side[0]:.2f}%)"
    return f"goes from {100 * min(side):.2f}% to {100 * max(side):.2f}% ({len(side)} runs)"


def _points(difference: Difference | None) -> str:
    return "" if difference is None else f"{100 * difference.value:+.1f}"
