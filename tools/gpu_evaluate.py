"""How long an evaluation of Cityscapes takes on a GPU, for tools/gpu.py: `vistalib evaluate` itself, on drawn streets.

Files are read, images labelled, confusion matrices and instances counted, all as for a real score. There are some tens of
images of 1024x2048, and the time of 500 is that of one times 500: extrapolated. The weights are random, which changes no time.
"""

import time

import torch
from gpu_part import Options, Record, attempt

from vistalib.bench.model import CLASSES
from vistalib.data import Cityscapes, synthesize
from vistalib.evaluate import MULTI_SCALES, evaluate_dataset
from vistalib.models import create_model
from vistalib.train.precision import float32_products

MODEL, TOY_MODEL = "upernet_internimage_l", "upernet_internimage_nano"
SIZE, TOY_SIZE = (1024, 2048), (64, 128)
IMAGES = {"train": 4, "val": 40}  # the few are for warming up, and for the six scales
TOY_IMAGES = {"train": 1, "val": 2}
WHOLE = 500  # images of the validation set of Cityscapes


def evaluate(options: Options) -> Record:
    """A row for single scale in bfloat16 and in TF32, and for multi-scale with flip in bfloat16."""
    device, size = options.device, TOY_SIZE if options.dry_run else SIZE
    root = options.out / "streets whole"
    synthesize(root, "cityscapes", num_images=TOY_IMAGES if options.dry_run else IMAGES, size=size, workers=options.drawers)
    few, many = Cityscapes(root, "train"), Cityscapes(root, "val")
    torch.manual_seed(0)
    model = create_model(TOY_MODEL if options.dry_run else MODEL, num_classes=CLASSES).to(device)
    model.backbone.init_weights()

    def measured(precision: str, data: Cityscapes, scales: tuple[float, ...]) -> Record:
        how: Record = {"scale": size[::-1], "scales": scales, "flip": len(scales) > 1, "device": device, "progress": False}
        with float32_products("tf32"), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            evaluate_dataset(model, few, **how)  # warms up
            found = evaluate_dataset(model, data, **how)
        each = found.seconds / found.images
        return {"mode": found.mode, "images": found.images, "seconds_per_image": each, "extrapolated_to_500": WHOLE * each}

    rows = []
    for precision, data, scales in (("bf16", many, (1.0,)), ("tf32", many, (1.0,)), ("bf16", few, MULTI_SCALES)):
        row = attempt(lambda: measured(precision, data, scales), device)  # noqa: B023  # called at once
        rows.append({"model": TOY_MODEL if options.dry_run else MODEL, "precision": precision, "size": list(size)} | row)
    began = time.perf_counter()
    for i in range(len(many)):
        many.read(i), many.read_instances(i)
    return {"rows": rows, "reading_seconds_per_image": (time.perf_counter() - began) / len(many)}
