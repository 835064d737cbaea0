"""Checkers of the chapter that tells the whole story: comparing runs, with their controls, their seeds and their classes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from vistalib.course.verdict import Unsolved, Verdict, attempt, expect_number


def check_gain(function: Callable[[Mapping[str, float]], float]) -> Verdict:
    """`function(scores)`: points of mean IoU that "finetune" has over the better of "scratch" and "scratch_total"."""
    cases: tuple[tuple[dict[str, float], float, str], ...] = (
        ({"finetune": 0.5, "scratch": 0.25, "scratch_total": 0.375}, 12.5, "the stronger control is scratch_total, at 37.5%"),
        ({"finetune": 0.5, "scratch": 0.4375, "scratch_total": 0.375}, 6.25, "here the shorter control is the stronger one"),
        ({"finetune": 0.25, "scratch": 0.125, "scratch_total": 0.375}, -12.5, "a gain may be negative: report it as it is"),
    )
    try:
        for scores, expected, reason in cases:
            expect_number(partial(function, dict(scores)), expected, reason)
    except Unsolved as fault:
        return Verdict(False, str(fault))
    return Verdict(True, "you compare with the stronger control, in points, and do not hide a loss.")


def check_believable(function: Callable[[Sequence[float], Sequence[float]], bool]) -> Verdict:
    """`function(ours, control)`: whether the difference of two means over seeds is larger than the range of either."""
    cases: tuple[tuple[list[float], list[float], bool, str], ...] = (
        ([0.41, 0.42, 0.43], [0.31, 0.32, 0.33], True, "ten points apart, each within two points"),
        ([0.41, 0.42, 0.43], [0.40, 0.41, 0.42], False, "one point apart, each within two points"),
        ([0.42, 0.42, 0.42], [0.30, 0.38, 0.46], False, "the control alone moves by sixteen points from seed to seed"),
        ([0.30, 0.40, 0.50], [0.32, 0.32, 0.32], False, "our own seeds move by twenty points"),
        ([0.31, 0.32, 0.33], [0.41, 0.42, 0.43], False, "ours is worse"),
    )
    try:
        for ours, control, expected, reason in cases:
            if bool(attempt(partial(function, list(ours), list(control)))) != expected:
                raise Unsolved(f"for {ours} against {control} the answer is {expected}: {reason}.")
    except Unsolved as fault:
        return Verdict(False, str(fault))
    return Verdict(True, "you ask of a difference that it be larger than what chance does.")


def check_losers(function: Callable[[Mapping[str, float | None], Mapping[str, float | None]], Sequence[str]]) -> Verdict:
    """`function(ours, control)`: from IoU by class, the classes where the control is better, the largest loss first.

    A class without IoU (None) in either is left out.
    """
    ours = {"road": 0.9, "pole": 0.25, "train": None, "rider": 0.125, "bus": 0.5, "wall": 0.25}
    control = {"road": 0.8, "pole": 0.375, "train": 0.5, "rider": 0.5, "bus": None, "wall": 0.25}
    expected = ["rider", "pole"]
    try:
        got = attempt(partial(function, dict(ours), dict(control)))
    except Unsolved as fault:
        return Verdict(False, str(fault))
    found = list(got) if isinstance(got, list | tuple) else got
    if found == expected:
        return Verdict(True, "the classes that lose are found, and those without a score are left in peace.")
    hint = (
        "the largest loss comes first" if isinstance(found, list) and sorted(found) == sorted(expected) else "equal is no loss"
    )
    return Verdict(False, f"expected {expected}, got {found} ({hint}; a class with None on either side cannot be compared).")
