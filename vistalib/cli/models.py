"""`vistalib zoo`: the models."""

from pathlib import Path
from typing import Any

from vistalib.files import write_json

NOTE = """
Parameters with 150 classes and the auxiliary head, cost without it; both stand beside what the released tables print. "FLOPs"
is what the released tool counts under that name: mostly multiply-adds, some single operations, and many left out.
"multiply-adds" are sums of products alone, DCNv3's sampling among them; each is two floating-point operations. G is 1e9, an
image is height x width.
"""


def zoo(*, json: Path | None = None) -> None:
    """List the models with their parameters and their cost beside the published ones, the recipes, and the released weights.

    Args:
        json: File for the table, with the cost by kind of operation.
    """
    from vistalib.models import RELEASED_FILES, list_models
    from vistalib.progress import progress
    from vistalib.recipes import list_recipes

    rows = {name: _row(name) for name in progress(list_models(), "models")}
    print(f"{'model':28}{'parameters':>14} {'published':>9}{'image':>11}{'FLOPs':>10} {'published':>9}{'multiply-adds':>15}")
    for name, row in rows.items():
        flops, multiply_adds = (sum(row[key].values()) / 1e9 for key in ("released_flops", "multiply_adds"))
        print(
            f"{name:28}{row['parameters']:>14,} {row['published_parameters'] or '-':>9}{'x'.join(map(str, row['size'])):>11}"
            f"{flops:>9.2f}G {row['published_flops'] or '-':>9}{multiply_adds:>14.2f}G"
        )
    print(f"{NOTE}\nrecipes")
    for name in list_recipes():
        print(f"  {name}")
    print("\nreleased weights, by the name that --weights and pretrained= take; published mIoU, single / multi-scale")
    for name, file in RELEASED_FILES.items():
        published = "  mIoU {:.2f} / {:.2f}".format(*file.mean_iou) if file.mean_iou else ""
        print(f"  {name:58}{file.megabytes:>5} MB  {file.licence}{published}")
    if json is not None:
        weights = {
            name: {**vars(file), "url": file.url, "licence": file.licence, "mean_iou": file.mean_iou}
            for name, file in RELEASED_FILES.items()
        }
        write_json(json, {"models": rows, "recipes": list_recipes(), "weights": weights})


def _row(name: str) -> dict[str, Any]:
    """What is known of a model, as plain values."""
    import torch

    from vistalib.models import cost, create_model
    from vistalib.models.variants import VARIANTS

    with torch.device("meta"):
        model = create_model(name)
    published = VARIANTS[name].published
    counted = cost(model, published.size)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "published_parameters": published.parameters,
        "size": list(published.size),
        "released_flops": counted.released,
        "published_flops": published.flops,
        "multiply_adds": counted.multiply_adds,
    }
