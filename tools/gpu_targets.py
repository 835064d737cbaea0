"""What was aimed at, beside what the records of tools/gpu.py say; what no record says was not measured."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from gpu_part import Record

NOT_MEASURED = "not measured"
Records = Mapping[str, Record]


class Target(NamedTuple):
    """An aim: which figure, in which unit, at most or at least how much, and how to find it in the records."""

    what: str
    unit: str
    at_most: bool
    wanted: float
    find: Callable[[Records], float | None]


def targets() -> list[Target]:
    """Every aim of the GPU proof."""
    kernels = [
        Target(f"{backend}: worst error / tolerance, {dtype}", "", True, 1.0, _error(backend, dtype))
        for backend in ("cuda", "numba-cuda")
        for dtype in ("float64", "float32", "float16", "bfloat16")
    ]
    return [
        *kernels,
        Target("UperNet-T: same labels, bf16 on the GPU and fp32 on a CPU", "of pixels", False, 0.995, _same_labels),
        Target("UperNet-L: a training step, batch 2", "s", True, 0.05, lambda records: _step(records, "upernet")),
        Target("SegFormer-L: a training step, batch 2", "s", True, 0.035, lambda records: _step(records, "segformer")),
        Target("UperNet-L: a step against the released operator", "times as fast", False, 5.0, _faster_than("DCNv3")),
        Target("UperNet-L: a step against grid_sample", "times as fast", False, 5.0, _faster_than("grid_sample")),
        Target("Photographs: validation mIoU, single scale", "", False, 0.65, _photographs),
        Target("Small checkpoint of drawn streets", "bytes", True, 10e6, _checkpoint),
        Target("UperNet-L: 500 images of 1024x2048 evaluated, extrapolated", "s", True, 120.0, _evaluation),
    ]


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


def _step(records: Records, head: str) -> float | None:
    """The best variant of ours."""
    return min(_steps(records, head, "ours"), default=None)


def _faster_than(operator: str) -> Callable[[Records], float | None]:
    def find(records: Records) -> float | None:
        ours, theirs = _step(records, "upernet"), min(_steps(records, "upernet", operator), default=None)
        return None if ours is None or theirs is None else theirs / ours

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
