"""The record of a bench as lines of text of at most 120 columns."""

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


def _label(row: dict[str, Any]) -> str:
    return row["implementation"] if row["mode"] == "eager" else f"{row['implementation']}, {row['mode']}"


def _ms(seconds: float) -> str:
    """Milliseconds with three digits."""
    value = 1e3 * seconds
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
