"""FCNHead: a few 3x3 convolutions on one map; here the auxiliary head, which helps training and is not used afterwards.

Source: Long et al., "Fully Convolutional Networks for Semantic Segmentation" (2015); as an auxiliary loss in the middle of the
backbone: Zhao et al., "Pyramid Scene Parsing Network" (2017), section 3.3. Layout and letters: see `heads`.
"""

from itertools import pairwise

from torch import Tensor, nn

from vistalib.models.heads import Head, ConvUnit


class FCNHead(Head):
    """`num_convs` 3x3 convolutions and the classifier, on one map."""

    def __init__(
        self, in_channels: int, *, channels: int = 256, num_classes: int, num_convs: int = 1, dropout: float = 0.1
    ) -> None:
        super().__init__(channels, num_classes, dropout)
        widths = [in_channels] + [channels] * num_convs
        self.convs = nn.Sequential(*(ConvUnit(before, after, 3) for before, after in pairwise(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """One map (N, C, H, W) to logits (N, K, H, W)."""
        return self.classify(self.convs(x))  # (N, K, H, W)
