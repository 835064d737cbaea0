"""What the compiler made of the CUDA kernels, for every GPU generation, without any GPU.

    python tools/kernel_sass.py                       # writes book/results/kernel_sass.json; a few minutes on two cores

Registers, shared memory and spills are ptxas's own report. Instructions are counted, for sm_90, in the machine code of the
path that a full warp inside the image takes (compiled with DCNV3_COUNT: no loop and no other path is left in it), by nvdisasm
(python -m pip install nvidia-cuda-nvdisasm); without nvdisasm the record has none. The times are arithmetic, not measurements.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

from vistalib_kernels.build import ARCHITECTURES, SOURCES, find_nvcc  # noqa: E402

from vistalib.files import write_json  # noqa: E402

COUNTED = ("90",)  # the generation that the predictions are for
WITHOUT_LOOPS = ("forward", "backward")  # whose instructions can be counted; those of the two in tiles are in ladder.json
RECORD = ROOT / "book" / "results" / "kernel_sass.json"
SIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
TYPES = {"f": "float32", "d": "float64", "4HalfE": "float16", "8BFloat16E": "bfloat16"}

# An H200 at full clock: multiprocessors, clocks a second, bytes a second from device memory (copied) and from L2; and the calls
# of InternImage-L at a 512x1024 crop, two images: units of a stage (16 channels a group), and how many calls it makes.
H200 = {"multiprocessors": 132, "clock": 1.98e9, "memory": 4.3e12, "l2": 5.5e12}
STAGES = {"1": (655360, 5), "2": (327680, 5), "3": (163840, 22), "4": (81920, 5)}


def main() -> int:
    """Compile, read, write the record, and print a table."""
    parser = argparse.ArgumentParser(description="Read the CUDA kernels' machine code.")
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), help="compute capabilities, as 90")
    parser.add_argument("--no-counts", action="store_true", help="read ptxas's report only, in half the time")
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("there is no nvcc here: nothing to read", file=sys.stderr)
        return 1
    record = {
        "sources": digest(),
        "compiler": release(nvcc),
        "kernels": read(nvcc, options.architectures, not options.no_counts),
    }
    record |= {"count_note": COUNT_NOTE, "predicted_note": PREDICTED_NOTE, "predicted": predictions(record["kernels"])}
    write_json(options.out, record)
    for row in record["kernels"]:
        if row["architecture"] == "90" and row["channels"]:
            made = f"{row['kernel']} {row['dtype']} D{row['channels']}"
            print(
                f"{made:32}{row['registers']:5} registers{row['spill_bytes']:4} spilled{row.get('instructions', 0):6} counted"
            )
    bad = in_local_memory(record["kernels"])
    print(f"{len(record['kernels'])} kernels, {len(bad)} of the specialised ones use local memory; {options.out}")
    return 1 if bad else 0


def in_local_memory(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The specialised kernels among `rows` that spill registers, or keep anything else on a stack."""
    return [row for row in rows if row["channels"] and (row["spill_bytes"] or row["stack_bytes"])]


COUNT_NOTE = "warp instructions of a full warp inside the image, with the softmax, without NOPs; a warp has `units` units"
PREDICTED_NOTE = (
    "arithmetic, never measured: microseconds of an H200 at 1.98 GHz for one call of InternImage-L at stage 1 to 4 (two images "
    "of 512x1024); issue: instructions at four a clock and multiprocessor; gather: 36 corners through L1 at 128 bytes a clock; "
    "memory: every byte once at 4.3 TB/s; "
    "atomics: bytes added at 5.5 TB/s, the rate of L2 for reads, since that for additions is not "
    "known; predicted: the largest of them"
)


def digest() -> str:
    """A hash of the sources that the record speaks of."""
    return hashlib.sha256(
        b"".join(
            (SOURCES / name).read_bytes()
            for name in ("dcnv3.h", *sorted(path.name for path in SOURCES.glob("*.cuh")), "dcnv3_cuda.cu")
        )
    ).hexdigest()[:16]


def read(nvcc: str, architectures: Iterable[str], with_counts: bool) -> list[dict[str, Any]]:
    """One row a kernel and architecture."""
    with tempfile.TemporaryDirectory(prefix="vistalib-sass-") as name, ThreadPoolExecutor(2) as pool:
        jobs = [(architecture, counting) for architecture in architectures for counting in (False, True)]
        jobs = [
            (architecture, counting)
            for architecture, counting in jobs
            if not counting or (with_counts and architecture in COUNTED)
        ]
        done = list(pool.map(lambda job: compile_one(nvcc, *job, Path(name)), jobs))
    rows = [row for rows, _ in done for row in rows]
    counts = {key: count for _, found in done for key, count in found.items()}
    for row in rows:
        found = counts.get((row["architecture"], row["symbol"]))
        if found is not None and row["kernel"] in WITHOUT_LOOPS:
            row["units"] = 32 * 16 // (row["channels"] * SIZES[row["dtype"]])
            row["instructions"] = sum(found.values())
            row["most_common"] = dict(found.most_common(12))
        del row["symbol"]
    return rows


def compile_one(
    nvcc: str, architecture: str, counting: bool, place: Path
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], Counter[str]]]:
    """ptxas's report of the kernels as they are, or the instructions of those compiled for counting."""
    disassembler = find_nvdisasm()
    if counting and disassembler is None:
        return [], {}
    code = place / f"{architecture}-{counting}.cubin"
    command = [nvcc, "-std=c++17", "-O3", "-cubin", f"-arch=sm_{architecture}", "-Xptxas=-v", *(["-DDCNV3_COUNT"] * counting)]
    done = subprocess.run([*command, str(SOURCES / "dcnv3_cuda.cu"), "-o", str(code)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    if not counting:
        return list(resources(done.stderr, architecture)), {}
    text = subprocess.run([str(disassembler), str(code)], capture_output=True, text=True, check=True).stdout
    counts: dict[tuple[str, str], Counter[str]] = {}
    for line in text.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\S+?),", line):
            current = counts.setdefault((architecture, section[1]), Counter())
        elif (found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)", line)) and found[1] != "NOP":
            current[found[1]] += 1
    return [], counts


def resources(report: str, architecture: str) -> Iterable[dict[str, Any]]:
    """ptxas -v, a kernel at a time."""
    for part in report.split("Compiling entry function '")[1:]:
        symbol = part.partition("'")[0]
        stack, stores, loads = (
            int(number) for number in re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", part)[:3]
        )
        used = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        assert used is not None
        yield {
            "architecture": architecture,
            **kernel_of(symbol),
            "registers": int(used[1]),
            "shared_bytes": int(shared[1]) if shared else 0,
            "stack_bytes": stack,
            "spill_bytes": stores + loads,
            "symbol": symbol,
        }


def kernel_of(symbol: str) -> dict[str, Any]:
    """Kernel, dtype, channels a group (0: any) and type of the sums, from a mangled name."""
    found = re.match(r"_ZN5dcnv3(\d+)", symbol)
    assert found is not None, symbol
    begin = found.end()
    name, arguments = symbol[begin : begin + int(found[1])], symbol[begin + int(found[1]) :]
    parts = re.match(r"I(f|d|NS_\d+\w+?E)(?:Li(\d+)E|([fdy]))?E", arguments)
    assert parts is not None, symbol
    if name == "forward_in_window":  # made for 16 channels; its number is the offset_scale
        return {"kernel": f"{name} at {parts[2]}", "dtype": TYPES[parts[1].removeprefix("NS_")], "channels": 16, "sums": None}
    sums = {"y": "fixed point", "f": "float32", "d": "float64", None: None}[parts[3]]
    return {"kernel": name, "dtype": TYPES[parts[1].removeprefix("NS_")], "channels": int(parts[2] or 0), "sums": sums}


def predictions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Microseconds of the kernels for 16 channels on an H200, each with what limits it."""
    made = []
    for row in rows:
        if row["architecture"] != "90" or row["channels"] != 16 or "instructions" not in row:
            continue
        size, forward = SIZES[row["dtype"]], row["kernel"] == "forward"
        points = 9 * 3 * size  # bytes of offsets and masks
        once = (32 * size + points) if forward else (16 * size * 2 + 16 * 4 + 2 * points + (16 * (4 + size) if size < 4 else 0))
        for stage, (units, calls) in STAGES.items():
            clocks = units / (H200["multiprocessors"] * H200["clock"]) * 1e6  # microseconds a clock and unit
            limits = {
                "issue": clocks * row["instructions"] / row["units"] / 4,
                "gather": clocks * 36 * 16 * size / 128,
                "memory": units * once / H200["memory"] * 1e6,
            }
            if not forward:
                limits["atomics"] = units * 36 * 16 * 4 / H200["l2"] * 1e6
            limits = {name: round(time, 1) for name, time in limits.items()}
            by = max(limits, key=lambda name: limits[name])
            where = {"kernel": row["kernel"], "dtype": row["dtype"], "stage": stage, "calls": calls}
            made.append({**where, "microseconds": limits, "limit": by, "predicted": limits[by]})
    return made


def release(nvcc: str) -> str:
    """nvcc's version."""
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\S+), V(\S+)", said)
    return f"nvcc {found[2]}" if found else "nvcc"


def find_nvdisasm() -> Path | None:
    """nvdisasm beside nvcc or from its Python package."""
    nvcc = find_nvcc()
    places = [Path(nvcc).parent] if nvcc else []
    places += [Path(place) / "cu13" / "bin" for place in getattr(find_spec("nvidia"), "submodule_search_locations", None) or ()]
    return next((place / "nvdisasm" for place in places if (place / "nvdisasm").exists()), None)


if __name__ == "__main__":
    sys.exit(main())
