"""Batch norm over the images of all ranks, on any device.

With two images a rank, the statistics of a rank alone are poor, so the released models were trained with those of all sixteen.
torch has such a layer for GPUs and refuses CPUs; the one here does the same in plain operations. Parameters, buffers and their
names are those of `BatchNorm2d`.

Letters: N images of this rank, C channels, H x W pixels, R ranks.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def synchronize_batch_norm(model: nn.Module) -> nn.Module:
    """Let every `BatchNorm2d` of `model` use the images of all ranks, if there is more than one rank.

    Call it with `torch.distributed` initialised and the model on its device, before the optimizer and
    DistributedDataParallel are built. On GPUs the layers become torch's own, elsewhere `SyncBatchNorm`. Returns `model`,
    changed in place.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return model
    if next(model.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return model
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SyncBatchNorm.taking_over(child))
    return model


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm with the mean and variance of all ranks, which may have different numbers of images, each at least one."""

    @classmethod
    def taking_over(cls, norm: nn.BatchNorm2d) -> "SyncBatchNorm":
        """A layer that holds the parameters and buffers of `norm` themselves, in the same mode."""
        layer = cls(norm.num_features, norm.eps, norm.momentum, device="meta")
        for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
            setattr(layer, name, tensor)
        return layer.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        if not self.training:
            return super().forward(x)
        mean, var, count = _statistics(x)  # (C,), (C,), ()
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        y: Tensor = _Normalize.apply(x, self.weight, self.bias, mean, var, count, self.eps)  # type: ignore[no-untyped-call]
        return y


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all ranks, and how many values they are of."""
    precise = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    var, mean = torch.var_mean(precise, dim=(0, 2, 3), correction=0)  # (C,), (C,)
    mine = torch.cat([mean, var, mean.new_tensor([x.numel() / x.shape[1]])])  # (2 C + 1,)
    ranks = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(ranks, mine)
    means, variances, counts = torch.split(torch.stack(ranks), [len(mean), len(mean), 1], dim=1)  # (R, C), (R, C), (R, 1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count  # (C,)
    var = (counts * (variances + (means - mean).square())).sum(0) / count  # (C,)
    return mean, var, count


class _Normalize(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, where mean and var depend on every rank's x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), count)
        return nn.functional.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        normal = (x - mean[:, None, None]) * scale[:, None, None]  # (N, C, H, W)
        grad = grad.to(mean.dtype)
        mine = torch.stack([grad.sum((0, 2, 3)), (grad * normal).sum((0, 2, 3))])  # (2, C)
        everyones = mine.clone()
        dist.all_reduce(everyones)
        # What a value adds to the output is less what it adds to the mean and the variance of all.
        through_mean, through_var = (everyones / count)[:, :, None, None]  # (C, 1, 1) each
        grad_x = (weight * scale)[:, None, None] * (grad - through_mean - normal * through_var)  # (N, C, H, W)
        return grad_x.to(x.dtype), mine[1], mine[0], None, None, None, None
