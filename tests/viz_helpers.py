"""A demo's folder of the smallest size, with names that would break a page that does not escape them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("road", "<b>car</b> & co", "pole", "train", "sky")  # train: nowhere; pole: in the truth, never predicted
COLORS = np.array([[128, 64, 128], [0, 0, 142], [153, 153, 153], [0, 80, 100], [70, 130, 180]], np.uint8)
CONFUSION = np.array([[90, 8, 0, 0, 2], [10, 30, 0, 0, 0], [5, 4, 0, 0, 0], [0, 0, 0, 0, 0], [3, 0, 0, 0, 61]])


def evaluation(confusion: np.ndarray = CONFUSION, mode: str = "single scale") -> dict[str, Any]:
    """What `Evaluation.to_json()` would say of a confusion matrix."""
    hits, truth = confusion.diagonal(), confusion.sum(1)
    union = truth + confusion.sum(0) - hits
    iou = {name: float(h / u) if u else None for name, h, u in zip(CLASSES, hits, union, strict=True)}
    accuracy = {name: float(h / t) if t else None for name, h, t in zip(CLASSES, hits, truth, strict=True)}
    return {
        "mode": mode,
        "mean_iou": float(np.mean([value for value in iou.values() if value is not None])),
        "pixel_accuracy": float(hits.sum() / confusion.sum()),
        "mean_accuracy": float(np.mean([value for value in accuracy.values() if value is not None])),
        "iou": iou,
        "accuracy": accuracy,
        "confusion": confusion.tolist(),
        "images": 2,
        "seconds": 0.5,
    }


def log(iterations: int, *, evaluations: int = 0) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    step = iterations // max(evaluations, 1)
    return [
        *(
            {"kind": "train", "iteration": i, "lr": 1e-3 * (1 - i / iterations), "loss": 3.0 / i}
            for i in range(1, iterations + 1)
        ),
        *({"kind": "evaluation", "iteration": i * step, "mean_iou": 0.1 * i} for i in range(1, evaluations + 1)),
    ]


def sampling(points: int = 9) -> dict[str, np.ndarray]:
    """Two pixels and their sampling points at two levels."""
    rng = np.random.default_rng(0)
    arrays = {"image": rng.integers(0, 255, (24, 48, 3), np.uint8), "query": np.array([[10.0, 12.0], [30.0, 5.0]])}
    for level, spread in (("stage_1", 3.0), ("stage_2", 9.0)):
        arrays[f"location_{level}"] = arrays["query"][:, None] + rng.normal(0, spread, (2, points, 2))
        arrays[f"weight_{level}"] = rng.random((2, points))
    return arrays


def write_demo(folder: Path) -> dict[str, Any]:
    """Write the folder and return its record."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, (2, 24, 48), np.uint8)
    label[:, :2] = 255
    worse, better = CONFUSION + np.diag([0, 0, 0, 0, -40]), CONFUSION + np.diag([0, 20, 0, 0, 0])
    runs: list[dict[str, Any]] = []
    for name, title, found in (
        ("pretrain", "Pretrained", [evaluation()]),
        (
            "finetune",
            "Finetuned <i>",
            [evaluation(better), evaluation(better + np.diag([7, 0, 0, 0, 0]), "multi-scale + flip")],
        ),
        ("scratch", "From scratch", [evaluation(worse)]),
        ("scratch_total", "From scratch, total", [evaluation()]),
    ):
        dataset = "vistas" if name == "pretrain" else "cityscapes"
        run = {"name": name, "title": title, "dataset": dataset, "seed": 7, "iterations": 6, "folder": f"runs/{name}"}
        runs.append({**run, "seconds": 12.34, "evaluations": found})
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log(6, evaluations=2)))
    record = {
        "facts": {
            "vistalib": "0.1.0",
            "commit": "abc123def456",
            "when": "2030-01-02T03:04:05",
            "gpu": None,
            "versions": {"torch": "9.8"},
        },
        "settings": {"model": "nano<script>", "crop": [24, 48]},
        "classes": list(CLASSES),
        "colors": COLORS.tolist(),
        "runs": runs,
        "stages": [{"name": "pretrain", "seconds": 41.27}, {"name": "evaluate", "seconds": 3.91}],
        "seconds": 45.18,
        "resumed": False,
        "peak_memory_mb": 987.6,
        "scripts_check": {"ours": 0.543, "cityscapesscripts": 0.543, "agree": True},
        "commands": ["vistalib train <recipe> && echo done"],
    }
    (folder / "demo.json").write_text(json.dumps(record))
    predictions = {f"prediction_{run}": rng.integers(0, 5, label.shape, np.uint8) for run in ("finetune", "scratch")}
    np.savez(folder / "examples.npz", image=rng.integers(0, 255, (2, 24, 48, 3), np.uint8), target=label, **predictions)
    np.savez(folder / "sampling.npz", **sampling())
    return record
