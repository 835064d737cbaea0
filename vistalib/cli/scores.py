"""An evaluation on the command line: its table, and the file that keeps it."""

from pathlib import Path
from typing import TYPE_CHECKING

from vistalib.files import check_writable

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.evaluate import Evaluation


def check_scores_writable(path: Path) -> None:
    """Refuse now what `Evaluation.save` would refuse after hours of work."""
    from vistalib.evaluate.evaluation import arrays_beside

    check_writable(path)
    check_writable(arrays_beside(path))


def print_scores(scored: "Evaluation") -> None:
    """The scores as a person reads them, in percent."""
    values = scored.to_json()
    instances = values.get("instance_iou", {}) | values.get("instance_category_iou", {})
    groups = [values["iou"], values.get("category_iou", {})]
    width = max(len(name) for group in groups for name in group)
    lines = [f"{'':{width}}    IoU   iIoU"] if instances else []
    for group in filter(None, groups):
        for name, value in group.items():
            lines.append(f"{name:{width}}  {_percent(value)}" + (f"  {_percent(instances[name])}" if name in instances else ""))
        lines.append("")
    means = {"mean_category_iou": "categories", "mean_instance_iou": "iIoU", "mean_instance_category_iou": "iIoU of categories"}
    said = [f"mIoU {100 * scored.mean_iou:.2f}%", f"pixel accuracy {100 * scored.pixel_accuracy:.2f}%"]
    said += [f"{name} {100 * values[key]:.2f}%" for key, name in means.items() if values.get(key) is not None]
    print(*lines, ", ".join([*said, f"{scored.images} images"]), sep="\n")


def _percent(value: float | None) -> str:
    return "    -" if value is None else f"{100 * value:5.1f}"
