"""How far the GPU is from float64, for tools/gpu.py: the operator and all its gradients, and whole models, as worst errors.

An error is the largest difference of a tensor, as a share of the largest number in what is right. Both sides get the same
numbers, rounded to the dtype first, and offsets in steps of 1/64 of a pixel, with which every location is exact in float32: at
a whole location the slope jumps, and two roundings of one location would be two different right answers.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from gpu_part import Record, attempt, backend_of
from numpy.typing import NDArray
from torch import Tensor, nn

from vistalib.bench import Workload, stage_workloads
from vistalib.bench.model import CLASSES
from vistalib.bench.workload import Offsets, draw
from vistalib.evaluate import predict_labels
from vistalib.models import create_model
from vistalib.ops import dcnv3, dcnv3_definition
from vistalib.ops.definition import dcnv3_gradients
from vistalib.train.precision import float32_products

TENSORS = ("output", "value", "offset", "mask")  # the result, and the gradients that belong to it
# Sixteen bits: the rounding of the result. float32: sums in any order. The worst of CPUs: 6e-16, 4e-7, 4e-4 and 3e-3.
TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 2.0**-10, "bfloat16": 2.0**-7}
OFFSETS = ("normal:0.5", "uniform:4")
STEPS = 64  # of an offset, to a pixel
SAME_LABELS = 0.995  # of all pixels, bfloat16 against float32 on a CPU
FULL = stage_workloads(("t", "l", "xl"), (1, 2, 3, 4), ("512x1024",), 2)
TOY = [Workload("toy", None, 1, 8, 12, 32, 2, 2.0)]


def operator_rows(works: Sequence[Workload], backends: Sequence[str], device: torch.device) -> Iterator[Record]:
    """A row for each workload, distribution of offsets, dtype and backend: the errors of output and gradients."""
    for work in works:
        for offsets in OFFSETS:
            for dtype in TOLERANCES:
                for backend, found in _compared(work, offsets, dtype, backends, device).items():
                    yield {"workload": work.name, "offsets": offsets, "dtype": dtype, "backend": backend} | found


def _compared(work: Workload, offsets: str, dtype: str, backends: Sequence[str], device: torch.device) -> dict[str, Record]:
    kind = getattr(torch, dtype)
    value, offset, mask, gradient = draw(work, Offsets(offsets), torch.float32, device=device, seed=0)
    offset, logits = (offset * STEPS).round() / STEPS, mask.log()
    tensors, gradient = [tensor.to(kind) for tensor in (value, offset, logits)], gradient.to(kind)
    settings: Record = {"groups": work.groups, "offset_scale": work.offset_scale, "mask_is_logits": True}
    exact = [tensor.double() for tensor in tensors]
    right = [dcnv3_definition(*exact, **settings), *dcnv3_gradients(gradient.double(), *exact, **settings)]

    def errors(backend: str) -> Record:
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        with backend_of(backend) as name:
            output = dcnv3(*leaves, **settings, backend=name)
            found = (output.detach(), *torch.autograd.grad(output, leaves, gradient))
        each = {name: error(one, other) for name, one, other in zip(TENSORS, found, right, strict=True)}
        return {"errors": each, "agrees": all(size <= TOLERANCES[dtype] for size in each.values())}

    return {backend: attempt(lambda backend=backend: errors(backend), device) for backend in backends}


def error(found: Tensor, right: Tensor) -> float:
    """The largest difference, as a share of the largest number of `right`; `ArithmeticError` where one is not finite."""
    difference = float((found.double() - right.double()).abs().max() / right.double().abs().max())
    if not math.isfinite(difference):
        raise ArithmeticError("a result is not finite")
    return difference


def worst(rows: Sequence[Record]) -> list[Record]:
    """One row for each backend and dtype: the worst error of each tensor, beside the tolerance, and in how many cases."""
    cases: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for row in rows:
        cases[row["backend"], row["dtype"]].append(row)
    found = []
    for (backend, dtype), those in cases.items():
        measured = [row["errors"] for row in those if "errors" in row]
        found.append(
            {
                "backend": backend,
                "dtype": dtype,
                "cases": len(those),
                "failed": sum("failed" in row for row in those),
                "worst": {name: max((each[name] for each in measured), default=None) for name in TENSORS},
                "tolerance": TOLERANCES[dtype],
                "agrees": all(row.get("agrees", False) for row in those),
            }
        )
    return found


def model_distances(name: str, size: tuple[int, int], device: torch.device) -> list[Record]:
    """Logits of a model with random weights on `device`, against those of float32 on a CPU, by precision."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=CLASSES).eval()
    model.backbone.init_weights()
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        right = model(image)
        there = copy.deepcopy(model).to(device)

        def logits(precision: str) -> Record:
            with float32_products("fp32"), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                found = there(image.to(device)).float().cpu()
            return {"error": error(found, right)}

        rows = []
        for precision in ("fp32", "bf16"):
            found = attempt(lambda precision=precision: logits(precision), device)
            rows.append({"model": name, "size": list(size), "precision": precision} | found)
    return rows


def label_agreement(
    model: nn.Module, images: Sequence[NDArray[np.uint8]], *, scale: tuple[int, int], device: torch.device
) -> Record:
    """The share of pixels (of all, and of the worst image) with the same label in bfloat16 on `device` and float32 on a CPU."""
    there, here = copy.deepcopy(model).to(device), copy.deepcopy(model).cpu()
    shares = []
    for image in images:
        with torch.autocast(device.type, torch.bfloat16):
            found = predict_labels(there, image, scale=scale)
        shares.append(float((found == predict_labels(here, image, scale=scale)).mean()))
    return {"images": len(shares), "same_labels": float(np.mean(shares)), "least": min(shares), "wanted": SAME_LABELS}
