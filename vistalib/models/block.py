"""The block of InternImage: a transformer block with DCNv3 in place of attention.

Source: Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions" (2022), section
3.2 and figure 4. DCNv3 mixes neighbouring pixels, an MLP mixes channels, and each is added to its input. The LayerNorms stand
before the two branches (pre), at their ends (post), or at both (res_post):

    pre        x + DCNv3(norm(x)),        then  x + MLP(norm(x))
    post       x + norm(DCNv3(x)),        then  x + norm(MLP(x))
    res_post   x + norm(DCNv3(norm(x))),  then  x + norm(MLP(norm(x)))

Layout: channels last, (N, H, W, C): N images, H x W pixels of a map, C channels.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vistalib.models.convolution import lean
from vistalib.ops import DCNv3

Norm = Literal["pre", "post", "res_post"]
EPS = 1e-6
PIECE = 2048  # pixels


class Block(nn.Module):
    """DCNv3 mixes neighbouring pixels, an MLP mixes channels; each is added to its input."""

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        mlp_ratio: float,
        drop_path_rate: float,
        norm: Norm,
        layer_scale: float | None,
        offset_scale: float,
        dw_kernel_size: int | None,
        center_feature_scale: bool,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.recompute = recompute
        self.layer_scale1 = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
        self.layer_scale2 = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
        self.norm1 = nn.LayerNorm(channels, eps=EPS)
        self.dcn = DCNv3(
            channels,
            groups,
            dw_kernel_size=dw_kernel_size,
            offset_scale=offset_scale,
            center_feature_scale=center_feature_scale,
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(channels, eps=EPS)
        self.mlp = MLP(channels, int(channels * mlp_ratio))
        if norm == "res_post":
            self.res_post_norm1 = nn.LayerNorm(channels, eps=EPS)
            self.res_post_norm2 = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same."""
        if self.recompute and torch.is_grad_enabled():
            y: Tensor = checkpoint(self._mix, x, use_reentrant=False)
            return y
        return self._mix(x)

    def _mix(self, x: Tensor) -> Tensor:
        if self.norm == "post":
            x = self.drop_path(x, self.norm1(self.dcn(x)), self.layer_scale1)
            x = self.drop_path(x, self.norm2(self.mlp(x)), self.layer_scale2)
        elif self.norm == "res_post":
            x = self.drop_path(x, self.res_post_norm1(self.dcn(self.norm1(x))))
            x = self.drop_path(x, self.res_post_norm2(self.mlp(self.norm2(x))))
        else:
            x = self.drop_path(x, self.dcn(self.norm1(x)), self.layer_scale1)
            x = self.drop_path(x, self.mlp(self.norm2(x)), self.layer_scale2)
        return x


class MLP(nn.Module):
    """Two layers a pixel with a GELU between."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        init_linear(self.fc1)
        init_linear(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same."""
        if lean(x) and x.shape[:3].numel() > PIECE:  # in pieces, whose hidden channels stay in the cache
            return torch.cat([self._mix(pixels) for pixels in torch.split(x.flatten(0, 2), PIECE)]).view_as(x)
        return self._mix(x)

    def _mix(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return y


class DropPath(nn.Module):
    """x + scale * branch; in training each sample's branch is left out with probability `rate`, and the others grow to match.

    Source: Huang et al., "Deep Networks with Stochastic Depth" (2016). Scale and drop are one small factor, so that the sum
    reads and writes the large maps once.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, branch: Tensor, scale: Tensor | None = None) -> Tensor:
        """`x` and `branch` (N, H, W, C), `scale` (C,) or none, to (N, H, W, C)."""
        if self.training and self.rate > 0:
            keep = 1 - self.rate
            kept = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep) / keep  # (N, 1, 1, 1)
            scale = kept if scale is None else kept * scale  # (N, 1, 1, C)
        return x + branch if scale is None else torch.addcmul(x, branch, scale)

    def extra_repr(self) -> str:
        """The rate, for `print(model)`."""
        return f"rate={self.rate:.3f}"


def init_linear(linear: nn.Linear) -> None:
    """Draw the weight from a truncated normal of deviation 0.02 and zero the bias."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
