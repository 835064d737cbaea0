"""One training step, as the released trainer takes it: set the rate, forward, zero the gradients, backward, clip, update."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vistalib.train.average import WeightAverage
from vistalib.train.distributed import rank, world_size
from vistalib.train.graph import GraphedPass
from vistalib.train.groups import parameter_groups
from vistalib.train.guard import FiniteGuard
from vistalib.train.precision import AUTOCAST, compute_capability, resolve_precision
from vistalib.train.schedule import learning_rate
from vistalib.train.settings import TrainSettings
from vistalib.train.sharding import is_sharded, joined

Batch = Mapping[str, Tensor]
Losses = Callable[[Tensor, Tensor], dict[str, Tensor]]


class Stepper:
    """Takes the steps of a run; nothing in it waits for the device."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, settings: TrainSettings, guard: FiniteGuard) -> None:
        self.model, self.optimizer, self.settings, self.guard = model, optimizer, settings, guard
        self.device = guard.found.device
        self.precision = resolve_precision(settings.precision, compute_capability(self.device))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.losses = _losses(model, settings, self.device)
        self.average = WeightAverage(optimizer, settings.ema_decay)
        check_graphs(settings, self.device)
        self.graph = GraphedPass(self._pass, model) if settings.cuda_graphs else None

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Take the 0-based `iteration`'s step; its scalars are "loss", what `model.loss` gave, and "grad_norm" before clipping.

        The loss is the sum of the values whose key contains "loss". With fp16 a gradient that overflowed skips the update and
        lowers the scale: "skipped" is 1 then and "grad_norm" 0.
        """
        settings = self.settings
        torch.manual_seed(step_seed(settings.seed, iteration, rank()))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(iteration, settings, group["lr_scale"])
        parts = self._gradients(batch)
        values = {name: torch.stack([part[name].detach() for part in parts]).mean(0) for name in parts[0]}
        loss = torch.stack([value for name, value in values.items() if "loss" in name]).sum()
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = joined(get_total_norm([parameter.grad for parameter in parameters]))
        if settings.clip_norm is not None:
            clip_grads_with_norm_(parameters, settings.clip_norm, norm)
        finite = torch.isfinite(norm)
        scaled_up = self.scaler.scale(torch.ones_like(norm)) > 1  # then a gradient may overflow by the scale's fault alone
        self.guard.watch(iteration, batch["sample"], torch.isfinite(loss) & (finite | scaled_up))
        # The fused kernel leaves weights and moments alone where this is 1.
        self.optimizer.found_inf = torch.maximum(self.guard.found, (~finite).float())  # type: ignore[attr-defined]
        self.optimizer.step()
        self.average.update()
        if self.scaler.is_enabled():
            self.scaler.update()
            return {"loss": loss, **values, "grad_norm": torch.where(finite, norm, 0.0), "skipped": (~finite).float()}
        return {"loss": loss, **values, "grad_norm": norm}

    def _gradients(self, batch: Batch) -> list[dict[str, Tensor]]:
        """Leave the gradients of a batch in the parameters; give what `model.loss` said of each of its pieces."""
        pieces = self.settings.accumulate
        if len(batch["image"]) % pieces:
            raise ValueError(
                f"accumulate must divide the {len(batch['image'])} images that each rank has a step, got accumulate={pieces}; "
                "try accumulate=1"
            )
        image, label = (batch[key].to(self.device, non_blocking=True) for key in ("image", "label"))  # (B, 3, H, W), (B, H, W)
        if self.graph is not None:
            return self.graph(image, label)
        self.optimizer.zero_grad()
        return self._pass(image, label)

    def _pass(self, image: Tensor, label: Tensor) -> list[dict[str, Tensor]]:
        """Forward and backward, piece by piece."""
        pieces, parts = self.settings.accumulate, []
        for number, piece in enumerate(zip(image.chunk(pieces), label.chunk(pieces), strict=True), start=1):
            alone = number < pieces and isinstance(self.losses, DistributedDataParallel)
            with self.losses.no_sync() if alone else nullcontext():  # type: ignore[attr-defined]  # ranks meet in the last piece
                with torch.autocast(self.device.type, dtype=AUTOCAST.get(self.precision), enabled=self.precision in AUTOCAST):
                    found: dict[str, Tensor] = self.losses(*piece)
                loss = torch.stack([value for name, value in found.items() if "loss" in name]).sum()
                self.scaler.scale(loss / pieces).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            parts.append(found)
        return parts


class _Loss(nn.Module):
    """`model.loss` as a module's forward, which is what the wrappers of torch wrap."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.model.loss(image, label)
        return found


def _losses(model: Any, settings: TrainSettings, device: torch.device) -> Losses:
    """`model.loss`, compiled where the settings say so, with gradients averaged over the ranks where there are several."""
    losses: Any = model.loss
    if is_sharded(model):
        return losses  # type: ignore[no-any-return]  # it averages by itself
    if settings.compile:
        losses = torch.compile(_Loss(model))
    if world_size() > 1:
        module = losses if settings.compile else _Loss(model)
        devices = [device] if device.type == "cuda" else None
        losses = DistributedDataParallel(module, device_ids=devices)
    return losses  # type: ignore[no-any-return]


def check_graphs(settings: TrainSettings, device: torch.device) -> None:
    """Refuse to record graphs where there are none."""
    if settings.cuda_graphs and (device.type != "cuda" or world_size() > 1):
        found = f"{world_size()} processes" if world_size() > 1 else f"the device {device.type}"
        raise ValueError(f"cuda_graphs needs one process with a CUDA device, got {found}; leave cuda_graphs out")


def freeze(model: nn.Module, settings: TrainSettings) -> None:
    """Take the parts that `settings.frozen` names out of training; a `ValueError` names the parts there are."""
    parts = [name for name, _ in model.named_modules() if name]
    for name in settings.frozen:
        if name not in parts:
            there = ", ".join(name for name in parts if "." not in name)
            raise ValueError(f"frozen must name parts of the model, got {name!r}; try one of {there}")
        model.get_submodule(name).requires_grad_(False)


def check_statistics(model: nn.Module, settings: TrainSettings) -> None:
    """Refuse to keep running statistics that no batch has ever moved."""
    if not settings.frozen_statistics:
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.num_batches_tracked:
            raise ValueError(
                f"frozen_statistics needs a model whose batch norms have seen images, got {name} without any; start from a "
                "checkpoint with the same heads, or leave frozen_statistics out"
            )


def train_mode(model: nn.Module, settings: TrainSettings) -> None:
    """Put `model` into train mode, but for what is frozen."""
    model.train()
    for name in settings.frozen:
        model.get_submodule(name).eval()
    if settings.frozen_statistics:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the model's parameter groups; fused everywhere, since that kernel can skip an update by a device flag."""
    groups = parameter_groups(model, settings)
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def step_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """The seed of torch's generator in one iteration, a hash: neighbouring seeds, iterations and ranks share nothing."""
    text = f"{seed}/{iteration}" + (f"/{rank}" if rank else "")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
