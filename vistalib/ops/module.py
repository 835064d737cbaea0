"""The DCNv3 layer: a depthwise look around each pixel decides where to sample and how much each sample counts.

Source: Wang et al., "InternImage", CVPR 2023, section 3.1; centre feature scale as in the released H and G models.
Layout: channels last, (N, H, W, C) -> (N, P, Q, C). Parameters carry the released names.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vistalib.ops.definition import sampling_locations, split
from vistalib.ops.dispatch import dcnv3
from vistalib.ops.geometry import Pair, pair


class ChannelsLast(nn.Module):
    """(N, C, H, W) seen as (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H, W, C), without a copy."""
        return x.permute(0, 2, 3, 1)


class DCNv3(nn.Module):
    """Input projection, sampling at predicted locations, output projection; (N, H, W, C) -> (N, P, Q, C).

    `dw_kernel_size` is the window of the depthwise convolution that predicts offset and mask (default: `kernel_size`).
    `center_feature_scale` blends each sampled pixel with the unsampled one, by a gate per group. Right after construction
    all offsets are zero and all K points weigh 1/K. Raises `ValueError` for sizes whose prediction would not line up.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        kernel_size: Pair = 3,
        dw_kernel_size: Pair | None = None,
        stride: Pair = 1,
        padding: Pair = 1,
        dilation: Pair = 1,
        offset_scale: float = 1.0,
        center_feature_scale: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if groups < 1 or channels < 1 or channels % groups:
            raise ValueError(
                f"channels must be divisible by groups, got channels={channels} and groups={groups}; "
                f"try groups={next((g for g in range(min(groups, channels), 0, -1) if channels % g == 0), 1)}"
            )
        self.channels, self.groups, self.offset_scale, self.backend = channels, groups, offset_scale, backend
        self.kernel_size, self.stride = pair(kernel_size), pair(stride)
        self.padding, self.dilation = pair(padding), pair(dilation)
        self.center_feature_scale = center_feature_scale
        look = self.kernel_size if dw_kernel_size is None else pair(dw_kernel_size)
        look_padding = ((look[0] - 1) // 2, (look[1] - 1) // 2)
        growth = [2 * self.padding[i] - self.dilation[i] * (self.kernel_size[i] - 1) for i in (0, 1)]
        look_growth = [2 * look_padding[i] - (look[i] - 1) for i in (0, 1)]
        if growth != look_growth:
            raise ValueError(
                "the depthwise convolution must give one prediction per output pixel, got a size change of "
                f"{tuple(look_growth)} there and {tuple(growth)} here before the stride; "
                "choose padding so that 2 * padding - dilation * (kernel_size - 1) is 0 (-1 where dw_kernel_size is even)"
            )
        if center_feature_scale and (self.stride != (1, 1) or growth != [0, 0]):
            raise ValueError(
                f"center_feature_scale blends pixel by pixel, so output and input must have one size, got stride={self.stride} "
                f"and padding={self.padding}; use stride=1 and padding that keeps the size"
            )

        points = self.kernel_size[0] * self.kernel_size[1]
        self.dw_conv = nn.Sequential(
            nn.Conv2d(channels, channels, look, stride=self.stride, padding=look_padding, groups=channels),
            nn.Sequential(ChannelsLast(), nn.LayerNorm(channels, eps=1e-6)),
            nn.GELU(),
        )
        self.offset = nn.Linear(channels, groups * points * 2)
        self.mask = nn.Linear(channels, groups * points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(groups, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(groups))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero offset, mask and gate; Xavier-uniform projections with zero bias."""
        for linear in (self.offset, self.mask):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        if self.center_feature_scale:
            nn.init.zeros_(self.center_feature_scale_proj_weight)
            nn.init.zeros_(self.center_feature_scale_proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, P, Q, C)."""
        value = self.input_proj(x)  # (N, H, W, C)
        seen = self._look(x)  # (N, P, Q, C)
        offset, logits = self._predict(seen)  # (N, P, Q, G*K*2), (N, P, Q, G*K)
        output = dcnv3(
            value,
            offset,
            logits,
            groups=self.groups,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            offset_scale=self.offset_scale,
            mask_is_logits=True,
            backend=self.backend,
        )  # (N, P, Q, C)
        if self.center_feature_scale:
            gate = F.linear(seen, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias).sigmoid()
            output, value = (split(y, self.groups, self.channels // self.groups) for y in (output, value))  # (N, P, Q, G, D)
            output = output.lerp(value, gate[..., None]).flatten(-2)  # (N, P, Q, C)
        projected: Tensor = self.output_proj(output)
        return projected

    def locations(self, x: Tensor) -> Tensor:
        """Where every output pixel samples for input `x` (N, H, W, C): (N, P, Q, G, K, 2), (x, y) in pixels of `x`."""
        return sampling_locations(
            self._predict(self._look(x))[0],
            groups=self.groups,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            offset_scale=self.offset_scale,
        )

    def modulation(self, x: Tensor) -> Tensor:
        """How much each sample counts for input `x` (N, H, W, C): (N, P, Q, G, K), summing to 1 over K."""
        logits = self._predict(self._look(x))[1]  # (N, P, Q, G*K)
        return split(logits, self.groups, self.kernel_size[0] * self.kernel_size[1]).softmax(-1)  # (N, P, Q, G, K)

    def extra_repr(self) -> str:
        """What `print` shows of this layer."""
        return (
            f"{self.channels}, {self.groups}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, offset_scale={self.offset_scale}, backend={self.backend!r}"
        )

    def _look(self, x: Tensor) -> Tensor:
        seen: Tensor = self.dw_conv(x.permute(0, 3, 1, 2))
        return seen

    def _predict(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Offset (N, P, Q, G*K*2) and mask logits (N, P, Q, G*K) by one matrix product: views of the channels of one tensor."""
        weight = torch.cat((self.offset.weight, self.mask.weight))
        bias = torch.cat((self.offset.bias, self.mask.bias))
        both = F.linear(seen, weight, bias)  # (N, P, Q, G*K*3)
        offset, logits = both.split_with_sizes((self.offset.out_features, self.mask.out_features), -1)
        return offset, logits
