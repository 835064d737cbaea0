"""Progress that suits its reader: a bar on a terminal or in a notebook, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

EVERY = 10.0  # seconds between plain lines
T = TypeVar("T")
_hidden = False


def progress(items: Iterable[T], description: str, *, total: int | None = None, start: int = 0) -> Iterator[T]:
    """Iterate over `items`, showing on standard error how far it has come.

    `total` is the number of items where `len(items)` does not tell; `start` of them are already done. Without tqdm, or
    where standard error is neither a terminal nor a notebook, a line is printed for the first item, then at most every ten
    seconds, and at the end.
    """
    if _hidden:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items) + start
    bar = _bar()
    if bar is not None:
        yield from bar(items, desc=description, total=total, initial=start, dynamic_ncols=True, leave=False)
        return
    began = time.monotonic()
    said, done = began - EVERY, start  # the first is told at once: it has begun, and this is what one takes
    told = -1
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - said >= EVERY:
            said, told = now, done
            _say(description, done, total, now - began)
    if told != done:
        _say(description, done, total, time.monotonic() - began)


def hide_progress() -> None:
    """Show none from now on: in a process whose progress another one shows."""
    global _hidden
    _hidden = True


def _bar() -> Any:
    """tqdm's class for this terminal or notebook, or None where plain lines read better."""
    in_notebook = "ipykernel" in sys.modules
    if not (in_notebook or sys.stderr.isatty()):
        return None
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm


def _say(description: str, done: int, total: int | None, seconds: float) -> None:
    share = f"{done}/{total}" if total else f"{done}"
    print(f"{description}: {share}, {seconds:.0f} s", file=sys.stderr, flush=True)
