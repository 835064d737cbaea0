"""`vistalib data`: streets drawn and datasets counted."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from vistalib.cli.parts import Given, app
from vistalib.files import write_json


def data_make(
    root: tyro.conf.Positional[Path],
    *,
    layout: Literal["vistas", "cityscapes"] = "vistas",
    num_images: tuple[int, int] = (80, 20),
    seed: int = 0,
    size: tuple[int, int] = (512, 1024),
) -> None:
    """Draw synthetic streets in the layout of Mapillary Vistas or of Cityscapes.

    Args:
        root: New folder for the dataset.
        layout: Whose folders, file names and labels to write.
        num_images: Images for training and for validation.
        seed: Another seed draws other streets.
        size: Height and width of the images in pixels.
    """
    from vistalib.data import synthesize

    splits = ("training", "validation") if layout == "vistas" else ("train", "val")
    synthesize(root, layout=layout, num_images=dict(zip(splits, num_images, strict=True)), seed=seed, size=size)
    print(f"{sum(num_images)} images in {root}")


def data_index(datasets: Given, *, split: str | None = None, json: Path | None = None) -> None:
    """Count a dataset: its images, and how many of their pixels each class has.

    Args:
        datasets: The one dataset to count.
        split: Split to count (default: the training split).
        json: File for the counts.
    """
    from vistalib.data import class_pixels

    dataset = datasets.only(split, training=True)
    pixels = class_pixels(dataset)
    width, total = max(map(len, dataset.classes)), max(1, sum(pixels))
    print(f"{len(dataset)} images, {total:,} labelled pixels")
    for name, count in zip(dataset.classes, pixels, strict=True):
        print(f"{name:{width}}{count:>18,}{100 * count / total:9.3f}%")
    if json is not None:
        write_json(json, {"images": len(dataset), "pixels": dict(zip(dataset.classes, pixels, strict=True))})


DataCommand = (
    Annotated[None, tyro.conf.subcommand("make", constructor=data_make)]
    | Annotated[None, tyro.conf.subcommand("index", constructor=data_index)]
)


@app.command
def data(command: Annotated[DataCommand, tyro.conf.arg(name="")]) -> None:
    """Draw synthetic streets, or count a dataset."""
