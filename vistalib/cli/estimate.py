"""`vistalib train ... --estimate`: what is foretold, as a table."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.recipes.estimate import Estimate, Range


def print_estimate(found: "Estimate") -> None:
    """What the run will take, what that was made of, and what will not do."""
    left = found.iterations - found.done
    steps, images = len(found.step_seconds), len(found.image_seconds)
    hours = tuple(a + b for a, b in zip(found.training_hours, found.evaluation_hours, strict=True))
    step = sum(found.step_seconds) / steps
    memory = "not known" if found.memory_bytes is None else _bytes(found.memory_bytes)
    of = "" if found.memory_there is None else f"of {_bytes(found.memory_there)} on {found.device}"
    ranks = f", in each of {found.ranks} processes" if found.ranks > 1 else ""
    rows = [
        ("training", _hours(found.training_hours), f"{left:,} steps of {step:.3g} s, {found.data_seconds:.2g} s for data"),
        (
            "evaluation",
            _hours(found.evaluation_hours),
            f"{found.evaluations} x {found.images:,} images of {sum(found.image_seconds) / images:.3g} s",
        ),
        ("together", _hours((hours[0], hours[1], hours[2])), f"from {steps} measured steps and {images} images"),
        ("memory at most", memory, f"{of}{ranks}; workers have their own"),
        (
            "disk at most",
            _bytes(found.disk_at_most),
            f"{found.checkpoints_at_most} checkpoints of {_bytes(found.checkpoint_bytes)}; {_bytes(found.free_bytes)} are free",
        ),
        ("disk in the end", _bytes(found.disk_left), f"up to {found.checkpoints_left} checkpoints, the log and the scores"),
    ]
    print(f"\n{found.recipe}" + (f", from iteration {found.done}" if found.done else ""))
    for name, value, why in rows:
        print(f"{name:16} {value:>28}   {why}")
    for warning in found.warnings():
        print(f"warning: {warning}")


def _hours(span: "Range") -> str:
    """The mean and, in brackets, what the fastest and the slowest tenth would make of it."""
    unit, one = ("h", 1.0) if span[1] >= 1 else ("min", 60.0)
    low, mean, high = (f"{one * hours:.1f}" for hours in span)
    return f"{mean} {unit} ({low} to {high})"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
