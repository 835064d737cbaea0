"""What a checker answers, and how it calls a reader's function without ever raising for what the reader wrote."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Whether an exercise is solved, and what to say about it; true where it is solved."""

    solved: bool
    message: str

    def __bool__(self) -> bool:
        return self.solved

    def __repr__(self) -> str:
        return f"{'Solved' if self.solved else 'Not yet'}: {self.message}"

    def _repr_html_(self) -> str:
        mark, kind = ("&#10003; Solved:", "solved") if self.solved else ("Not yet:", "unsolved")
        return f'<p class="verdict {kind}" role="status"><strong>{mark}</strong> {escape(self.message)}</p>'


class Unsolved(Exception):
    """Why an exercise is not solved yet; a checker turns it into a `Verdict`."""


def attempt(call: Callable[[], Any]) -> Any:
    """What the reader's function returned; `Unsolved` where it raised or returned nothing."""
    try:
        value = call()
    except NotImplementedError:
        raise Unsolved("the function is still empty; write it and run the cell again.") from None
    except Exception as error:
        raise Unsolved(f"your function raised {type(error).__name__}: {error}") from error
    if value is None:
        raise Unsolved("the function returned nothing; end it with a return statement.")
    return value


def expect_number(call: Callable[[], Any], expected: float, reason: str) -> None:
    """`Unsolved` unless the reader's function returns the number `expected`; NaN equals NaN. `reason` explains it."""
    value = attempt(call)
    try:
        got = float(value)
    except (TypeError, ValueError):
        raise Unsolved(f"the function must return one number, got {type(value).__name__}.") from None
    same = math.isnan(expected) if math.isnan(got) else math.isclose(got, expected, abs_tol=1e-9)
    if not same:
        raise Unsolved(f"expected {expected:.3f}, got {got:.3f} ({reason}).")
