"""`vistalib evaluate`: a trained model on a dataset."""

from pathlib import Path

import tyro

from vistalib.cli.parts import Chosen, Given, Viewed, app, print_scores
from vistalib.files import check_writable, write_json


@app.command
def evaluate(
    model: tyro.conf.Positional[str],
    dataset: Given,
    viewing: Viewed,
    *,
    out: Path | None = None,
    device: Chosen[str | None] = None,
    json: Path | None = None,
) -> None:
    """Score a trained model on a dataset: mIoU, IoU of every class, pixel accuracy.

    Args:
        model: A run's folder, weight file, released name, address or Hub id.
        dataset: The one dataset to score on, by default its validation split.
        viewing: How an image is shown to the network.
        out: New folder for the label maps, as PNGs that the Cityscapes server accepts.
        device: Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one).
        json: File for the figures.
    """
    from vistalib.evaluate import evaluate_dataset
    from vistalib.recipes import open_model, same_classes

    if json is not None:
        check_writable(json)
    scored_on = dataset.open(training=False)
    trained = open_model(model, device=device)
    same_classes(trained.classes, scored_on.classes)
    scored = evaluate_dataset(trained.model, scored_on, **viewing.arguments(trained), device=trained.device, export=out)
    print_scores(scored)
    if json is not None:
        write_json(json, scored.to_json())
