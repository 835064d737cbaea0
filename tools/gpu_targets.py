"""What was aimed at, beside what the records of tools/gpu.py say; what no record says was not measured."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from gpu_part import FAST, PLAIN, Record

from vistalib.models.variants import BACKBONES

NOT_MEASURED = "not measured"
NEAR = "normal:0.5"
GATHER = 308e-6  # seconds that reading all corners of L's 37 forward calls takes the L1 caches of an H200, by arithmetic
Records = Mapping[str, Record]


class Target(NamedTuple):
    """An aim: which figure, in which unit, at most or at least how much, and how to find it in the records."""

    what: str
    unit: str
    at_most: bool
    wanted: float
    find: Callable[[Records], float | None]


def targets() -> list[Target]:
    """Every aim: what the kernels must be, then what whole models must; of speed, for each tier of ours."""
    kernels = [
        Target(f"{backend}: worst error / tolerance, {dtype}", "", True, 1.0, _error(backend, dtype))
        for backend in (PLAIN, FAST, "numba-cuda")
        for dtype in ("float64", "float32", "float16", "bfloat16")
    ]
    return [
        *kernels,
        *_operator(PLAIN, ""),
        *_operator(FAST, ", fast tier"),
        Target("UperNet-T: same labels, bf16 on the GPU and fp32 on a CPU", "of pixels", False, 0.995, _same_labels),
        *_models("ours", ""),
        *_models(FAST, ", fast tier"),
        Target("Photographs: validation mIoU, single scale", "", False, 0.65, _photographs),
        Target("Small checkpoint of drawn streets", "bytes", True, 10e6, _checkpoint),
        Target("UperNet-L: 500 images of 1024x2048 evaluated, extrapolated", "s", True, 120.0, _evaluation),
    ]


def _operator(ours: str, tier: str) -> Iterator[Target]:
    """How fast the operator must be, as it is called in the records and here."""
    faster = {
        ("forward", "DCNv3"): 6.0,
        ("backward", "DCNv3"): 8.0,
        ("forward", "DCNv4"): 1.5,
        ("backward", "DCNv4"): 2.0,
    }
    floors = {
        ("forward", "normal:0.5"): 0.6,
        ("backward", "normal:0.5"): 0.45,
        ("forward", "uniform:4"): 0.35,
        ("backward", "uniform:4"): 0.25,
    }
    for (way, other), wanted in faster.items():
        what = f"L stage 1, bf16: {way} against {other}{tier}"
        yield Target(what, "times as fast", False, wanted, _operator_against(ours, way, other))
    for (way, offsets), wanted in floors.items():
        what = f"L stage 1, bf16: {way}, offsets {offsets}{tier}"
        yield Target(what, "of the floor", False, wanted, _of_floor(ours, way, offsets))
    yield Target(f"L, bf16: its 37 forward calls as graphs{tier}", "s", True, 2 * GATHER, _all_calls(ours))


def _models(ours: str, tier: str) -> Iterator[Target]:
    """How fast steps must be."""
    yield Target(f"UperNet-L: a training step, batch 2{tier}", "s", True, 0.05, _step("upernet", ours))
    yield Target(f"SegFormer-L: a training step, batch 2{tier}", "s", True, 0.035, _step("segformer", ours))
    for other, name in (("DCNv3", "the released operator"), ("grid_sample", "grid_sample")):
        yield Target(f"UperNet-L: a step against {name}{tier}", "times as fast", False, 5.0, _faster_than(ours, other))


def judge(records: Records) -> list[Record]:
    """Each target: wanted, measured, their ratio, and whether it was met (None: not measured)."""
    rows = []
    for target in targets():
        found = target.find(records)
        met = None if found is None else found <= target.wanted if target.at_most else found >= target.wanted
        rows.append(
            {
                "what": target.what,
                "unit": target.unit,
                "wanted": target.wanted,
                "at_most": target.at_most,
                "measured": NOT_MEASURED if found is None else found,
                "ratio": None if found is None else found / target.wanted,
                "met": met,
            }
        )
    return rows


def table(rows: list[Record]) -> Iterator[str]:
    """A line for each target."""
    for row in rows:
        sign = "<=" if row["at_most"] else ">="
        measured = row["measured"] if row["met"] is None else f"{row['measured']:.4g}, {row['ratio']:.3g} of it"
        word = {True: "met", False: "missed", None: ""}[row["met"]]
        yield f"{row['what']:62} {sign} {row['wanted']:<8.6g} {row['unit']:14} {measured:24} {word}".rstrip()


def _error(backend: str, dtype: str) -> Callable[[Records], float | None]:
    def find(records: Records) -> float | None:
        for row in records.get("agree", {}).get("worst", []):
            if (row["backend"], row["dtype"]) == (backend, dtype) and not row["failed"]:
                return max(row["worst"].values()) / float(row["tolerance"])
        return None

    return find


def _calls(records: Records, workload: str, direction: str, **wanted: str) -> list[Record]:
    """Rows of the operator's bench in bfloat16 at 512x1024, cold caches unless `wanted` says otherwise."""
    match = {"name": workload, "crop": "512x1024", "dtype": "bfloat16", "direction": direction, "cache": "cold"} | wanted
    rows = records.get("bench-op", {}).get("bench", {}).get("rows", [])
    return [row for row in rows if all(row[key] == value for key, value in match.items())]


def _operator_against(ours: str, direction: str, other: str) -> Callable[[Records], float | None]:
    """How many times as fast as `other` ours is, each at its best, for offsets of N(0, 0.5)."""

    def best(records: Records, name: str) -> float | None:
        rows = _calls(records, "l1", direction, implementation=name, offsets=NEAR)
        return min((row["time"]["median"] for row in rows), default=None)

    def find(records: Records) -> float | None:
        mine, theirs = best(records, ours), best(records, other)
        return None if mine is None or theirs is None else theirs / mine

    return find


def _of_floor(ours: str, direction: str, offsets: str) -> Callable[[Records], float | None]:
    def find(records: Records) -> float | None:
        return max(
            (row["of_floor"] for row in _calls(records, "l1", direction, implementation=ours, offsets=offsets)), default=None
        )

    return find


def _all_calls(ours: str) -> Callable[[Records], float | None]:
    """The forward calls of all blocks of L, as CUDA graphs with warm caches."""

    def find(records: Records) -> float | None:
        total = 0.0
        for stage, depth in enumerate(BACKBONES["l"].depths, start=1):
            rows = _calls(records, f"l{stage}", "forward", implementation=ours, offsets=NEAR, cache="warm", mode="graph")
            if not rows:
                return None
            total += depth * min(row["time"]["median"] for row in rows)
        return total

    return find


def _same_labels(records: Records) -> float | None:
    """The least of those trained models that were compared."""
    runs = [records.get("train", {}), records.get("streets", {}).get("runs", {}).get("finetune", {})]
    shares = [run["labels"]["same_labels"] for run in runs if "same_labels" in run.get("labels", {})]
    return min(shares, default=None)


def _steps(records: Records, head: str, operator: str) -> list[float]:
    """Seconds of steps of L with two images, of every variant."""
    return [
        row["seconds"]["median"]
        for row in records.get("bench-model", {}).get("training", [])
        if (row["model"], row["operator"], row["batch"]) == (f"{head}_internimage_l", operator, 2) and "seconds" in row
    ]


def _step(head: str, operator: str) -> Callable[[Records], float | None]:
    """The best variant."""
    return lambda records: min(_steps(records, head, operator), default=None)


def _faster_than(ours: str, other: str) -> Callable[[Records], float | None]:
    def find(records: Records) -> float | None:
        mine, theirs = _step("upernet", ours)(records), _step("upernet", other)(records)
        return None if mine is None or theirs is None else theirs / mine

    return find


def _photographs(records: Records) -> float | None:
    found: float | None = records.get("train", {}).get("mean_iou")
    return found


def _checkpoint(records: Records) -> float | None:
    small = records.get("streets", {}).get("runs", {}).get("small finetune", {})
    found: float | None = small.get("checkpoint", {}).get("bytes")
    return found


def _evaluation(records: Records) -> float | None:
    rows = records.get("evaluate", {}).get("rows", [])
    times = [row["extrapolated_to_500"] for row in rows if row.get("mode") == "single scale"]
    return min(times, default=None)
