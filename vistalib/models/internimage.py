"""InternImage: a hierarchical backbone whose token mixer is deformable convolution (DCNv3).

Source: Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions" (2022),
section 3 and figures 4 and 5: a stem, four stages of blocks (see `block`), and a stride-2 convolution between stages.

Layout: channels last, (N, H, W, C), from the stem to the last stage. The maps coming out are (N, C, H, W) views of such
memory, which convolutions call the channels-last format, so nothing is copied on the way to the heads.
Letters: N images, H x W pixels (of the image, or of the map at hand), C channels of the stage at hand.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Self, get_args

import torch
from torch import Tensor, nn

from vistalib.models.block import EPS, Block, Norm, init_linear


class InternImage(nn.Module):
    """The backbone: an image (N, 3, H, W) becomes four maps (N, C_i, H_i, W_i) at 1/4, 1/8, 1/16 and 1/32 of its side.

    Stage i has `channels * 2**i` channels, `depths[i]` blocks and `groups[i]` groups. `norm` places the LayerNorms;
    `layer_scale` is the first value of a learned factor a channel on both branches of a block (None: no such factor).
    `drop_path_rate` is the rate of the last block; it rises linearly from 0 at the first. `offset_scale` widens the sampling
    grid. The huge models also use `dw_kernel_size` (kernel of the depthwise convolution that offsets and masks are read from;
    None: 3), `extra_post_norm_blocks` (blocks of the third stage that a LayerNorm follows) and `center_feature_scale` (see
    `DCNv3`). `recompute_blocks` keeps each block's input alone and computes the rest again in the backward pass. With
    `frozen_stages` of n > 0, the stem and the first n stages get no gradients and stay in evaluation mode.

    Initialisation: construction leaves the offset and mask projections at zero, so that every DCNv3 starts as the mean over
    its regular 3x3 grid, and draws the MLPs from a normal of deviation 0.02; `init_weights` draws all projections from it, as
    the released training does when it starts without a checkpoint. Raises `ValueError` for sizes that do not fit together.
    """

    def __init__(
        self,
        channels: int,
        depths: Sequence[int],
        groups: Sequence[int],
        *,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        norm: Norm = "pre",
        layer_scale: float | None = None,
        offset_scale: float = 1.0,
        dw_kernel_size: int | None = None,
        extra_post_norm_blocks: Sequence[int] = (),
        center_feature_scale: bool = False,
        recompute_blocks: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        _check(channels, depths, groups, norm=norm, layer_scale=layer_scale, extra_post_norm_blocks=extra_post_norm_blocks)
        _check_training(drop_path_rate, frozen_stages)
        self.depths = tuple(depths)
        self.out_channels = tuple(channels * 2**stage for stage in range(len(depths)))
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.stem = Stem(channels)
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(self.out_channels, depths, strict=True)):
            blocks = [
                Block(
                    width,
                    groups[i],
                    mlp_ratio=mlp_ratio,
                    drop_path_rate=next(rates),
                    norm=norm,
                    layer_scale=layer_scale,
                    offset_scale=offset_scale,
                    dw_kernel_size=dw_kernel_size,
                    center_feature_scale=center_feature_scale,
                    recompute=recompute_blocks,
                )
                for _ in range(depth)
            ]
            self.stages.append(
                Stage(
                    blocks,
                    width,
                    final_norm=norm != "post" or center_feature_scale,
                    extra_post_norm_blocks=extra_post_norm_blocks if i == 2 else (),
                    downsample=i < len(depths) - 1,
                )
            )
        self.frozen_stages = frozen_stages
        for part in self._frozen():
            part.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Training mode for all that is not frozen."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        return [self.stem, *self.stages[: self.frozen_stages]] if self.frozen_stages else []

    @property
    def num_layers(self) -> int:
        """Blocks in all: what the layer-wise learning rate counts."""
        return sum(self.depths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to the maps (N, C, H/4, W/4), (N, 2C, H/8, W/8), (N, 4C, H/16, W/16) and (N, 8C, H/32, W/32)."""
        x: Tensor = self.stem(image.permute(0, 2, 3, 1).contiguous())  # (N, H/4, W/4, C)
        maps = []
        for stage in self.stages:
            y, x = stage(x)  # (N, H_i, W_i, C_i) and, for the next stage, (N, H_i/2, W_i/2, 2 C_i)
            maps.append(y.permute(0, 3, 1, 2))  # (N, C_i, H_i, W_i)
        return maps

    def init_weights(self) -> None:
        """Draw every Linear again, the offset and mask projections too, from the truncated normal; zero their biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init_linear(module)

    def layer_ids(self) -> dict[str, int]:
        """The depth that layer-wise learning-rate decay gives each parameter: the stem 0, block by block 1..num_layers.

        As released, a stage's `norm` and `downsample` count with the first block of the next stage, the last stage's `norm`
        with the first block of its own, and the j-th extra post-norm with the j-th block.
        """
        first = [1 + blocks for blocks in accumulate(self.depths, initial=0)][:-1]
        ids = {}
        for name, _ in self.named_parameters():
            part, *rest = name.split(".")
            if part == "stem":
                ids[name] = 0
            elif rest[1] in ("norm", "downsample"):
                ids[name] = first[min(int(rest[0]) + 1, len(first) - 1)]
            else:
                ids[name] = first[int(rest[0])] + int(rest[2])
        return ids


class Stem(nn.Module):
    """Two stride-2 convolutions, so that the first stage starts at a quarter of the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ChannelsLastConv(3, channels // 2)
        self.norm1 = nn.LayerNorm(channels // 2, eps=EPS)
        self.conv2 = ChannelsLastConv(channels // 2, channels)
        self.norm2 = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, 3) to (N, H/4, W/4, C)."""
        x = nn.functional.gelu(self.norm1(self.conv1(x)))  # (N, H/2, W/2, C/2)
        y: Tensor = self.norm2(self.conv2(x))  # (N, H/4, W/4, C)
        return y


class Stage(nn.Module):
    """Blocks at one resolution, their norms, and the downsampling that leads to the next stage."""

    def __init__(
        self, blocks: list["Block"], channels: int, *, final_norm: bool, extra_post_norm_blocks: Sequence[int], downsample: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(channels, eps=EPS) if final_norm else None
        self.extra_post_norm_blocks = tuple(extra_post_norm_blocks)
        if extra_post_norm_blocks:
            self.extra_post_norms = nn.ModuleList(nn.LayerNorm(channels, eps=EPS) for _ in extra_post_norm_blocks)
        self.downsample = Downsample(channels) if downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, C) to the map of that shape and the next stage's input (N, H/2, W/2, 2C); after the last stage, its map."""
        for j, block in enumerate(self.blocks):
            x = block(x)
            if j in self.extra_post_norm_blocks:
                x = self.extra_post_norms[self.extra_post_norm_blocks.index(j)](x)
        if self.norm is not None:
            x = self.norm(x)
        return x, x if self.downsample is None else self.downsample(x)


class Downsample(nn.Module):
    """Between stages: half the side, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ChannelsLastConv(channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(2 * channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to (N, H/2, W/2, 2C)."""
        y: Tensor = self.norm(self.conv(x))  # (N, H/2, W/2, 2C)
        return y


class ChannelsLastConv(nn.Conv2d):
    """A 3x3 stride-2 convolution of (N, H, W, C) maps; the permutes are views, and the memory stays channels last."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C_in) to (N, H/2, W/2, C_out)."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (N, H/2, W/2, C_out)


def _check(
    channels: int,
    depths: Sequence[int],
    groups: Sequence[int],
    *,
    norm: str,
    layer_scale: float | None,
    extra_post_norm_blocks: Sequence[int],
) -> None:
    if len(depths) != 4 or len(groups) != 4:
        raise ValueError(f"depths and groups must have one entry for each of 4 stages, got depths={depths} and groups={groups}")
    if channels % 2:
        raise ValueError(f"channels must be even, since the stem starts with half of them, got {channels}; try {channels + 1}")
    for i, group in enumerate(groups):
        if (channels * 2**i) % group:
            raise ValueError(f"the channels of stage {i}, {channels * 2**i}, must be divisible by its groups, got {group}")
    if norm not in get_args(Norm):
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")
    if norm == "res_post" and layer_scale is not None:
        raise ValueError(
            f'norm="res_post" has no layer scale, got layer_scale={layer_scale}; use layer_scale=None or norm="pre"'
        )
    outside = [j for j in extra_post_norm_blocks if not 0 <= j < depths[2]]
    if outside:
        raise ValueError(f"extra_post_norm_blocks counts the {depths[2]} blocks of the third stage from 0, got {outside}")


def _check_training(drop_path_rate: float, frozen_stages: int) -> None:
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must be at least 0 and less than 1, got {drop_path_rate}; try 0.2")
    if frozen_stages not in range(5):
        raise ValueError(f"frozen_stages must be 0, for none, to 4, for the whole backbone, got {frozen_stages}; try 0")
