"""The machine that a run is for: its device, and the memory there."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from vistalib.recipes.run import usable_device

CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may have; "max" where there is no bound


@dataclass(frozen=True)
class Machine:
    """A device as torch names it, and its memory in bytes (a CPU's: what this process may have); None where it is not known."""

    device: str
    memory: int | None

    @property
    def is_cpu(self) -> bool:
        """Whether the processor itself computes."""
        return self.device.startswith("cpu")


def this_machine(device: str | None = None) -> Machine:
    """The machine with its `device` (default: the GPU where there is one); `ValueError` for one that torch cannot use."""
    device = usable_device(device)
    if device.startswith("cuda"):
        return Machine(device, torch.cuda.get_device_properties(device).total_memory)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows does not tell in this way
        return Machine(device, None)
    bound = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
    return Machine(device, min(memory, int(bound)) if bound.isdigit() else memory)
