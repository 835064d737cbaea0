"""What only a machine with an NVIDIA GPU can show: built, tested, measured and trained, in parts of under ten minutes.

    python tools/gpu.py build --out records        # compile the CUDA extension
    python tools/gpu.py test --out records         # correctness, then compute-sanitizer where it works
    python tools/gpu.py bench-op --out records     # the operator against everything that can be imported
    python tools/gpu.py bench-model --out records  # training steps and inference of whole models
    python tools/gpu.py train --out records        # a small real training: --folder with one's own data, else synthetic streets
    python tools/gpu.py all --out records          # one after the other
    python tools/gpu.py collect --out records      # copy the records into book/results/gpu

Each part writes one small JSON file, and logs, into --out; it says what it left out and why. It needs Python 3.11+, torch with
CUDA, NumPy, OpenCV and safetensors, and no network. `--dry-run` rehearses every part on a CPU at toy sizes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from gpu_model import FULL, TOY, inference, training

from vistalib.data import AugmentationSettings, synthesize
from vistalib.files import write_json
from vistalib.ops import backend_status
from vistalib.ops.backends import build_kernels
from vistalib.provenance import provenance
from vistalib.recipes import Recipe, Roots, get_recipe, run

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "kernels for tests"  # the tests look there for the library, too
RESULTS = ROOT / "book" / "results" / "gpu"
LARGEST = 16 << 20  # bytes of a record or log that is kept
LIMIT = 540  # seconds for one subprocess; a part may have two
QUERY = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu"
GPU_TESTS = ("tests/test_ops_devices.py", "tests/test_ops_registration.py", "tests/test_gpu.py")
TOY_TESTS = ("tests/test_gpu.py",)
TRAINED = "upernet_internimage_t_512x1024_160k_cityscapes"
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line."""

    out: Path
    dry_run: bool
    folder: Path | None
    iterations: int

    @property
    def device(self) -> torch.device:
        """Where it is measured."""
        return torch.device("cpu" if self.dry_run else "cuda")


def main() -> int:
    """Run the parts that were asked for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "all", "collect"))
    parser.add_argument("--out", type=Path, required=True, help="folder for records and logs")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on a CPU, to see that every part runs")
    parser.add_argument("--folder", type=Path, help="train: data in the folder layout (images/, labels/, classes.json)")
    parser.add_argument("--iterations", type=int, default=1500, help="train: steps of the small real training")
    given = parser.parse_args()
    os.environ.setdefault("VISTALIB_KERNELS_CACHE", str(CACHE))
    options = Options(given.out, given.dry_run, given.folder, given.iterations)
    if given.part == "collect":
        collect(options.out)
        return 0
    if not options.dry_run and not torch.cuda.is_available():
        print("PyTorch finds no NVIDIA GPU here; --dry-run rehearses everything on a CPU", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    failures = [name for name in (PARTS if given.part == "all" else (given.part,)) if not perform(name, options)]
    if failures:
        print(f"failed: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


def perform(name: str, options: Options) -> bool:
    """Run one part and write its record; an error becomes part of the record, so that the other parts go on."""
    print(f"=== {name}", flush=True)
    began = time.perf_counter()
    before = machine()
    try:
        result = PARTS[name](options)
    except Exception as error:
        result = {"failed": f"{type(error).__name__}: {error}"}
    seconds = time.perf_counter() - began
    record = {"part": name, "dry_run": options.dry_run, "facts": provenance(), "before": before, "after": machine()}
    write_json(options.out / f"{name}.json", record | {"seconds": seconds} | result)
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
    tests = TOY_TESTS if options.dry_run else GPU_TESTS
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "-m", "not slow"]
    outcome = command([sys.executable, *arguments, *tests], options.out / "test.log")
    result = {"tests": outcome, "sanitizer": sanitize(options), "backends": backends()}
    return result | ({"failed": f"the tests, see test.log: {outcome['last']}"} if outcome["status"] else {})


def sanitize(options: Options) -> Record:
    """What compute-sanitizer says of a few tests; it is tried on one small allocation first, since many machines refuse it."""
    tool = shutil.which("compute-sanitizer")
    if tool is None or options.dry_run:
        return {"skipped": "compute-sanitizer is not on the PATH" if tool is None else "a rehearsal has no GPU"}
    tiny = [sys.executable, "-c", "import torch; torch.ones(8, device='cuda').sum().item()"]
    probe = command([tool, "--error-exitcode", "9", *tiny], options.out / "sanitizer.log", limit=120)
    if probe["status"]:
        return {"skipped": f"it does not work on this machine: {probe['last']}"}
    found: Record = {}
    for check in ("memcheck", "racecheck"):
        pytest = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "default",
            "tests/test_gpu.py",
            "-k",
            "tiny",
        ]
        arguments = [tool, "--tool", check, "--error-exitcode", "9", *pytest]
        found[check] = command(arguments, options.out / f"{check}.log", limit=200)
    return found


def command(arguments: list[str], log: Path, *, limit: float = LIMIT) -> Record:
    """Run a program in the checkout, its output in `log`; exit status, seconds and last line."""
    began = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "PYTHONUNBUFFERED": "1"}
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                arguments, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment, timeout=limit, check=False
            )
            status = done.returncode
        except subprocess.TimeoutExpired:
            status = 124
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return {"status": status, "seconds": time.perf_counter() - began, "last": lines[-1] if lines else ""}


def bench_op(options: Options) -> Record:
    """The operator against every implementation that can be imported, and against its own backward without tiles; fewer repeats
    where all would take too long.
    """
    from vistalib.bench import OperatorBench, OperatorSettings, operator_settings

    given: Record = {
        "models": ("t", "l"),
        "crops": ("512x1024",),
        "modes": ("eager", "graph"),
        "dtypes": ("float32", "bfloat16"),
    }
    if options.dry_run:
        given = {"shape": "1x8x16x32", "groups": 2, "offsets": ("normal:0.5",), "repeats": 1}

    def prepared(settings: OperatorSettings) -> OperatorBench:
        bench = OperatorBench(settings)
        if not options.dry_run:
            from gpu_op import untiled

            bench.contestants |= {("cuda-untiled", mode): untiled() for mode in settings.modes}
        return bench

    bench = prepared(operator_settings(given, device=options.device.type))
    expected = bench.estimate()
    if expected > LIMIT:
        repeats = max(3, int(bench.settings.repeats * LIMIT / expected))
        bench = prepared(dataclasses.replace(bench.settings, repeats=repeats))
    return {"bench": bench.run()}


def bench_model(options: Options) -> Record:
    """Training steps, then inference; the record so far is written after each row, since time may run out."""
    sizes = TOY if options.dry_run else FULL
    record: Record = {"training": [], "inference": []}
    for kind, rows in (("training", training), ("inference", inference)):
        began = time.perf_counter()
        for row in rows(options.device, sizes):
            record[kind].append(row)
            write_json(options.out / "bench-model.so-far.json", record)
            taken = f"{1e3 * row['seconds']['median']:.1f} ms" if "seconds" in row else row["failed"]
            print(f"{kind}: {row['model']} {row['operator']} {taken}", flush=True)
            if time.perf_counter() - began > LIMIT / 2:
                record.setdefault("skipped", []).append(f"{kind} after {row['model']} by {row['operator']}: time ran out")
                break
    return record


def train(options: Options) -> Record:
    """A small real training, scored on the validation split: InternImage-T on one's own folder, or on drawn streets."""
    if options.folder is not None:
        recipe, roots = get_recipe("upernet_internimage_nano_192x256_3k_folder"), Roots(folder=options.folder)
    else:
        recipe = get_recipe(TRAINED)
        counts = {"train": 4, "val": 2} if options.dry_run else {"train": 160, "val": 32}
        size = (64, 128) if options.dry_run else (512, 1024)
        streets = options.out / "streets"
        if not streets.exists():
            synthesize(streets, "cityscapes", num_images=counts, size=size)
        roots = Roots(cityscapes=streets)
    recipe = toy(recipe) if options.dry_run else shortened(recipe, options.iterations, real=options.folder is not None)
    began = time.perf_counter()
    workers = 0 if options.dry_run else min(8, os.cpu_count() or 1)
    folder = options.out / "runs" / recipe.name
    result = run(recipe, roots, folder=folder, device=options.device.type, num_workers=workers, in_memory=True)
    shutil.copyfile(folder / "log.jsonl", options.out / "train.log.jsonl")
    return {
        "recipe": recipe.to_json(),
        "seconds_of_training": time.perf_counter() - began,
        "evaluation": result.evaluation.to_json(),
    }


def shortened(recipe: Recipe, iterations: int, *, real: bool) -> Recipe:
    """The recipe at a length and a rate that a single GPU has time for, in bf16."""
    settings = dataclasses.replace(
        recipe.settings,
        iterations=iterations,
        warmup_iters=iterations // 10,
        learning_rate=2e-4,  # from random weights; the released 6e-5 starts from pretrained ones
        precision="bf16",
        log_every=20,
        checkpoint_every=iterations,
        evaluate_every=max(1, iterations // 3),
    )
    model = "upernet_internimage_t" if real else recipe.model
    return dataclasses.replace(recipe, model=model, settings=settings, batch_size=8)


def toy(recipe: Recipe) -> Recipe:
    """The recipe for a rehearsal: a tiny model, two steps."""
    settings = dataclasses.replace(
        recipe.settings, iterations=2, warmup_iters=1, log_every=1, checkpoint_every=2, evaluate_every=2
    )
    crops = AugmentationSettings(scale=(128, 64), crop=(64, 64))
    return dataclasses.replace(
        recipe,
        model="upernet_internimage_nano",
        settings=settings,
        augmentation=crops,
        batch_size=2,
        evaluation_scale=(128, 64),
    )


def collect(out: Path) -> None:
    """Copy records and logs that are small enough into book/results/gpu; rehearsals are no results."""
    kept = 0
    for path in sorted([*out.glob("*.json"), *out.glob("*.log"), *out.glob("*.jsonl")]):
        if path.stat().st_size > LARGEST or '"dry_run": true' in path.read_text(encoding="utf-8", errors="replace"):
            print(f"left out: {path.name}")
            continue
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, RESULTS / path.name)
        kept += 1
    print(f"{kept} files in {RESULTS.relative_to(ROOT)}")


PARTS: dict[str, Callable[[Options], Record]] = {
    "build": build,
    "test": test,
    "bench-op": bench_op,
    "bench-model": bench_model,
    "train": train,
}

if __name__ == "__main__":
    sys.exit(main())
