"""What the machine at hand can do at best, measured in the run whose times are held against it.

The memory floor of a call is its bytes over the bandwidth of a large copy, read and written bytes together: what moves nothing
twice and comes from memory cannot be faster. A call whose tensors lie in a cache can be, so small shapes may show more than
100% of the floor when the cache is warm. The compute floor is its operations over those a second of a matrix product in the
dtype that sums are taken in, which is float32 for the sixteen-bit ones; tensor cores stay out of it, as a gather has no use for
them. The floor of a call is the larger of the two.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from vistalib.bench.timing import seconds
from vistalib.bench.workload import Cost

COPY = {"cpu": 1 << 28, "cuda": 1 << 30}  # bytes
SIDE = {"cpu": 1536, "cuda": 8192}  # of the matrices
BEST_OF = 7


@dataclass(frozen=True)
class Machine:
    """Measured speeds: bytes a second of a copy, operations a second by the dtype sums are taken in."""

    bytes_per_second: float
    flops_per_second: dict[str, float]

    def floor(self, cost: Cost, dtype: torch.dtype) -> tuple[float, str]:
        """The least seconds for `cost`, and what they are spent on: "memory" or "compute"."""
        memory = cost.bytes / self.bytes_per_second
        compute = cost.flops / self.flops_per_second[name_of(sum_dtype(dtype))]
        return (memory, "memory") if memory >= compute else (compute, "compute")


def measure_machine(device: torch.device, dtypes: Iterable[torch.dtype]) -> Machine:
    """Copy and multiply on `device`; the best of a few goes each, since other work can only slow them down."""
    source = torch.ones(COPY[device.type] // 4, device=device)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device)
    flops = {name_of(kind): _multiply_speed(device, kind) for kind in {sum_dtype(dtype) for dtype in dtypes}}
    return Machine(2 * COPY[device.type] / copy, flops)


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums over numbers of `dtype` are taken in."""
    return torch.promote_types(dtype, torch.float32)


def name_of(dtype: torch.dtype) -> str:
    """The name by itself: float32 for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def load() -> float | None:
    """Processes that wanted a core over the last minute, or None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _multiply_speed(device: torch.device, dtype: torch.dtype) -> float:
    side = SIDE[device.type]
    a, b, product = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(3))
    return 2 * side**3 / _best(lambda: torch.mm(a, b, out=product), device)


def _best(call: Callable[[], object], device: torch.device) -> float:
    call()
    return min(seconds(call, device) for _ in range(BEST_OF))
