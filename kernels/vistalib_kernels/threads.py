"""Work shared among Python threads that run compiled code without the GIL.

Numba's own threading layers each fail somewhere a training run goes: `workqueue` aborts the process when two threads call at
once, `omp` dies in a forked DataLoader worker. A pool of ordinary threads does neither. It starts threads when they are first
needed, and a forked child begins with a new one, since threads do not survive a fork.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise


def share(work: Callable[[int, int], None], items: int, threads: int) -> None:
    """Call `work(first, last)` on `threads` equal ranges that make up `range(items)`; returns when all are done.

    The calling thread does the first range itself. `work` must not call `share`.
    """
    threads = max(1, min(threads, items))
    bounds = [items * part // threads for part in range(threads + 1)]
    others = [_pool.submit(work, first, last) for first, last in pairwise(bounds[1:])]
    try:
        work(bounds[0], bounds[1])
    finally:
        for other in others:
            other.result()


def _new_pool() -> None:
    global _pool
    _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="vistalib-kernels")


_pool: ThreadPoolExecutor
_new_pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_pool)
