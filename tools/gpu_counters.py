"""Hardware counters of the kernels, for tools/gpu.py: what Nsight Compute (ncu) reads of one call, beside what it must cost.

Many machines let nobody read counters; whether this one does is tried on a tiny kernel first. Clocks are left as they are.
As a program, `gpu_counters.py MODEL STAGE DTYPE OFFSETS DIRECTION BACKEND` makes the one call that is looked at.
"""

import csv
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from gpu_part import FAST, PLAIN, Options, Record, backend_of, command

from vistalib.bench import Workload, stage_workloads
from vistalib.bench.machine import Machine, measure_machine
from vistalib.bench.workload import Offsets, draw
from vistalib.ops import dcnv3

# ncu's name of a counter: ours
METRICS = {
    "gpu__time_duration.sum": "seconds",
    "dram__bytes_read.sum": "dram_read_bytes",
    "dram__bytes_write.sum": "dram_write_bytes",
    "l1tex__throughput.avg.pct_of_peak_sustained_elapsed": "l1_percent",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed": "l2_percent",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "dram_percent",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue_slots_percent",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
    "launch__registers_per_thread": "registers",
}
UNITS = {
    "ns": 1e-9,
    "nsecond": 1e-9,
    "us": 1e-6,
    "usecond": 1e-6,
    "ms": 1e-3,
    "msecond": 1e-3,
    "s": 1.0,
    "second": 1.0,
    "byte": 1.0,
    "Kbyte": 1e3,
    "Mbyte": 1e6,
    "Gbyte": 1e9,
}


class Case(NamedTuple):
    """A call that is looked at."""

    model: str
    stage: int
    dtype: str
    offsets: str
    direction: str
    backend: str  # as the records call it


CASES = [
    Case(model, 1, "bfloat16", offsets, direction, backend)
    for model in ("l", "xl")
    for direction in ("forward", "backward")
    for offsets in ("normal:0.5", "uniform:4")
    for backend in (PLAIN, FAST)
]
ONE_CASE = 120.0  # seconds, at most
WARM_UP = 3
TINY = "import torch; torch.ones(8, device='cuda').sum().item()"


def counters(options: Options) -> Record:
    """A row for each case with its kernels, or why there are none."""
    budget, tool = options.budget(), find_ncu()
    if tool is None or options.dry_run:
        return {"skipped": "ncu is neither on the PATH nor below /usr/local/cuda" if tool is None else "a rehearsal has no GPU"}
    log = options.out / "ncu.log"
    probe = command([tool, "--metrics", "gpu__time_duration.sum", sys.executable, "-c", TINY], log, limit=min(120, budget.left))
    if refusal := refused(log.read_text(encoding="utf-8", errors="replace")) or (probe["status"] and probe["last"]):
        return {"skipped": f"ncu cannot read counters on this machine: {refusal}"}
    machine, rows = measure_machine(options.device, [torch.bfloat16]), []
    left_out = []
    for case in CASES:
        if budget.left < ONE_CASE:
            left_out.append(" ".join(map(str, case)))
            continue
        rows.append(measured(tool, case, options, machine))
    return {"machine": {"bytes_per_second": machine.bytes_per_second}, "rows": rows, "left_out_for_time": left_out}


def find_ncu() -> str | None:
    """Where ncu lies."""
    beside = sorted(Path("/usr/local").glob("cuda*/bin/ncu"))
    return shutil.which("ncu") or (str(beside[-1]) if beside else None)


def refused(said: str) -> str | None:
    """The line in which ncu says that it may not read counters."""
    return next((line.strip() for line in said.splitlines() if line.startswith("==ERROR==")), None)


def measured(tool: str, case: Case, options: Options, machine: Machine) -> Record:
    """One call under ncu: its kernels and what they took together, or why there are none."""
    words = list(map(str, case))
    table, log = options.out / f"ncu {' '.join(words)}.csv".replace(":", "-"), options.out / "ncu.log"
    how = ["--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", "--profile-from-start", "off"]
    arguments = [tool, *how, "--metrics", ",".join(METRICS), "--log-file", str(table.resolve())]
    done = command([*arguments, sys.executable, str(Path(__file__).resolve()), *words], log, limit=ONE_CASE)
    row: Record = case._asdict()
    said = table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
    if done["status"] or not (kernels := parse(said.splitlines())):
        return row | {"failed": refused(said) or done["last"] or "ncu saw no kernel"}
    return row | on_roofline(kernels, _workload(case), case.direction, machine)


def parse(lines: Iterable[str]) -> list[Record]:
    """The kernels of ncu's raw CSV page in the order of their launches: name and counters, in seconds, bytes and percent.

    A counter that the machine does not have is None. Lines in which ncu speaks are left out.
    """
    table = list(csv.reader(line for line in lines if line.startswith('"')))
    if len(table) < 2:
        return []
    heading, units, *rows = table
    columns = {name: METRICS[name] for name in heading if name in METRICS}
    found = []
    for row in rows:
        values, unit = dict(zip(heading, row, strict=True)), dict(zip(heading, units, strict=True))
        counted = {ours: _number(values[theirs], unit[theirs]) for theirs, ours in columns.items()}
        found.append({"kernel": _short(values["Kernel Name"])} | counted)
    return found


def _number(text: str, unit: str) -> float | None:
    try:
        return float(text.replace(",", "")) * UNITS.get(unit, 1.0)
    except ValueError:  # n/a
        return None


def _short(name: str) -> str:
    """A kernel's name without its arguments."""
    return re.sub(r"\(.*", "", name).strip()


def on_roofline(kernels: list[Record], work: Workload, direction: str, machine: Machine) -> Record:
    """What all kernels of a call took together, beside the bytes and operations that it cannot do without.

    `bandwidth` is the share of a large copy's; `floor` the least time by memory and arithmetic.
    """
    cost = work.cost("forward" if direction == "forward" else "backward", torch.bfloat16)
    floor, bound = machine.floor(cost, torch.bfloat16)
    found: Record = {"kernels": kernels, "bytes_once": cost.bytes, "flops": cost.flops, "floor": floor, "bound": bound}
    counted = ("seconds", "dram_read_bytes", "dram_write_bytes")
    sums = [[kernel[name] for kernel in kernels if kernel.get(name) is not None] for name in counted]
    if not all(len(each) == len(kernels) for each in sums):
        return found
    seconds, moved = sum(sums[0]), sum(sums[1]) + sum(sums[2])
    return found | {
        "seconds": seconds,
        "of_floor": floor / seconds,
        "dram_bytes": moved,
        "of_bytes_once": moved / cost.bytes,
        "bandwidth": moved / seconds / machine.bytes_per_second,
        "flops_per_byte": cost.flops / moved if moved else None,
        "flops_per_second": cost.flops / seconds,
    }


def _workload(case: Case) -> Workload:
    return stage_workloads([case.model], [case.stage], ["512x1024"], 2)[0]


def main() -> None:
    """The call that ncu looks at: some without it, then one between start and stop."""
    model, stage, *rest = sys.argv[1:]
    case, device = Case(model, int(stage), *rest), torch.device("cuda")
    with backend_of(case.backend) as backend:
        call(case, backend, device)


def call(case: Case, backend: str, device: torch.device) -> None:
    """The case's call, a few times, the last one between start and stop."""
    work, backward = _workload(case), case.direction == "backward"
    *tensors, gradient = draw(work, Offsets(case.offsets), getattr(torch, case.dtype), device=device, seed=0)
    leaves = [tensor.requires_grad_(backward) for tensor in tensors]
    settings: Record = {"groups": work.groups, "offset_scale": work.offset_scale, "mask_is_logits": True, "backend": backend}
    for turn in range(WARM_UP + 1):
        if turn == WARM_UP and not backward:
            torch.cuda.profiler.start()
        output = dcnv3(*leaves, **settings)
        if backward:
            torch.cuda.synchronize()
            if turn == WARM_UP:
                torch.cuda.profiler.start()
            torch.autograd.grad(output, leaves, gradient)
        torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    main()
