"""Keep a demo for the book: its record, its curves and a few small pictures go to `book/results`.

    python book/keep.py demo                # one run
    python book/keep.py demo0 demo1 demo2   # the first as the record, all of them for what other seeds say

Writes `demo.json` and, in `demo_parts`: `curves.json` (the log of every run), `example_<n>.jpg`, `example_<n>_<map>.png`
(truth and predictions as palette PNGs of training ids) and `sampling.npz`; of several demos also `demo_seeds.json`. Chapters
and pages read them from there.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistalib.files import replacing, write_json
from vistalib.viz.record import Demo, Record, read_demo

RESULTS = Path(__file__).resolve().parent / "results"
LOGGED = ("kind", "iteration", "loss", "lr", "mean_iou")  # of a log's line


def main() -> int:
    """Read the demo's folder and write what the book needs."""
    parser = argparse.ArgumentParser(description="Keep a demo for the book.")
    parser.add_argument("folder", type=Path, help="the folder that `vistalib demo` wrote")
    parser.add_argument("seeds", type=Path, nargs="*", help="folders of the same demo with other seeds")
    arguments = parser.parse_args()
    try:
        demos = [read_demo(folder) for folder in (arguments.folder, *arguments.seeds)]
        seeds = compare_seeds([demo.record for demo in demos])
        keep(demos[0])
        if len(demos) > 1:
            write_json(RESULTS / "demo_seeds.json", seeds)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def keep(demo: Demo) -> None:
    """Write the record, the curves and the pictures."""
    parts = RESULTS / "demo_parts"
    shutil.rmtree(parts, ignore_errors=True)
    write_json(RESULTS / "demo.json", demo.record)
    curves = {name: [{key: line[key] for key in LOGGED if key in line} for line in log] for name, log in demo.logs.items()}
    write_json(parts / "curves.json", curves)
    for number, image in enumerate(demo.examples["image"]):
        with replacing(parts / f"example_{number}.jpg") as path:
            Image.fromarray(image).save(path, quality=88, optimize=True)
        for name in demo.examples.keys() - {"image"}:
            save_labels(demo.examples[name][number], demo.colors, parts / f"example_{number}_{name}.png")
    if demo.sampling is not None:
        with replacing(parts / "sampling.npz") as path:
            np.savez_compressed(path, **{name: smaller(array) for name, array in demo.sampling.items()})


def compare_seeds(records: Sequence[Record]) -> dict[str, Any]:
    """Every seed's scores, the gain of pretraining in each, and the spread (largest minus smallest); single scale first."""
    kinds = {json.dumps([record["facts"]["commit"], record["settings"] | {"seed": None}]) for record in records}
    if len(kinds) > 1:
        raise ValueError(f"the demos must be of one commit with equal settings but for the seed, got {' and '.join(kinds)}")
    if len({record["settings"]["seed"] for record in records}) < len(records):
        raise ValueError("every demo must have a seed of its own, got one twice; run `vistalib demo --seed` with another")
    seeds = [
        {"seed": record["settings"]["seed"]}
        | {run["name"]: run["evaluations"][0]["mean_iou"] for run in record["runs"]}
        | {"multi_scale": {run["name"]: run["evaluations"][-1]["mean_iou"] for run in record["runs"] if run["evaluations"][1:]}}
        for record in records
    ]
    gains = [seed["finetune"] - max(seed["scratch"], seed["scratch_total"]) for seed in seeds]
    names = ("pretrain", "finetune", "scratch", "scratch_total")
    return {
        "facts": records[0]["facts"],
        "seeds": seeds,
        "mean": {name: sum(seed[name] for seed in seeds) / len(seeds) for name in names},
        "spread": {name: max(seed[name] for seed in seeds) - min(seed[name] for seed in seeds) for name in names},
        "gains": gains,
        "mean_gain": sum(gains) / len(gains),
    }


def save_labels(label: NDArray[np.uint8], colors: NDArray[np.uint8], path: Path) -> None:
    """Write a label map (H, W) as a palette PNG; the ignored 255 is black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    picture = Image.fromarray(label.astype(np.uint8), "P")
    picture.putpalette(palette.tobytes())
    with replacing(path) as beside:
        picture.save(beside, optimize=True)


def smaller(array: NDArray[Any]) -> NDArray[Any]:
    """Half the bytes for positions and weights, which are drawn and nothing else."""
    return array.astype(np.float16) if array.dtype == np.float32 and array.max() < 2048 else array


if __name__ == "__main__":
    sys.exit(main())
