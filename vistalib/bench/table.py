"""The records of the benches as lines of text of at most 120 columns."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

CASE = ("name", "crop", "dtype", "offsets", "direction", "cache")


def table(record: dict[str, Any]) -> Iterator[str]:
    """A heading for each case with what it must cost, a line for each implementation, then the machine and who is absent."""
    width = max(len(_label(row)) for row in record["rows"])
    for _, group in groupby(record["rows"], key=lambda row: [row[name] for name in CASE]):
        rows = sorted(group, key=lambda row: float(row["time"]["median"]))
        case = rows[0]
        where = "  ".join(str(case[name]) for name in CASE if case[name] is not None)
        yield (
            f"{where}:  {case['bytes'] / 1e6:.1f} MB, {case['flops'] / 1e9:.2f} GFLOP, "
            f"floor {_ms(case['floor'])} ms ({case['bound']})"
        )
        for row in rows:
            time, ratio = row["time"], row["ratio"]
            yield (
                f"  {_label(row):{width}}  {_ms(time['median']):>8} ms  ({_ms(time['q1'])} to {_ms(time['q3'])}, "
                f"least {_ms(time['min'])})  {100 * row['of_floor']:5.1f}% of floor  "
                f"{ratio['median']:6.2f}x ({ratio['q1']:.2f} to {ratio['q3']:.2f})"
            )
    machine, facts = record["machine"], record["facts"]
    speeds = ", ".join(f"{speed / 1e9:.0f} GFLOP/s in {dtype}" for dtype, speed in machine["flops_per_second"].items())
    yield ""
    rounds = record["settings"]["repeats"]
    yield f"median (quartiles, least), rounds: {rounds}; x: how many times as fast as grid_sample, eager"
    name = f"{facts['cpu']}, threads: {facts['threads']}" if record["settings"]["device"] == "cpu" else facts["gpu"]
    yield f"{name}; copies {machine['bytes_per_second'] / 1e9:.1f} GB/s, {speeds}"
    for name, reason in record["left_out"].items():
        yield f"left out: {name}: {reason}"[:120]


def model_table(record: dict[str, Any]) -> Iterator[str]:
    """A heading for each model and direction, a line for each implementation, and where the time goes if that was asked."""
    for _, group in groupby(record["rows"], key=lambda row: [row[name] for name in ("model", "direction")]):
        rows = list(group)
        yield "  ".join(str(rows[0][name]) for name in ("model", "crop", "direction")) + f"  images: {rows[0]['images']}"
        for row in sorted(rows, key=lambda row: float(row["time"]["median"])):
            time, ratio, processor = row["time"], row["ratio"], row["processor_ratio"]
            memory = "" if row["peak_memory_mb"] is None else f"  {row['peak_memory_mb']:6.0f} MB"
            yield (
                f"  {row['implementation']:12}  {time['median']:7.3f} s  (least {time['min']:.3f}){memory}  "
                f"{ratio['median']:5.2f}x ({ratio['q1']:.2f} to {ratio['q3']:.2f})  "
                f"processor {row['processor_time']['median']:7.3f} s, {processor['median']:.2f}x"
            )
        yield from _parts({row["implementation"]: row["parts"] for row in rows if row["parts"]})
    facts, settings = record["facts"], record["settings"]
    yield ""
    yield f"median (least), rounds: {settings['repeats']}; x: how many times as fast as grid_sample (quartiles); peak memory"
    yield f"{facts['cpu'] if settings['device'] == 'cpu' else facts['gpu']}, threads: {facts['threads']}"


def data_table(record: dict[str, Any]) -> Iterator[str]:
    """A heading for each form of files, a line for each contestant, and the milliseconds of each stage, a column for each."""
    for form, group in groupby(record["rows"], key=lambda row: row["form"]):
        rows, inputs = list(group), record["inputs"][form]
        yield (
            f"{form}  {inputs['width']}x{inputs['height']}  image {inputs['image_bytes'] / 1e6:.2f} MB, "
            f"label {inputs['label_bytes'] / 1e6:.3f} MB"
        )
        for row in rows:
            speed, ratio = row["speed"], row["ratio"]
            yield (
                f"  {row['contestant']:16}  {speed['median']:7.1f} samples/s ({speed['q1']:.1f} to {speed['q3']:.1f})  "
                f"{ratio['median']:6.2f}x ({ratio['q1']:.2f} to {ratio['q3']:.2f})  limited by {row['limits']}"
            )
        yield "  ms of processor time".ljust(24) + "".join(f"{row['contestant']:>16}" for row in rows)
        for stage in rows[0]["stages"]:
            yield f"  {stage:22}" + "".join(f"{1e3 * row['stages'][stage]:16.2f}" for row in rows)
        yield f"  {'together':22}" + "".join(f"{1e3 * row['processor_seconds']:16.2f}" for row in rows)
    facts, settings = record["facts"], record["settings"]
    yield ""
    yield (
        f"median (quartiles), rounds: {settings['repeats']}, workers: {settings['workers']}; x: how many times as fast as "
        "released, round by round"
    )
    yield f"{facts['cpu']}"


def _parts(parts: dict[str, dict[str, float]]) -> Iterator[str]:
    """Processor seconds of each part, a column for each implementation."""
    if parts:
        yield "  " + " " * 26 + "".join(f"{name:>14}" for name in parts)
    for part in dict.fromkeys(part for each in parts.values() for part in each):
        cells = ((each.get(part, 0.0), sum(each.values())) for each in parts.values())
        yield f"  {part:26}" + "".join(f"{taken:7.2f} s {100 * taken / whole:3.0f}%" for taken, whole in cells)


def _label(row: dict[str, Any]) -> str:
    return row["implementation"] if row["mode"] == "eager" else f"{row['implementation']}, {row['mode']}"


def _ms(seconds: float) -> str:
    """Milliseconds with three digits."""
    value = 1e3 * seconds
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
