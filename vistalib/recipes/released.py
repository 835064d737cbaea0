"""The thirteen released segmentation configurations, under their own names, and two as they were meant.

Facts (schedules, rates, augmentation ranges) come from the released InternImage configurations; every one of them trains
19 classes with 150 logit channels, on 8 GPUs with 2 images each. Two of them finetune UperNet from a checkpoint of SegFormer,
so that the backbone alone carries over; with `_as_intended` behind their names they start from UperNet's own.
"""

from vistalib.data import AugmentationSettings
from vistalib.recipes.recipe import Recipe, Source
from vistalib.train import TrainSettings

SCALE = (2048, 1024)  # (width, height)
CROP = (512, 1024)  # (height, width)
SMALL, LARGE = ("t", "s", "b"), ("l", "xl")


def _recipe(name: str, head: str, size: str, *, vistas: bool, iterations: int, evaluate_every: int, starts_from: str) -> Recipe:
    large = size in LARGE
    return Recipe(
        name=name,
        model=f"{head}_internimage_{size}",
        num_classes=150,
        train=Source("vistas", "training+validation") if vistas else Source("cityscapes", "train"),
        validation=Source("cityscapes", "val"),
        augmentation=AugmentationSettings(scale=SCALE, ratio_range=(0.5, 1.0) if vistas else (0.5, 2.0), crop=CROP),
        settings=TrainSettings(
            iterations=iterations,
            learning_rate=2e-5 if large else 6e-5,
            layer_decay=0.94 if large else 1.0,
            clip_norm=0.1 if large else None,
            warmup_iters=1500,
            precision="tf32",
            checkpoint_every=1000,
            evaluate_every=evaluate_every,
            log_every=50,
        ),
        batch_size=16,
        evaluation_scale=SCALE,
        starts_from=starts_from,
    )


def mapillary(head: str, size: str) -> Recipe:
    """80k iterations on Mapillary Vistas mapped to the 19 Cityscapes classes."""
    return _recipe(
        f"{head}_internimage_{size}_512x1024_80k_mapillary",
        head,
        size,
        vistas=True,
        iterations=80_000,
        evaluate_every=8_000,
        starts_from=f"internimage_{size}_22k_192to384",
    )


def mapillary_to_cityscapes(head: str, size: str, *, as_intended: bool = False) -> Recipe:
    """160k iterations on Cityscapes from a Vistas checkpoint: SegFormer's as released, that of its own head as intended.

    The released configurations also train on train_extra with automatic labels, which not everybody has:
    `--train.split train+train_extra --train.labels auto` reads what they read.
    """
    return _recipe(
        f"{head}_internimage_{size}_512x1024_160k_mapillary2cityscapes" + ("_as_intended" if as_intended else ""),
        head,
        size,
        vistas=False,
        iterations=160_000,
        evaluate_every=4_000,
        starts_from=f"{head if as_intended else 'segformer'}_internimage_{size}_512x1024_80k_mapillary",
    )


def cityscapes(size: str) -> Recipe:
    """160k iterations of UperNet on Cityscapes alone, from an ImageNet backbone."""
    return _recipe(
        f"upernet_internimage_{size}_512x1024_160k_cityscapes",
        "upernet",
        size,
        vistas=False,
        iterations=160_000,
        evaluate_every=16_000,
        starts_from=f"internimage_{size}_22k_192to384" if size in LARGE else f"internimage_{size}_1k_224",
    )


def released_recipes() -> list[Recipe]:
    """All thirteen, in the order of the published tables, then the two as intended."""
    heads = ("upernet", "segformer")
    return (
        [mapillary(head, size) for head in heads for size in LARGE]
        + [mapillary_to_cityscapes(head, size) for head in heads for size in LARGE]
        + [cityscapes(size) for size in SMALL + LARGE]
        + [mapillary_to_cityscapes("upernet", size, as_intended=True) for size in LARGE]
    )
