"""`vistalib evaluate` and `vistalib predict`: a trained run on a dataset, and on photographs."""

from pathlib import Path

import tyro

from vistalib.cli.parts import Given, UsageError, app
from vistalib.files import check_writable, replacing, write_json


@app.command
def evaluate(
    run: tyro.conf.Positional[Path],
    dataset: Given,
    *,
    multi_scale: bool = False,
    out: Path | None = None,
    device: str = "cpu",
    json: Path | None = None,
) -> None:
    """Score a trained run on a dataset: mIoU, IoU of every class, pixel accuracy.

    Args:
        run: Folder that `vistalib train` wrote.
        dataset: The one dataset to score on, by default its validation split.
        multi_scale: Average probabilities over six scales and their mirror images.
        out: New folder for the label maps, as PNGs that the Cityscapes server accepts.
        device: Where to run: cpu, cuda, cuda:1, ...
        json: File for the figures.
    """
    from vistalib.evaluate import MULTI_SCALES, evaluate_dataset
    from vistalib.recipes import open_run, same_classes

    if json is not None:
        check_writable(json)
    scored_on = dataset.open(training=False)
    trained = open_run(run, device=device)
    same_classes(trained.classes, scored_on.classes)
    scales = MULTI_SCALES if multi_scale else (1.0,)
    scored = evaluate_dataset(
        trained.model, scored_on, scale=trained.scale, scales=scales, flip=multi_scale, device=device, export=out
    )
    width = max(map(len, scored_on.classes))
    for name, value in scored.to_json()["iou"].items():
        print(f"{name:{width}}  {'    -' if value is None else f'{100 * value:5.1f}'}")
    print(f"\nmIoU {100 * scored.mean_iou:.2f}%, pixel accuracy {100 * scored.pixel_accuracy:.2f}%, {scored.images} images")
    if json is not None:
        write_json(json, scored.to_json())


@app.command
def predict(
    run: tyro.conf.Positional[Path],
    images: tyro.conf.Positional[tuple[Path, ...]],
    *,
    out: Path = Path("predictions"),
    device: str = "cpu",
) -> None:
    """Label photographs with a trained run: for each a label map, and the photograph with the classes drawn over it.

    Args:
        run: Folder that `vistalib train` wrote.
        images: Photographs (JPEG or PNG).
        out: Folder for NAME_labels.png and NAME_overlay.jpg.
        device: Where to run: cpu, cuda, cuda:1, ...
    """
    from PIL import Image

    from vistalib.data import read_image
    from vistalib.evaluate import predict_labels
    from vistalib.progress import progress
    from vistalib.recipes import open_run
    from vistalib.viz import overlay

    if not images:
        raise UsageError("predict needs at least one image; give the photographs after the run's folder")
    stems = [path.stem for path in images]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise UsageError(
            f"every photograph must have a name of its own, got {twice!r} twice; label them in two calls, into two --out"
        )
    trained = open_run(run, device=device)
    for path in progress(images, "predict"):
        image = read_image(path)
        labels = predict_labels(trained.model, image, scale=trained.scale)
        with replacing(out / f"{path.stem}_labels.png") as beside:
            Image.fromarray(labels).save(beside)
        with replacing(out / f"{path.stem}_overlay.jpg") as beside:
            Image.fromarray(overlay(image, labels, trained.colors)).save(beside, quality=92)
    print(f"{len(images)} images labelled in {out}")
