"""Keep what was measured for the book: records, curves and a few small pictures go to `book/results`.

    python book/keep.py demo demo                 # one demo
    python book/keep.py seeds larger big0 big1    # what several demos that differ in their seed say, as the record `larger`
    python book/keep.py run camvid runs/mine      # one training, as the record `camvid`
    python book/keep.py model streets big0/runs/finetune  # its weights, as `streets`; of drawn streets alone

Of a demo: `demo.json` and, in `demo_parts`: `curves.json` (the log of every run), `example_<n>.jpg`, `example_<n>_<map>.png`
(truth and predictions as palette PNGs of training ids) and `sampling.npz`. Of several: their scores, by class too, the gains,
and the logs. Of a training: its recipe, machine, classes, evaluation and log, without the weights or any image. Of a model:
a folder as `vistalib.models.from_pretrained` opens it. Chapters and pages read them.
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

from vistalib.files import read_json, replacing, write_json
from vistalib.models import save_pretrained
from vistalib.recipes import open_model
from vistalib.train import load_checkpoint
from vistalib.viz.record import Demo, Record, read_demo, read_log

RESULTS = Path(__file__).resolve().parent / "results"
LARGEST = 10_000_000  # bytes of weights
LOGGED = ("kind", "iteration", "loss", "lr", "mean_iou")  # of a log's line


def main() -> int:
    """Read the folders and write what the book needs."""
    parser = argparse.ArgumentParser(description="Keep what was measured for the book.")
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    demo = kinds.add_parser("demo", help="one demo")
    demo.add_argument("folder", type=Path, help="the folder that `vistalib demo` wrote")
    demo.set_defaults(keep=lambda given: keep_demo(read_demo(given.folder)))
    seeds = kinds.add_parser("seeds", help="several demos that differ in their seed")
    seeds.add_argument("name", help="the record's name")
    seeds.add_argument("folders", type=Path, nargs="+", help="folders that `vistalib demo` wrote")
    seeds.set_defaults(keep=lambda given: keep_seeds(given.name, [read_demo(folder) for folder in given.folders]))
    trained = kinds.add_parser("run", help="one training")
    trained.add_argument("name", help="the record's name")
    trained.add_argument("folder", type=Path, help="the folder that `vistalib train` wrote")
    trained.set_defaults(keep=lambda given: keep_run(given.name, given.folder))
    model = kinds.add_parser("model", help="a small trained model, of drawn streets alone")
    model.add_argument("name", help="the folder's name")
    model.add_argument("folder", type=Path, help="the run's folder")
    model.set_defaults(keep=lambda given: keep_model(given.name, given.folder))
    arguments = parser.parse_args()
    try:
        arguments.keep(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def keep_run(name: str, folder: Path) -> None:
    """Write the record of one training."""
    about = load_checkpoint(folder).state["about"]
    record = {key: about[key] for key in ("facts", "recipe", "classes", "colors", "parameters", "started_from")}
    log = [
        {key: line[key] for key in (*LOGGED, "seconds", "memory_mb") if key in line} for line in read_log(folder / "log.jsonl")
    ]
    write_json(RESULTS / f"{name}.json", record | {"evaluation": read_json(folder / "evaluation.json"), "log": log})


def keep_model(name: str, folder: Path) -> None:
    """Write a run's weights with their card; `ValueError` for a file too large to be carried by every clone."""
    trained, evaluation = open_model(folder, device="cpu"), read_json(folder / "evaluation.json")
    size = sum(tensor.nbytes for tensor in trained.model.state_dict().values())
    if size > LARGEST:
        raise ValueError(f"a kept model must be below {LARGEST / 1e6:.0f} MB, got {size / 1e6:.1f} MB; keep a smaller one")
    save_pretrained(
        trained.model,
        RESULTS / name,
        classes=trained.classes,
        colors=trained.colors.tolist(),
        scale=trained.scale,
        licence="mit",
        datasets=("synthetic streets of vistalib",),
        measured={"synthetic Cityscapes val, single scale": evaluation["mean_iou"]},
    )


def keep_seeds(name: str, demos: Sequence[Demo]) -> None:
    """Write what the seeds say, and the log of every run."""
    curves = [curves_of(demo) for demo in demos]
    write_json(RESULTS / f"{name}.json", compare_seeds([demo.record for demo in demos]) | {"curves": curves})


def curves_of(demo: Demo) -> dict[str, list[dict[str, Any]]]:
    """The log of every run, without what depends on the machine."""
    return {name: [{key: line[key] for key in LOGGED if key in line} for line in log] for name, log in demo.logs.items()}


def keep_demo(demo: Demo) -> None:
    """Write the record, the curves and the pictures."""
    parts = RESULTS / "demo_parts"
    shutil.rmtree(parts, ignore_errors=True)
    write_json(RESULTS / "demo.json", demo.record)
    write_json(parts / "curves.json", curves_of(demo))
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
        | {"iou": {run["name"]: run["evaluations"][0]["iou"] for run in record["runs"]}}
        for record in records
    ]
    gains = [seed["finetune"] - max(seed["scratch"], seed["scratch_total"]) for seed in seeds]
    names = ("pretrain", "finetune", "scratch", "scratch_total")
    return {
        "facts": records[0]["facts"],
        "settings": {key: value for key, value in records[0]["settings"].items() if key != "seed"},
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
