"""One training step, as the released trainer takes it: set the rate, forward, zero the gradients, backward, clip, update."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vistalib.train.groups import parameter_groups
from vistalib.train.guard import FiniteGuard
from vistalib.train.schedule import learning_rate
from vistalib.train.settings import TrainSettings

Batch = Mapping[str, Tensor]


def train_step(
    model: Any, optimizer: torch.optim.Optimizer, batch: Batch, iteration: int, *, settings: TrainSettings, guard: FiniteGuard
) -> dict[str, Tensor]:
    """Take the 0-based `iteration`'s step; its scalars are "loss", what `model.loss` gave, and "grad_norm" before clipping.

    The loss is the sum of the values whose key contains "loss". Nothing here waits for the device.
    """
    torch.manual_seed(step_seed(settings.seed, iteration))
    rate = learning_rate(iteration, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    device = guard.found.device
    image, label = (batch[key].to(device, non_blocking=True) for key in ("image", "label"))  # (B, 3, H, W), (B, H, W)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
        parts: dict[str, Tensor] = model.loss(image, label)
    loss = torch.stack([value for key, value in parts.items() if "loss" in key]).sum()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in parameters])
    if settings.clip_norm is not None:
        clip_grads_with_norm_(parameters, settings.clip_norm, norm)
    guard.watch(iteration, batch["sample"], loss, norm)
    optimizer.found_inf = guard.found  # type: ignore[attr-defined]  # the fused kernel leaves everything alone where it is 1
    optimizer.step()
    return {"loss": loss, **parts, "grad_norm": norm}


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the model's parameter groups; fused everywhere, since that kernel can skip an update by a device flag."""
    groups = parameter_groups(model, settings)
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def step_seed(seed: int, iteration: int) -> int:
    """The seed of torch's generator in one iteration, a hash of both: neighbouring seeds and iterations share nothing."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{iteration}".encode(), digest_size=4).digest(), "little")
