"""UPerHead: pyramid pooling on the coarsest map, a feature pyramid down to the finest, and all levels fused.

Source: Xiao et al., "Unified Perceptual Parsing for Scene Understanding" (2018), figure 4; pyramid pooling from Zhao et al.,
"Pyramid Scene Parsing Network" (2017). Layout and letters: see `heads`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vistalib.models.convolution import resize, side
from vistalib.models.heads import Head, ConvUnit


class UPerHead(Head):
    """Pyramid pooling and a feature pyramid, fused at the finest map's size."""

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        channels: int = 512,
        num_classes: int,
        dropout: float = 0.1,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__(channels, num_classes, dropout)
        *finer, top = in_channels
        self.ppm = PyramidPooling(top, channels, pool_scales)
        self.bottleneck = ConvUnit(top + len(pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvUnit(c, channels) for c in finer)
        self.fpn_convs = nn.ModuleList(ConvUnit(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = ConvUnit(len(in_channels) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps (N, C_i, H_i, W_i) to logits (N, K, H_0, W_0)."""
        *finer, top = maps
        x: Tensor = self.bottleneck([top, *self.ppm(top)])  # (N, C, H_3, W_3)
        levels = [x]
        for lateral, fine in zip(reversed(self.lateral_convs), reversed(finer), strict=True):
            x = resize(x, side(fine)).add_(lateral(fine))  # (N, C, H_i, W_i)
            levels.insert(0, x)
        smooth = [conv(level) for conv, level in zip(self.fpn_convs, levels[:-1], strict=True)] + levels[-1:]
        return self.classify(self.fpn_bottleneck(smooth))  # (N, K, H_0, W_0)


class PyramidPooling(nn.ModuleList):
    """The mean of a map over grids of s x s cells, for each scale s, mixed by a 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int, pool_scales: Sequence[int]) -> None:
        super().__init__(ConvUnit(in_channels, channels) for _ in pool_scales)
        self.pool_scales = tuple(pool_scales)

    def forward(self, x: Tensor) -> list[Tensor]:
        """One map (N, C_in, H, W) to a map (N, C, s, s) a scale. Raises `ValueError` where batch norm has a single value."""
        outputs = []
        for scale, unit in zip(self.pool_scales, self, strict=True):
            if x.shape[0] * scale**2 == 1 and self.training and type(unit.bn) is nn.BatchNorm2d:  # not over several ranks
                raise ValueError(
                    "batch norm needs more than one value a channel in training, and pooling one image to 1x1 leaves one; "
                    "use a batch of at least 2 images a rank, or several ranks with synchronize_batch_norm(model), "
                    "or freeze the statistics with head.ppm.eval()"
                )
            # An exported program takes x of any size, and compilers and ONNX know adaptive pooling for fixed sizes alone.
            pool = mean_of_cells if torch.compiler.is_exporting() else nn.functional.adaptive_avg_pool2d
            pooled = pool(x, scale)  # (N, C_in, s, s)
            outputs.append(unit(pooled))  # (N, C, s, s)
        return outputs


def mean_of_cells(x: Tensor, scale: int) -> Tensor:
    """Adaptive average pooling of (N, C, H, W) to (N, C, s, s) as one matrix product, whose matrix is made from the sizes.

    Cell i of s covers the pixels from floor(i * H / s) to ceil((i + 1) * H / s), so pixel j is in it where (j + 1) * s > i * H
    and j * s < (i + 1) * H: whole numbers, hence exactly the cells that `adaptive_avg_pool2d` takes.
    """
    cell = torch.arange(scale, device=x.device)[:, None]

    def shares(size: int) -> Tensor:
        pixel = torch.arange(size, device=x.device)
        inside = ((pixel + 1) * scale > cell * size) & (pixel * scale < (cell + 1) * size)
        return inside.to(x.dtype) / inside.sum(1, keepdim=True)  # (s, size)

    both = shares(x.shape[2])[:, None, :, None] * shares(x.shape[3])[:, None]  # (s, s, H, W)
    pooled = x.flatten(2) @ both.flatten(2).flatten(0, 1).mT  # (N, C, s*s)
    return pooled.view(*x.shape[:2], scale, scale)
