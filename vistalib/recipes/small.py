"""Recipes for a machine without a GPU: the same code and the same schedule in miniature.

The demo's four recipes share one model, one crop and the batch of 16 that the released schedules have; a crop covers a
quarter of an image at ratio 1, as theirs does. They differ in what they train on, for how long, and in the rate: each
has one that suits it, as a control with a bad one is no opponent. The two controls start from random weights, one with the
finetuning budget and one with the budget of both stages.
"""

from vistalib.data import AugmentationSettings
from vistalib.recipes.recipe import Recipe, Source
from vistalib.train import TrainSettings

PRETRAIN, FINETUNE = 900, 300  # iterations of the demo's two stages
TINY_SCALE, TINY_CROP = (256, 128), (64, 128)  # (width, height), (height, width)


def _tiny(
    task: str,
    source: Source,
    iterations: int,
    enlarge: int,
    *,
    ratio_range: tuple[float, float],
    learning_rate: float,
    starts_from: str | None = None,
) -> Recipe:
    scale, crop = ((first * enlarge, second * enlarge) for first, second in (TINY_SCALE, TINY_CROP))
    return Recipe(
        name=f"upernet_internimage_nano_{'x'.join(map(str, crop))}_{iterations}_{task}",
        model="upernet_internimage_nano",
        num_classes=19,
        train=source,
        validation=Source("cityscapes", "val"),
        augmentation=AugmentationSettings(scale=scale, ratio_range=ratio_range, crop=crop),
        settings=TrainSettings(
            iterations=iterations,
            learning_rate=learning_rate,
            layer_decay=0.94,
            clip_norm=1.0,
            warmup_iters=iterations // 10,
            log_every=10,
            checkpoint_every=100,
            evaluate_every=iterations,
        ),
        batch_size=16,
        evaluation_scale=scale,
        starts_from=starts_from,
    )


def pretrain(iterations: int = PRETRAIN, enlarge: int = 1) -> Recipe:
    """The demo's first stage: streets in the Vistas layout. `enlarge` multiplies the sides of images and crops."""
    source = Source("vistas", "training+validation")
    return _tiny("mapillary", source, iterations, enlarge, ratio_range=(0.5, 1.0), learning_rate=2e-2)


def finetune(iterations: int = FINETUNE, enlarge: int = 1, *, pretrained: int = PRETRAIN) -> Recipe:
    """The demo's second stage: streets in the Cityscapes layout, from the first stage's checkpoint after `pretrained`."""
    return _tiny(
        "mapillary2cityscapes",
        Source("cityscapes", "train"),
        iterations,
        enlarge,
        ratio_range=(0.5, 2.0),
        learning_rate=3e-3,
        starts_from=pretrain(pretrained, enlarge).name,
    )


def scratch(iterations: int = FINETUNE, enlarge: int = 1) -> Recipe:
    """First control: Cityscapes alone, the finetuning budget."""
    source = Source("cityscapes", "train")
    return _tiny("cityscapes", source, iterations, enlarge, ratio_range=(0.5, 2.0), learning_rate=1e-2)


def scratch_total(iterations: int = PRETRAIN + FINETUNE, enlarge: int = 1) -> Recipe:
    """Second control: Cityscapes alone, the budget of both stages."""
    return scratch(iterations, enlarge)


def small_recipes() -> list[Recipe]:
    """Every recipe of this module."""
    return [pretrain(), finetune(), scratch(), scratch_total()]
