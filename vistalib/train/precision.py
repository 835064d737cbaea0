"""Which floating-point numbers a run computes with, and where only the machine can say."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vistalib.train.settings import Precision

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
BF16_SINCE = (8, 0)  # compute capability (Ampere); GPUs before it have half precision in hardware and no bfloat16


def resolve_precision(precision: Precision, capability: tuple[int, int] | None) -> Precision:
    """`precision`, or what "auto" stands for on a GPU of compute `capability` (None: a CPU): bf16, fp16 or fp32."""
    if precision != "auto":
        return precision
    if capability is None:
        return "fp32"
    return "bf16" if capability >= BF16_SINCE else "fp16"


def compute_capability(device: torch.device) -> tuple[int, int] | None:
    """That of an NVIDIA GPU, None of anything else."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


@contextmanager
def float32_products(precision: Precision) -> Iterator[None]:
    """While entered, GPUs multiply float32 matrices in TF32, or in full float32 where `precision` is "fp32"."""
    products = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]  # torch's stubs lag
    before = [product.fp32_precision for product in products]
    for product in products:
        product.fp32_precision = "ieee" if precision == "fp32" else "tf32"
    try:
        yield
    finally:
        for product, value in zip(products, before, strict=True):
            product.fp32_precision = value
