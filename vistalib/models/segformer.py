"""SegFormerHead: every map through one 1x1 convolution, resized to the finest, fused by one more.

Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers" (2021), section 3.2.
Layout and letters: see `heads`.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from vistalib.models.heads import Head, ConvUnit


class SegFormerHead(Head):
    """Per-scale 1x1 convolutions, fused at the finest map's size."""

    def __init__(self, in_channels: Sequence[int], *, channels: int = 256, num_classes: int, dropout: float = 0.1) -> None:
        super().__init__(channels, num_classes, dropout)
        self.convs = nn.ModuleList(ConvUnit(c, channels) for c in in_channels)
        self.fusion_conv = ConvUnit(len(in_channels) * channels, channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps (N, C_i, H_i, W_i) to logits (N, K, H_0, W_0)."""
        levels = [conv(level) for conv, level in zip(self.convs, maps, strict=True)]  # (N, C, H_i, W_i)
        return self.classify(self.fusion_conv(levels))  # (N, K, H_0, W_0)
