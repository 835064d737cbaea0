"""`vistalib data`: streets drawn, datasets unpacked, imported, checked and counted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vistalib.cli.data_check import data_check
from vistalib.cli.parts import Given, UsageError
from vistalib.files import replacing, write_json, writing

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.recipes import Dataset


def data_make(
    root: tyro.conf.Positional[Path],
    *,
    layout: Literal[
        "vistas", "vistas-2.0", "vistas-flat", "cityscapes", "cityscapes-extra", "cityscapes-extra-train-ids"
    ] = "vistas",
    num_images: tuple[int, ...] = (80, 20),
    seed: int = 0,
    size: tuple[int, int] = (512, 1024),
) -> None:
    """Draw synthetic streets in a layout of Mapillary Vistas or of Cityscapes.

    Args:
        root: New folder for the dataset.
        layout: Whose folders, file names and labels to write.
        num_images: Images for training, for validation, and for train_extra where the layout has it.
        seed: Another seed draws other streets.
        size: Height and width of the images in pixels.
    """
    from vistalib.data.synthetic import splits, synthesize

    names = splits(layout)
    if not 2 <= len(num_images) <= len(names):
        raise UsageError(f"--num-images of {layout} must be 2 to {len(names)} numbers ({', '.join(names)}), got {num_images}")
    synthesize(root, layout=layout, num_images=dict(zip(names, num_images, strict=False)), seed=seed, size=size)
    print(f"{sum(num_images)} images in {root}")


def data_index(dataset: Given, *, out: Path | None = None, figures: Path | None = None, json: Path | None = None) -> None:
    """Count a dataset: its images, and how many of their pixels each class has.

    Args:
        dataset: The one dataset to count, by default its training split.
        out: New folder for the index, which `datasets.load_from_disk` opens.
        figures: Folder for figures: class balance, sizes, where a class lives, what the map makes of the dataset's classes.
        json: File for the counts.
    """
    from vistalib.data import class_pixels

    counted = dataset.open(training=True)
    pixels = class_pixels(counted)
    width, total = max(map(len, counted.classes)), max(1, sum(pixels))
    print(f"{len(counted)} images, {total:,} labelled pixels")
    for name, count in zip(counted.classes, pixels, strict=True):
        print(f"{name:{width}}{count:>18,}{100 * count / total:9.3f}%")
    if out is not None:
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"--out must be a new or empty folder, got {out} with files in it; choose another")
        with writing(out):
            counted.index().save_to_disk(out)
    if figures is not None:
        _write_figures(counted, figures)
    if json is not None:
        write_json(json, {"images": len(counted), "pixels": dict(zip(counted.classes, pixels, strict=True))})


def _write_figures(dataset: "Dataset", folder: Path) -> None:
    from vistalib.data import class_places, source_pixels
    from vistalib.viz import plot_class_balance, plot_class_places, plot_image_sizes, plot_map_flow

    rows = dataset.index()
    drawn = {
        "balance": plot_class_balance(rows["histogram"][:], dataset.classes, colors=dataset.colors),
        "sizes": plot_image_sizes(rows["width"][:], rows["height"][:]),
        "places": plot_class_places(class_places(dataset), dataset.classes, colors=dataset.colors),
        "map": plot_map_flow(dataset.map, source_pixels(dataset)),
    }
    for name, figure in drawn.items():
        with replacing(folder / f"{name}.png") as beside:
            figure.savefig(beside, dpi=144)
    print(f"{', '.join(drawn)} drawn in {folder}")


def data_prepare(folder: tyro.conf.Positional[Path], dataset: Given, *, cache: Literal["raw", "jpeg"] = "raw") -> None:
    """Decode a dataset once, for fast training (`vistalib train RECIPE --cache FOLDER`); called again, goes on where it was.

    Args:
        folder: Folder for the prepared images, on a fast disk.
        dataset: The one dataset to prepare, by default its training split.
        cache: Raw pixels (8 MB an image of Cityscapes): the same results for images of at most 2048x1024, so for Cityscapes.
            Larger ones are resized into that, which changes results. jpeg: far smaller, changes results a little.
    """
    from vistalib.data import Plan, prepare

    def foretell(plan: Plan) -> None:
        print(
            f"{plan.images} of {plan.total} images to go: {plan.bytes / 1e9:.2f} GB, about {plan.seconds / 60:.1f} minutes; "
            f"training will see {'the same pixels' if plan.exact else 'pixels that differ a little'}",
            flush=True,
        )

    prepare(dataset.open(training=True), folder, cache, foretell=foretell)
    print(f"{folder} is ready; add --cache {folder} to `vistalib train`")


def data_unpack(archives: tyro.conf.Positional[tuple[Path, ...]], *, root: Annotated[Path, tyro.conf.arg(name="to")]) -> None:
    """Unpack downloads of Mapillary Vistas or Cityscapes; called again, goes on where it was.

    Args:
        archives: The zip archives as downloaded, under any name.
        root: Folder for the dataset; give it all the archives of one dataset.
    """
    from vistalib.data import unpack

    if not archives:
        raise UsageError("unpack needs at least one archive; give the zip files after the command")
    for archive, done in zip(archives, unpack(archives, root), strict=True):
        print(
            f"{archive.name}: {done.dataset}, {done.written} files written, {done.kept} were there; use --{done.dataset} {root}"
        )


def data_import(
    root: tyro.conf.Positional[Path],
    *,
    images: Path,
    split: str = "train",
    colors: Path | None = None,
    classes: Path | None = None,
    coco: Path | None = None,
    panoptic: Path | None = None,
) -> None:
    """Make a folder of your own data (for --folder) of colour PNGs or of a COCO file.

    Args:
        root: Folder for the dataset: new, or one that gets another split.
        images: Folder of the photographs.
        split: Split to make: train, val or another name.
        colors: Folder of label pictures, in which a colour stands for a class.
        classes: For --colors: classes.json with the name and the colour of every class.
        coco: COCO annotation file, instances or panoptic.
        panoptic: For a panoptic file: folder of its PNGs.
    """
    from vistalib.data import import_coco, import_colors

    if colors is not None and classes is not None and coco is None and panoptic is None:
        done = import_colors(images, colors, classes, root, split=split)
    elif coco is not None and colors is None and classes is None:
        done = import_coco(coco, images, root, split=split, panoptic=panoptic)
    else:
        raise UsageError("import needs either --colors DIR with --classes FILE, or --coco FILE (with --panoptic DIR)")
    print(f"{done.images} images in {root} ({split}), {done.left_out} left out for want of labels; use --folder {root}")


def data_maps(name: tyro.conf.Positional[str | None] = None) -> None:
    """List the maps from one dataset's classes to others, or show one.

    Args:
        name: Name of a map, or a YAML file of your own.
    """
    from vistalib.data import label_map, list_maps

    if name is None:
        for known in list_maps():
            chosen = label_map(known)
            print(f"{known:10}{chosen.labels:6}{chosen.about}\n{'':16}{chosen.source}")
        print(f"{'native':16}the dataset's own classes\n{'FILE.yaml':16}a map of your own")
        return
    chosen = label_map(name)
    print(f"{chosen.name}: {chosen.about}" if chosen.about else chosen.name)
    for target in (*chosen.classes, None):
        print(f"{target or 'ignored':16}{', '.join(chosen.sources(target)) or '-'}")


DataCommand = (
    Annotated[None, tyro.conf.subcommand("make", constructor=data_make)]
    | Annotated[None, tyro.conf.subcommand("import", constructor=data_import)]
    | Annotated[None, tyro.conf.subcommand("check", constructor=data_check)]
    | Annotated[None, tyro.conf.subcommand("index", constructor=data_index)]
    | Annotated[None, tyro.conf.subcommand("maps", constructor=data_maps)]
    | Annotated[None, tyro.conf.subcommand("prepare", constructor=data_prepare)]
    | Annotated[None, tyro.conf.subcommand("unpack", constructor=data_unpack)]
)


def data(command: Annotated[DataCommand, tyro.conf.arg(name="")]) -> None:
    """Draw synthetic streets, unpack the real ones, import your own; check, count, prepare them; show the maps of classes."""
