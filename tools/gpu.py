"""What only a machine with an NVIDIA GPU can show: built, tested, measured and trained, in parts of under ten minutes.

    python tools/gpu.py build --out records        # compile the CUDA extension
    python tools/gpu.py test --out records         # correctness, then compute-sanitizer where it works
    python tools/gpu.py agree --out records        # the worst errors against float64, of the operator and of a whole model
    python tools/gpu.py bench-op --out records     # the operator against everything that can be imported, and the roofline
    python tools/gpu.py counters --out records     # hardware counters of the kernels, where they can be read
    python tools/gpu.py bench-model --out records  # training steps of whole models: others', ours, and ours in variants
    python tools/gpu.py inference --out records    # whole images, one scale and six
    python tools/gpu.py evaluate --out records     # a whole evaluation, files included
    python tools/gpu.py train --out records --folder DIR  # a real training on photographs, in the folder layout
    python tools/gpu.py streets --out records      # drawn Vistas, then drawn Cityscapes; keeps a small checkpoint
    python tools/gpu.py all --out records          # one after the other
    python tools/gpu.py collect --out records      # targets beside results; copy the records into book/results/gpu

Several parts can be named at once. Each writes one small JSON file, and logs, into --out; it says what it left out and why, and
takes no more than --minutes. It needs Python 3.11+, torch with CUDA, NumPy, OpenCV, Pillow, PyYAML and safetensors, and no
network. `--dry-run` rehearses every part on a CPU at toy sizes. In the records `cuda` is the default tier of the kernels and
`cuda-fast` the one that VISTALIB_KERNELS_TIER=fast asks for: both are checked and timed, whatever that variable says. Where
half an hour is all there is, in calls of ten minutes:

    gpu.py build test agree --minutes 4
    gpu.py bench-op counters inference evaluate --minutes 2
    gpu.py bench-model --minutes 6.5
    gpu.py train --folder DIR --minutes 6.5
    gpu.py streets --minutes 4.5
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gpu_agree
import gpu_model
import torch
from gpu_counters import counters
from gpu_evaluate import evaluate
from gpu_part import FAST, PLAIN, ROOT, Budget, Options, Record, attempt, backend_of, command
from gpu_targets import judge, table
from gpu_train import SMALL, streets, train

from vistalib.bench import OperatorBench, OperatorSettings, operator_settings
from vistalib.files import read_json, write_json
from vistalib.ops import backend_status
from vistalib.ops.backends import build_kernels
from vistalib.provenance import provenance

CACHE = ROOT / "build" / "kernels for tests"  # the tests look there for the library, too
RESULTS = ROOT / "book" / "results" / "gpu"
LARGEST = 16 << 20  # bytes of a record or log that is kept
QUERY = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu"
GPU_TESTS = ("tests/test_ops_devices.py", "tests/test_ops_registration.py", "tests/test_gpu.py")
TOY_TESTS = ("tests/test_gpu.py",)
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default")
TARGETS = "targets.json"


def main() -> int:
    """Run the parts that were asked for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=(*PARTS, "all", "collect"), metavar="part")
    parser.add_argument("--out", type=Path, required=True, help="folder for records and logs")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on a CPU, to see that every part runs")
    parser.add_argument("--folder", type=Path, help="train: data in the folder layout (images/, labels/, classes.json)")
    parser.add_argument("--minutes", type=float, default=8.5, help="time for each part")
    given = parser.parse_args()
    os.environ.setdefault("VISTALIB_KERNELS_CACHE", str(CACHE))
    options = Options(given.out, given.dry_run, given.folder, given.minutes)
    names = [name for name in PARTS if name in given.parts or "all" in given.parts]
    if names and not options.dry_run and not torch.cuda.is_available():
        print("PyTorch finds no NVIDIA GPU here; --dry-run rehearses everything on a CPU", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    failures = [name for name in names if not perform(name, options)]
    if "collect" in given.parts:
        collect(options.out, RESULTS)
    if failures:
        print(f"failed: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


def perform(name: str, options: Options) -> bool:
    """Run one part and write its record; an error becomes part of the record, so that the other parts go on."""
    print(f"=== {name}", flush=True)
    began = time.perf_counter()
    record: Record = {"part": name, "dry_run": options.dry_run, "facts": provenance(), "before": machine()}

    def work() -> Record:
        result = PARTS[name](options)
        json.dumps(result, allow_nan=False)
        return result

    with backend_of(PLAIN):
        result = attempt(work, options.device)
    seconds = time.perf_counter() - began
    write_json(options.out / f"{name}.json", record | {"after": machine(), "seconds": seconds} | result)
    for word in ("skipped", "failed"):
        if word in result:
            print(f"{word}: {result[word]}", flush=True)
    print(f"=== {name}: {seconds:.0f} s", flush=True)
    return "failed" not in result


def machine() -> Record:
    """The GPU's name, driver, clocks and temperature now, as the driver tells them; read only."""
    if not torch.cuda.is_available():
        return {}
    facts = torch.cuda.get_device_properties(0)
    told = {"multiprocessors": facts.multi_processor_count, "memory_bytes": facts.total_memory}
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return told
    return told | (dict(zip(QUERY.split(","), (word.strip() for word in answer[0].split(",")))) if answer else {})


def build(options: Options) -> Record:
    """Compile the CUDA extension and its C++ twin."""
    lines: list[str] = []
    built = build_kernels(say=lines.append)  # in a rehearsal the C++ twin alone
    return {"built": dataclasses.asdict(built), "said": lines, "backends": backends()}


def backends() -> list[Record]:
    """`backend_status`, for the record."""
    return [dataclasses.asdict(row) for row in backend_status()]


def test(options: Options) -> Record:
    """The operator's tests on the GPU, then some of them under compute-sanitizer, if it works here."""
    budget, tests = options.budget(), TOY_TESTS if options.dry_run else GPU_TESTS
    arguments = [sys.executable, *PYTEST, "-m", "not slow", *tests]
    outcome = command(arguments, options.out / "test.log", limit=budget.left)
    result = {"tests": outcome, "sanitizer": sanitize(options, budget), "backends": backends()}
    return result | ({"failed": f"the tests, see test.log: {outcome['last']}"} if outcome["status"] else {})


def sanitize(options: Options, budget: Budget) -> Record:
    """What compute-sanitizer says of a few tests; it is tried on one small allocation first, since many machines refuse it."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or options.dry_run:
        return {"skipped": "compute-sanitizer is not on the PATH" if tool is None else "a rehearsal has no GPU"}
    tiny = [sys.executable, "-c", "import torch; torch.ones(8, device='cuda').sum().item()"]
    probe = command([tool, "--error-exitcode", "9", *tiny], options.out / "sanitizer.log", limit=budget.left)
    if probe["status"]:
        return {"skipped": f"it does not work on this machine: {probe['last']}"}
    found: Record = {}
    pytest = [sys.executable, *PYTEST, "tests/test_gpu.py", "-k", "tiny"]
    for check in ("memcheck", "racecheck"):
        arguments = [tool, "--tool", check, "--error-exitcode", "9", *pytest]
        found[check] = command(arguments, options.out / f"{check}.log", limit=budget.left / 2)
    return found


def agree(options: Options) -> Record:
    """The worst error of every backend on this device, dtype and gradient, over the shapes of the models; logits of T."""
    device = options.device
    works = gpu_agree.TOY if options.dry_run else gpu_agree.FULL
    backends = operator_settings({}, device=device.type).backends
    rows = list(gpu_agree.operator_rows(works, (*backends, *[FAST] * (PLAIN in backends)), device))
    model, size = ("upernet_internimage_nano", (64, 64)) if options.dry_run else ("upernet_internimage_t", (512, 1024))
    worst = gpu_agree.worst(rows)
    for row in worst:
        print(f"{row['backend']:12} {row['dtype']:9} {row['worst']} (tolerance {row['tolerance']:.1g})", flush=True)
    record: Record = {"worst": worst, "rows": rows, "models": gpu_agree.model_distances(model, size, device)}
    wrong = [f"{row['backend']} in {row['dtype']}" for row in worst if not row["agrees"]]
    return record | ({"failed": f"beyond the tolerance: {', '.join(wrong)}"} if wrong else {})


def bench_op(options: Options) -> Record:
    """The operator against every implementation that can be imported, and its fast tier, with tensor cores and without; fewer
    repeats where all would take too long.
    """
    given: Record = {
        "models": ("t", "l"),
        "crops": ("512x1024",),
        "modes": ("eager", "graph"),
        "dtypes": ("float32", "bfloat16"),
        "offsets": ("normal:0.25", "normal:0.5", "uniform:4"),  # before L's offset_scale of 2
    }
    if options.dry_run:
        given = {"shape": "1x8x16x32", "groups": 2, "offsets": ("normal:0.5",), "repeats": 1}

    def prepared(settings: OperatorSettings) -> OperatorBench:
        bench = OperatorBench(settings)
        if not options.dry_run:
            from gpu_op import fast, listed

            bench.contestants |= {(one.name, mode): one for one in (fast(), listed()) for mode in settings.modes}
        return bench

    budget, bench = options.budget(), prepared(operator_settings(given, device=options.device.type))
    expected = bench.estimate()
    if expected > budget.left:
        repeats = max(3, int(bench.settings.repeats * budget.left / expected))
        bench = prepared(dataclasses.replace(bench.settings, repeats=repeats))
    return {"expected_seconds": expected, "bench": bench.run()}


def bench_model(options: Options) -> Record:
    """Training steps of whole models."""
    bench = gpu_model.Bench(options.device, gpu_model.TOY if options.dry_run else gpu_model.FULL)
    budget = options.budget()
    return {"multiply_peak_flops_per_second": bench.peak} | gather(options, "training", bench.training(budget), budget)


def inference(options: Options) -> Record:
    """Whole images through whole models."""
    bench = gpu_model.Bench(options.device, gpu_model.TOY if options.dry_run else gpu_model.FULL)
    return gather(options, "inference", bench.inference(), options.budget())


def gather(options: Options, kind: str, rows: Iterator[Record], budget: Budget) -> Record:
    """All rows for which there is time; those so far are written after each, in case the machine is taken away."""
    found: list[Record] = []
    for row in rows:
        found.append(row)
        write_json(options.out / f"{kind}.so-far.json", {"dry_run": options.dry_run, kind: found})
        taken = f"{1e3 * row['seconds']['median']:.1f} ms" if "seconds" in row else row["failed"]
        which = row.get("variant") or f"{len(row['scales'])} scales"
        print(f"{row['model']} {row['operator']} {which} {taken}", flush=True)
        if budget.left < 0:
            return {kind: found, "skipped": "what comes after the last row: time ran out"}
    return {kind: found}


def collect(out: Path, results: Path) -> None:
    """Say what was reached, and copy records, logs and the small checkpoint to `results`; rehearsals are no results."""
    records = {name: read_json(out / f"{name}.json") for name in PARTS if (out / f"{name}.json").exists()}
    records = {name: record for name, record in records.items() if not record["dry_run"]}
    rows = judge(records)
    print(*table(rows), sep="\n")
    write_json(out / TARGETS, {"dry_run": not records, "facts": provenance(), "targets": rows})
    kept = 0
    for path in sorted([*out.glob("*.json"), *out.glob("*.log"), *out.glob("*.jsonl"), *out.glob(f"{SMALL}/*")]):
        rehearsed = path.suffix == ".json" and '"dry_run": true' in path.read_text(encoding="utf-8")
        if not records or rehearsed or path.stat().st_size > LARGEST:
            print(f"left out: {path.name}")
            continue
        target = results / path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        kept += 1
    print(f"{kept} files in {results}")


PARTS: dict[str, Callable[[Options], Record]] = {
    "build": build,
    "test": test,
    "agree": agree,
    "bench-op": bench_op,
    "counters": counters,
    "bench-model": bench_model,
    "inference": inference,
    "evaluate": evaluate,
    "train": train,
    "streets": streets,
}

if __name__ == "__main__":
    sys.exit(main())
