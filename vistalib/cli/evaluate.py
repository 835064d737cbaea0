"""`vistalib evaluate`: a trained model on a dataset."""

from pathlib import Path
from typing import Annotated

import tyro

from vistalib.cli.parts import Chosen, Given, UsageError, Viewed, with_weights
from vistalib.cli.scores import check_scores_writable, print_scores


def evaluate(
    places: Annotated[Chosen[tyro.conf.Positional[tuple[str, ...]]], tyro.conf.arg(metavar="[WEIGHTS]")],
    dataset: Given,
    viewing: Viewed,
    *,
    weights: Chosen[str | None] = None,
    batch_size: int = 1,
    out: Path | None = None,
    device: Chosen[str | None] = None,
    json: Path | None = None,
) -> None:
    """Score a trained model on a dataset: mIoU, IoU of every class, pixel accuracy; Cityscapes by category and instance, too.

    Under torchrun the processes share the images.

    Args:
        places: The weights may stand here, too.
        dataset: The one dataset to score on, by default its validation split.
        viewing: How an image is shown to the network.
        weights: A run's folder, weight file, released name, address or Hub id.
        batch_size: Images of one size that the network sees at a time; scores stay the same.
        out: New folder for the label maps, as PNGs that the Cityscapes server accepts.
        device: Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one).
        json: File for the figures; the matrices of the single images, for `vistalib compare`, go beside it as .npz.
    """
    from vistalib.evaluate import evaluate_dataset
    from vistalib.recipes import open_model, same_classes
    from vistalib.recipes.run import usable_device
    from vistalib.train import process_group, rank

    (source,) = with_weights(weights, places)
    if batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {batch_size}")
    if json is not None:
        check_scores_writable(json)
    with process_group(device or usable_device()) as own:
        scored_on = dataset.open(training=False)
        trained = open_model(source, device=own)
        same_classes(trained.classes, scored_on.classes)
        viewed = viewing.arguments(trained)
        scored = evaluate_dataset(trained.model, scored_on, **viewed, batch_size=batch_size, device=trained.device, export=out)
        if rank() > 0:
            return
        print_scores(scored)
        if json is not None:
            scored.save(json)
