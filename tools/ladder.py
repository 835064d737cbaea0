"""The ladder from the first GPU kernel to the last: what each step was to bring, and what the compiler made of it.

    python tools/ladder.py                            # writes book/results/ladder.json, in some minutes

A step has a hypothesis and a prediction, both written before it was measured; registers, instructions and bytes out of the
machine code for sm_90; the time that follows by arithmetic; the time measured on a GPU, null until one was at hand; and
whether the prediction came true, null until that is known. Steps that failed stay. All of it for windows of 3x3, 16 channels a
group, in bfloat16, with the softmax inside. Needs nvcc, numba-cuda and nvdisasm (python -m pip install nvidia-cuda-nvdisasm),
and no GPU.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import kernel_sass
import torch
from kernel_sass import H200, ROOT, STAGES
from ladder_drawn import BYTES, POINTS, TEAMS, THREADS, D, Lists, Strips, drawn, reaching, sorted_by_strip

from vistalib.bench.workload import Offsets
from vistalib.files import read_json, write_json

RECORD = ROOT / "book" / "results" / "ladder.json"
STEPS = Path(__file__).with_name("ladder_steps.json")  # hypotheses and predictions
KERNELS = ROOT / "kernels" / "vistalib_kernels"
CORNERS = POINTS * 4 * D  # numbers of a unit that its points read, and that a backward adds to, in float32
WIDTHS = {"U8": 1, "U16": 2, "64": 8, "128": 16, "F32x4": 16}


@dataclass(frozen=True)
class Strided:
    """A loop in which the threads of a block share `items` of them."""

    items: int

    @property
    def of_a_warp(self) -> float:
        """Times that a warp goes through it, on average."""
        return -(-self.items // 32) / (THREADS // 32)

    @property
    def of_a_thread(self) -> float:
        """Times that a thread does."""
        return self.items / THREADS


@dataclass(frozen=True)
class Cost:
    """What a unit, one output pixel of one group, costs."""

    instructions: float  # of warps
    load_clocks: float  # in which a multiprocessor's path to its L1 is taken: a warp's load, or 128 bytes, a clock
    load_bytes: float
    atomic_bytes: float
    shared_clocks: float = 0.0  # in which that path is taken by shared memory and shuffles: 128 bytes a clock, as well
    product_clocks: float = 0.0  # in which tensor cores multiply, 2,048 times a clock
    ring_bytes: float = 0.0  # of a ring of sums: read to be rounded, and cleared, in L2


def main() -> int:
    """Compile every step, read its machine code, write the record, print a table."""
    parser = argparse.ArgumentParser(description="Read the machine code of every step of the ladder.")
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args()
    nvcc, disassembler = kernel_sass.find_nvcc(), kernel_sass.find_nvdisasm()
    if nvcc is None or disassembler is None:
        print("nvcc and nvdisasm are needed (python -m pip install nvidia-cuda-nvdisasm)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="vistalib-ladder-") as name:
        steps = [made(step, nvcc, disassembler, Path(name)) for step in read_json(STEPS)]
    write_json(options.out, {"sources": digest(), "compiler": kernel_sass.release(nvcc), "note": NOTE, "steps": steps})
    for step in steps:
        built = f"{step['registers']:5} registers{step['local_bytes']:4} local" if step["registers"] else f"{'not built':>25}"
        made_of = f"{built}{step['instructions']:8.1f} instructions"
        print(f"{step['direction']:9}{step['step']:12}{made_of}{step['predicted']:8.1f} us by {step['limit']}")
    return 0


NOTE = (
    "instructions: of warps, for a unit (an output pixel of a group) inside the image; bytes: asked from L1, added by "
    "atomics; microseconds: arithmetic for one call of InternImage-L at stage 1 (two images of 512x1024) on an H200 at 1.98"
    " GHz; issue: four instructions a clock and multiprocessor; gather: a warp's load or 128 bytes a clock; on chip: that, "
    "and as much for shared memory and shuffles, without conflicts of banks; tensor cores: at their full rate; atomics: "
    "bytes, and those of a ring of sums, at 5.5 TB/s, as if those of a warp lay side by side; memory: every byte once at 4.3 "
    "TB/s; around: clearing the sums of a backward before it and rounding them after it, at that rate, where its kernel does "
    "not; predicted: the largest, and these; measured: on"
    " a GPU, or null. Steps by arithmetic were not built. Tiles depend on the offsets: predicted for N(0, 0.5), "
    "at_uniform_4 for uniform ones up to 4, both before L's offset_scale of 2, at_half and at_quarter for N(0, 0.5) and "
    "N(0, 0.25) pixels after it; how long lists are, and which turns of a window reach how far, was counted in tiles drawn "
    "so"
)


def digest() -> str:
    """A hash of all that the record speaks of."""
    sources = [*kernel_sass.SOURCES.glob("*.cu*"), kernel_sass.SOURCES / "dcnv3.h"]
    files = [*KERNELS.glob("gpu_*.py"), KERNELS / "numba_cuda.py", STEPS, *sources]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:16]


def made(step: dict[str, Any], nvcc: str, disassembler: Path, place: Path) -> dict[str, Any]:
    """A step with what the compiler made of it."""
    step = dict(step)
    if step["by"] == "numba":
        found, cost = by_numba(step["direction"], step["step"], nvcc, disassembler, place)
    elif step["by"] == "arithmetic":
        found, cost = {"registers": None, "shared_bytes": None, "local_bytes": None}, Cost(**step.pop("cost"))
    elif step["step"] in IN_TILES:
        each = {"": "normal:0.5", "at_uniform_4": "uniform:4", "at_half": "normal:0.25", "at_quarter": "normal:0.125"}
        drawn_from = {name: Offsets(offsets) for name, offsets in each.items()}
        found, costs = in_tiles(step["step"], drawn_from, nvcc, disassembler, place)
        cost = costs.pop("")
        found |= {
            name: {"microseconds": microseconds(step["direction"], other), "atomic_bytes": round(other.atomic_bytes)}
            for name, other in costs.items()
        }
    elif step["step"] == "window":
        found, cost, others = by_window(nvcc, disassembler, place)
        found |= {name: {"microseconds": microseconds(step["direction"], other)} for name, other in others.items()}
    else:
        found, cost = by_cuda(step["direction"], step.pop("replaced", {}), nvcc, disassembler, place)
    if "no local memory" in step["prediction"] and found["local_bytes"]:
        step["came_true"] = False  # known without a GPU
    counted = {"instructions": round(cost.instructions, 1)}
    counted |= {"load_bytes": round(cost.load_bytes), "atomic_bytes": round(cost.atomic_bytes)}
    limits = microseconds(step["direction"], cost)
    limit = max(limits, key=lambda name: limits[name])
    passes = 0.0 if cost.ring_bytes else around(step["direction"])
    rest = {"predicted": round(limits[limit] + passes, 1), "measured": None, "came_true": step.pop("came_true", None)}
    return {**step, **found, **counted, "microseconds": limits, "limit": limit, "around": passes, **rest}


def microseconds(direction: str, cost: Cost) -> dict[str, float]:
    """What each part of an H200 needs for a call at stage 1."""
    units = STAGES["1"][0]
    a_clock = units / (H200["multiprocessors"] * H200["clock"]) * 1e6
    points = 3 * POINTS * BYTES  # offsets and masks of a unit
    once = 2 * D * BYTES + (1 if direction == "forward" else 2) * points + (D * BYTES if cost.ring_bytes else 0)
    limits = {
        "issue": a_clock * cost.instructions / 4,
        "gather": a_clock * cost.load_clocks,
        "on chip": a_clock * (cost.load_clocks + cost.shared_clocks),
        "tensor cores": a_clock * cost.product_clocks,
        "memory": units * once / H200["memory"] * 1e6,
    }
    if direction == "backward":
        limits["atomics"] = units * (cost.atomic_bytes + cost.ring_bytes) / H200["l2"] * 1e6
    return {name: round(time, 1) for name, time in limits.items()}


def around(direction: str) -> float:
    """Microseconds of the passes before and after a backward: its sums in float32 are cleared, then read and rounded."""
    return round(STAGES["1"][0] * D * (4 + 4 + BYTES) / H200["memory"] * 1e6, 1) if direction == "backward" else 0.0


# ---- machine code --------------------------------------------------------------------------------------------------------

Loop = tuple[int, int]


def instructions_of(text: str, symbol: str) -> tuple[list[str], list[Loop]]:
    """The instructions of a kernel up to its first unconditional end, and its loops as (first, last), outer ones first.

    What lies beyond the end are paths that are not taken: divisions of numbers beyond 32 bits, and divisions by zero.
    """
    code, jumps = parsed(text, symbol)
    return code, sorted(jump for jump in jumps if jump[0] <= jump[1])


def skips_of(text: str, symbol: str) -> list[Loop]:
    """What the conditional jumps of a kernel pass over, as (first, last), in their order."""
    _, jumps = parsed(text, symbol)
    return sorted((i + 1, to - 1) for to, i in jumps if to > i + 1)


def parsed(text: str, symbol: str) -> tuple[list[str], list[Loop]]:
    """A kernel's instructions up to its first unconditional end, and its jumps as (to, from)."""
    part = text.split(f".section\t.text.{symbol},", 1)[1].split(".section", 1)[0]
    labels: dict[str, int] = {}
    code: list[str] = []
    for line in part.splitlines():
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(.*?)\s*;", line):
            code.append(found[1])
    code = code[: code.index("EXIT") + 1]
    return code, [(labels[to[1]], i) for i, line in enumerate(code) if (to := re.search(r"BRA\S* .*?\.(L_x_\d+)", line))]


def cost_of(code: Sequence[str], loops: Sequence[Loop], trips: Sequence[float | Strided], units_of_a_warp: float) -> Cost:
    """Add up the instructions, each as often as the loops around it are gone through. A block that calls is never entered."""
    assert len(loops) == len(trips), f"the compiler made the loops {loops}, not {len(trips)} of them: look at the code again"
    slow = calling(code, loops)
    instructions = clocks = loads = atomics = shared = products = 0.0
    for i, line in enumerate(code):
        parts = re.sub(r"^@!?U?P\w+\s+", "", line).split()[0].split(".")
        if parts[0] == "NOP" or i in slow:
            continue
        warp = thread = 1.0
        for (first, last), trip in zip(loops, trips):
            if first <= i <= last:
                warp *= trip.of_a_warp if isinstance(trip, Strided) else trip
                thread *= trip.of_a_thread if isinstance(trip, Strided) else trip
        width = next((WIDTHS[part] for part in parts if part in WIDTHS), 4)
        instructions += warp
        if parts[0] == "LDG":
            loads += thread * 32 * width
            clocks += warp * max(1.0, 32 * width / 128)
        if parts[0] in ("LDS", "STS", "ATOMS", "SHFL", "LDSM"):
            shared += warp * max(1.0, 32 * (16 if parts[0] == "LDSM" else width) / 128)  # four matrices
        if parts[0] in ("REDG", "RED", "ATOMG"):
            atomics += thread * 32 * width
        if parts[0] == "HMMA":
            products += warp * {"16816": 1.0, "1688": 0.5}[parts[1]]
    return Cost(*(total / units_of_a_warp for total in (instructions, clocks, loads, atomics, shared, products)))


def calling(code: Sequence[str], loops: Iterable[Loop]) -> set[int]:
    """Numbers of the instructions in straight pieces that end with a call."""
    slow: set[int] = set()
    for i, line in enumerate(code):
        if "CALL" in line:
            first = i
            while first > 0 and not re.search(r"BRA|BSYNC|BSSY|CALL", code[first - 1]):
                first -= 1
            slow |= set(range(first, i + 1))
    return slow


# ---- the steps -----------------------------------------------------------------------------------------------------------


def by_numba(direction: str, variant: str, nvcc: str, disassembler: Path, place: Path) -> tuple[dict[str, Any], Cost]:
    """A kernel of Numba: its PTX, assembled by ptxas."""
    from vistalib_kernels import numba_cuda
    from vistalib_kernels.gpu_parts import Build

    build = Build(torch.bfloat16, D, (3, 3), (1, 1), (1, 1), (1, 1), True)
    _, units = numba_cuda.MAKERS[direction][variant](build)
    source, code = place / "numba.ptx", place / "numba.cubin"
    source.write_text(numba_cuda.ptx(direction, variant, build, capability=(9, 0)))
    report = run([nvcc, "-cubin", "-arch=sm_90", "-Xptxas=-v", str(source), "-o", str(code)]).stderr
    symbol = re.search(r"Compiling entry function '(\S+)'", report)
    assert symbol is not None
    instructions, loops = instructions_of(run([str(disassembler), str(code)]).stdout, symbol[1])
    rows = units * POINTS
    table = [Strided(rows), Strided(units)]  # its locations, its softmax
    trips: dict[tuple[str, str], list[float | Strided]] = {
        ("forward", "naive"): [POINTS],
        ("forward", "shared"): [*table, Strided(units * D), POINTS / 2],  # two points in a turn
        ("forward", "vector"): [*table, Strided(units * D * BYTES // 16), POINTS],
        ("backward", "naive"): [POINTS, D / 2],  # two channels in a turn
        # The gradient, by single turns, not by four; the table; dot products; the softmax's way back; adding.
        ("backward", "shared"): [1, 0, *table, Strided(rows), Strided(rows), Strided(units * D), POINTS / 2],
        ("backward", "vector"): [1, 0, *table, Strided(rows), Strided(rows), Strided(units * D), POINTS / 2],
    }
    of_a_warp = {("forward", "naive"): 32 / D}.get((direction, variant), units / (THREADS // 32))
    cost = cost_of(instructions, loops, trips[direction, variant], of_a_warp)
    assert direction == "forward" or cost.atomic_bytes == 4 * CORNERS, f"{variant} adds {cost.atomic_bytes} bytes"
    once = (CORNERS + 3 * POINTS + (D if direction == "backward" else 0)) * BYTES
    assert variant == "naive" or cost.load_bytes == once, f"{variant} reads {cost.load_bytes} bytes, not {once}"
    return resources(report, symbol[1]), cost


@cache
def compiled(nvcc: str, source: Path, place: Path, *options: str) -> list[dict[str, Any]]:
    """ptxas's report of the kernels in `source`, which leaves their machine code in `place`."""
    command = [nvcc, "-std=c++17", "-O3", "-cubin", "-arch=sm_90", "-Xptxas=-v", *options, str(source)]
    return list(kernel_sass.resources(run([*command, "-o", str(place / "cuda.cubin")]).stderr, "90"))


@cache
def counted(nvcc: str, disassembler: Path, source: Path, place: Path, what: int = 1) -> str:
    """The machine code of the kernels in `source`, compiled for counting."""
    compiled(nvcc, source, place, f"-DDCNV3_COUNT={what}")
    return run([str(disassembler), str(place / "cuda.cubin")]).stdout


def by_cuda(
    direction: str, replaced: dict[str, str], nvcc: str, disassembler: Path, place: Path
) -> tuple[dict[str, Any], Cost]:
    """A kernel of csrc/, with some text replaced for steps that were not kept."""
    sources = Path(tempfile.mkdtemp(dir=place)) if replaced else kernel_sass.SOURCES
    for source in kernel_sass.SOURCES.iterdir() if replaced else ():
        text = source.read_text()
        for old, new in replaced.items():
            assert source.name != "made.cuh" or text.count(old) == 1, f"not there: {old}"
            text = text.replace(old, new)
        (sources / source.name).write_text(text)
    rows = compiled(nvcc, sources / "dcnv3_cuda.cu", place)
    row = next(row for row in rows if kind(row) == (direction, "bfloat16", D))
    local = max(other["stack_bytes"] + other["spill_bytes"] for other in rows if other["kernel"] == direction)
    text = counted(nvcc, disassembler, sources / "dcnv3_cuda.cu", place)
    cost = cost_of(*instructions_of(text, row["symbol"]), [], 32 * 16 / (D * BYTES))
    assert direction == "forward" or cost.atomic_bytes == 4 * CORNERS, f"it adds {cost.atomic_bytes} bytes"
    return {"registers": row["registers"], "shared_bytes": row["shared_bytes"], "local_bytes": local}, cost


# The kernels of steps in tiles.
IN_TILES = {"lists": "backward_by_lists", "products": "backward_by_products", "sheets": "backward_by_products"}


def in_tiles(
    step: str, each: dict[str, Offsets], nvcc: str, disassembler: Path, place: Path
) -> tuple[dict[str, Any], dict[str, Cost]]:
    """A backward in tiles, whose work depends on the offsets.

    The instructions that add far points are left out, but not their bytes, and so are the dozen of a row without any list.
    """
    source = kernel_sass.SOURCES / "dcnv3_cuda.cu"
    rows = compiled(nvcc, source, place)
    row = next(row for row in rows if kind(row) == (IN_TILES[step], "bfloat16", D))
    local = max(other["stack_bytes"] + other["spill_bytes"] for other in rows if other["kernel"] == row["kernel"])
    text = counted(nvcc, disassembler, source, place)
    instructions, loops = instructions_of(text, row["symbol"])
    skips = skips_of(text, row["symbol"])
    if step != "sheets":
        instructions, loops, skips = without_sheets(instructions, loops, skips)
    if step == "lists":
        costs = {name: cost_of_lists(instructions, loops, drawn(offsets)) for name, offsets in each.items()}
    else:
        costs = {name: cost_of_products(instructions, loops, skips, sorted_by_strip(offsets)) for name, offsets in each.items()}
    return {"registers": row["registers"], "shared_bytes": row["shared_bytes"], "local_bytes": local}, costs


def without_sheets(
    code: Sequence[str], loops: Sequence[Loop], skips: Sequence[Loop]
) -> tuple[Sequence[str], list[Loop], list[Loop]]:
    """A kernel as before there were sheets: without what `in_sheets` does before the fourth barrier and behind the last."""
    barriers = [i for i, line in enumerate(code) if "BAR.SYNC" in line]
    first, last = barriers[3] + 1, barriers[-1]
    moved = [[(a - first, b - first) for a, b in ranges if first <= a <= b < last] for ranges in (loops, skips)]
    return code[first:last], *moved


def cost_of_lists(code: Sequence[str], loops: Sequence[Loop], lists: Lists) -> Cost:
    """Of the backward by lists: its loops enter, multiply, and collect."""
    warps = THREADS // 32
    units = lists.units / warps
    collect = [lists.strips, lists.rows / warps / lists.strips, lists.turns / lists.rows]
    cost = cost_of(code, loops, [units / 32, units / TEAMS, *collect], units)
    return replace(cost, atomic_bytes=(lists.pixels + 4 * lists.far) * D * 4 / lists.units)


def cost_of_products(code: Sequence[str], loops: Sequence[Loop], skips: Sequence[Loop], strips: Strips) -> Cost:
    """Of the backward by tensor cores.

    Its loops turn a slice of a sheet over, where it does, once; go through rows of units, four of their units where the image
    ends and four inside, two strips, their plain rows that have points, steps of sixteen of these, the other rows, their steps.
    Rows of units where the image ends are compiled, but not counted. One warp of four places the bins.
    """
    warps, units = THREADS // 32, strips.units / (THREADS // 32)
    plain, asking = strips.plain_rows, strips.rows - strips.plain_rows
    trips = [units / 16, 4, 4, 2, plain / warps / 2, strips.plain_steps / plain]
    trips += [asking / warps / 2, (strips.steps - strips.plain_steps) / asking]
    sheets = len(loops) > len(trips)
    trips = [1.0] * sheets + trips
    rows = loops[-8]
    of_rows = [skip for skip in skips if rows[0] < skip[0] and skip[1] < rows[1]]
    border = next(skip for skip in of_rows if any("HMMA" in line for line in code[slice(*skip)]))
    placing = next(skip for skip in skips if skip[0] > rows[1] and any("SHFL" in line for line in code[slice(*skip)]))
    cost = cost_of(code, [*loops, border, placing], [*trips, 0, 1 / warps], units)
    ring = 2 * D * 4 if sheets else 0
    return replace(cost, atomic_bytes=(8 * strips.rows + 4 * strips.far) * D * 4 / strips.units, ring_bytes=ring)


def by_window(nvcc: str, disassembler: Path, place: Path) -> tuple[dict[str, Any], Cost, dict[str, Cost]]:
    """The forward by tensor cores: for N(0, 0.5) before offset_scale, and for other offsets.

    Counted in three compilations: turns that reach one pixel, two, and that gather. The warps of a block stage a turn each, and
    ask one another whether any of them can use the window: then they bring it, and ask no more. So each turn pays for staging
    and for its own way; a block, if one of its turns is near enough, for bringing once and for having asked once, else for
    asking in every turn. (That a block's first turns all gather and its later ones do not is left out: it would ask once more.)
    """
    source = kernel_sass.SOURCES / "dcnv3_cuda.cu"
    rows = compiled(nvcc, source, place)
    row = next(row for row in rows if kind(row) == ("forward_in_window at 2", "bfloat16", D))
    local = max(other["stack_bytes"] + other["spill_bytes"] for other in rows if "forward_in_window" in other["kernel"])
    warps = THREADS // 32
    units, turns = 16**2 / warps, 16**2 / THREADS  # of a warp
    ways, asked = [], []
    for reach, trips in ((1, [turns]), (2, [turns]), (3, [turns, 32 / TEAMS])):
        text = counted(nvcc, disassembler, source, place, reach)
        instructions, loops = instructions_of(text, row["symbol"])
        barrier = next(i for i, line in enumerate(instructions) if "BAR.SYNC" in line)
        around_it = [skip for skip in skips_of(text, row["symbol"]) if skip[0] <= barrier <= skip[1]]
        asking = min(around_it, key=lambda skip: skip[1] - skip[0])  # and, where any turn is near, bringing
        without, with_it = (cost_of(instructions, [*loops, asking], [*trips, share], units) for share in (0.0, 1.0))
        ways.append(without)
        asked.append(together((1.0, with_it), (-1.0, without)))
    costs = {}
    for name, offsets in {
        "before": "normal:0.5", "at_uniform_4": "uniform:4", "at_half": "normal:0.25", "at_quarter": "normal:0.125"
    }.items():  # fmt: skip
        shares = reaching(Offsets(offsets))
        none = shares[2] ** (turns * warps)  # of a block's turns is near
        costs[name] = together(*zip(shares, ways), ((1 - none) / turns, asked[1]), (none, asked[2]))
    found = {"registers": row["registers"], "shared_bytes": row["shared_bytes"], "local_bytes": local}
    return found, costs.pop("before"), costs


def together(*parts: tuple[float, Cost]) -> Cost:
    """Costs added up, each so many times."""
    return Cost(
        *(sum(times * number for (times, _), number in zip(parts, column)) for column in zip(*(astuple(c) for _, c in parts)))
    )


def kind(row: dict[str, Any]) -> tuple[str, str, int]:
    """Which kernel a row of ptxas's report is about."""
    return row["kernel"], row["dtype"], row["channels"]


def resources(report: str, symbol: str) -> dict[str, Any]:
    """Registers, shared and local bytes out of ptxas's report."""
    part = report.split(f"Compiling entry function '{symbol}'")[1]
    registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
    local = sum(int(size) for size in re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", part)[:3])
    assert registers is not None
    return {"registers": int(registers[1]), "shared_bytes": int(shared[1]) if shared else 0, "local_bytes": local}


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a tool; ends with what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done


if __name__ == "__main__":
    sys.exit(main())
