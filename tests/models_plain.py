"""The released models once more, as plain functions of a released state dict: slow, without modules, batch norm in evaluation.

Written from the released names and the figures of the papers, and with another sampler (`grid_sample`), so that it shares no
code and no layout with `vistalib.models`: maps are (N, C, H, W) here, and a LayerNorm takes mean and variance over dimension 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


@dataclass(frozen=True)
class Style:
    """The released options that change what is computed, under their released names."""

    groups: Sequence[int]
    post_norm: bool = False
    res_post_norm: bool = False
    layer_scale: bool = False
    offset_scale: float = 1.0
    level2_post_norm_block_ids: Sequence[int] = ()


def logits(state: State, style: Style, image: Tensor) -> Tensor:
    """What the decode head that `state` holds says of an image."""
    maps = backbone(under(state, "backbone"), style, image)
    head = under(state, "decode_head")
    return upernet(head, maps) if "bottleneck.conv.weight" in head else segformer(head, maps)


def auxiliary_logits(state: State, style: Style, image: Tensor) -> Tensor:
    """What the auxiliary head says of an image."""
    head = under(state, "auxiliary_head")
    return classify(head, unit(under(head, "convs.0"), backbone(under(state, "backbone"), style, image)[2]))


def backbone(state: State, style: Style, image: Tensor) -> list[Tensor]:
    """The four maps."""
    x = convolve(under(state, "patch_embed.conv1"), image, stride=2)
    x = F.gelu(layer_norm(under(state, "patch_embed.norm1.1"), x))
    x = layer_norm(under(state, "patch_embed.norm2.1"), convolve(under(state, "patch_embed.conv2"), x, stride=2))
    maps = []
    for i in range(4):
        level = under(state, f"levels.{i}")
        for j in count():
            layer = under(level, f"blocks.{j}")
            if not layer:
                break
            x = block(layer, style, style.groups[i], x)
            if i == 2 and j in style.level2_post_norm_block_ids:
                x = layer_norm(under(level, f"post_norms.{list(style.level2_post_norm_block_ids).index(j)}.0"), x)
        if "norm.0.weight" in level:
            x = layer_norm(under(level, "norm.0"), x)
        maps.append(x)
        if i < 3:
            x = layer_norm(under(level, "downsample.norm.1"), convolve(under(level, "downsample.conv"), x, stride=2))
    return maps


def block(state: State, style: Style, groups: int, x: Tensor) -> Tensor:
    """DCNv3 and MLP, each with its norms and its scale."""
    for i, mix in ((1, lambda y: dcnv3(under(state, "dcn"), y, groups, style.offset_scale)), (2, lambda y: mlp(state, y))):
        norm = under(state, f"norm{i}.0")
        y = layer_norm(norm, mix(x)) if style.post_norm else mix(layer_norm(norm, x))
        if style.res_post_norm:
            y = layer_norm(under(state, f"res_post_norm{i}.0"), y)
        if style.layer_scale:
            y = y * state[f"gamma{i}"][:, None, None]
        x = x + y
    return x


def mlp(state: State, x: Tensor) -> Tensor:
    """Two 1x1 layers."""
    return linear(under(state, "mlp.fc2"), F.gelu(linear(under(state, "mlp.fc1"), x)))


def dcnv3(state: State, x: Tensor, groups: int, offset_scale: float) -> Tensor:
    """3x3 points a pixel and group, the columns of the window outermost, sampled one after another by `grid_sample`."""
    images, channels, height, width = x.shape
    seen = convolve(under(state, "dw_conv.0"), x, groups=channels)
    seen = F.gelu(layer_norm(under(state, "dw_conv.1.1"), seen))
    offset = linear(under(state, "offset"), seen).reshape(images * groups, 9, 2, height, width)
    mask = linear(under(state, "mask"), seen).reshape(images * groups, 9, 1, height, width).softmax(1)
    value = linear(under(state, "input_proj"), x)
    grouped = value.reshape(images * groups, channels // groups, height, width)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    output = torch.zeros_like(grouped)
    for k in range(9):
        across = columns + offset_scale * (k // 3 - 1 + offset[:, k, 0])
        down = rows + offset_scale * (k % 3 - 1 + offset[:, k, 1])
        grid = torch.stack([(2 * across + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
        output = output + mask[:, k] * F.grid_sample(grouped, grid, align_corners=False)
    output = output.reshape(value.shape)
    if "center_feature_scale_proj_weight" in state:
        weight, bias = state["center_feature_scale_proj_weight"], state["center_feature_scale_proj_bias"]
        gate = linear({"weight": weight, "bias": bias}, seen).sigmoid().repeat_interleave(channels // groups, dim=1)
        output = (1 - gate) * output + gate * value
    return linear(under(state, "output_proj"), output)


def upernet(state: State, maps: list[Tensor]) -> Tensor:
    """Pyramid pooling on the last map, then from coarse to fine."""
    pooled = [unit(under(state, f"psp_modules.{i}.1"), F.adaptive_avg_pool2d(maps[3], s)) for i, s in enumerate((1, 2, 3, 6))]
    laterals = [unit(under(state, f"lateral_convs.{i}"), maps[i]) for i in range(3)]
    laterals.append(unit(under(state, "bottleneck"), side_by_side([maps[3], *pooled])))
    for i in (2, 1, 0):
        laterals[i] = laterals[i] + resize(laterals[i + 1], laterals[i])
    smooth = [unit(under(state, f"fpn_convs.{i}"), laterals[i]) for i in range(3)]
    return classify(state, unit(under(state, "fpn_bottleneck"), side_by_side([*smooth, laterals[3]])))


def segformer(state: State, maps: list[Tensor]) -> Tensor:
    """A 1x1 unit a map, and one for all."""
    levels = [unit(under(state, f"convs.{i}"), x) for i, x in enumerate(maps)]
    return classify(state, unit(under(state, "fusion_conv"), side_by_side(levels)))


def classify(state: State, x: Tensor) -> Tensor:
    """The 1x1 classifier."""
    return linear(under(state, "conv_seg"), x)


def unit(state: State, x: Tensor) -> Tensor:
    """Convolution, batch norm by the running statistics, ReLU."""
    x = convolve(under(state, "conv"), x)
    normal = (x - state["bn.running_mean"][:, None, None]) / (state["bn.running_var"][:, None, None] + 1e-5).sqrt()
    return (normal * state["bn.weight"][:, None, None] + state["bn.bias"][:, None, None]).relu()


def under(state: State, name: str) -> State:
    """The part of `state` whose names begin with `name`, without it."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def convolve(state: State, x: Tensor, *, stride: int = 1, groups: int = 1) -> Tensor:
    """A convolution that keeps the size, or halves it."""
    weight = state["weight"]
    return F.conv2d(x, weight, state.get("bias"), stride=stride, padding=weight.shape[-1] // 2, groups=groups)


def linear(state: State, x: Tensor) -> Tensor:
    """A linear layer over the channels of (N, C, H, W)."""
    return torch.einsum("nchw,oc->nohw", x, state["weight"].flatten(1)) + state["bias"][:, None, None]


def layer_norm(state: State, x: Tensor) -> Tensor:
    """Over the channels of (N, C, H, W)."""
    var, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
    return (x - mean) / (var + 1e-6).sqrt() * state["weight"][:, None, None] + state["bias"][:, None, None]


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear to the size of `like`."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def side_by_side(maps: list[Tensor]) -> Tensor:
    """All at the size of the first, concatenated."""
    return torch.cat([maps[0], *(resize(x, maps[0]) for x in maps[1:])], dim=1)
