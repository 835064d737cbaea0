"""What every segmentation head shares: the convolution unit, and the classifier at its end.

Layout: maps are (N, C, H, W); the backbone hands them over in channels-last memory and the heads keep it. Letters: N images,
C channels, H and W pixels of a map, K classes.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from vistalib.models.convolution import Conv, lean


class Head(nn.Module):
    """A head's end: dropout of whole channels, then a 1x1 convolution to `num_classes` logits a pixel."""

    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv_seg = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.dropout = nn.Dropout2d(dropout)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]  # a Conv2d built with a bias has one

    def classify(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, K, H, W)."""
        logits: Tensor = self.conv_seg(self.dropout(x))  # (N, K, H, W)
        return logits


class ConvUnit(nn.Sequential):
    """Convolution of one map or several (see `Conv`), batch norm, ReLU. Weights start as Kaiming's fan-out normal."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        conv = Conv(in_channels, out_channels, kernel_size)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU(inplace=True)))

    def forward(self, maps: Tensor | Sequence[Tensor]) -> Tensor:
        """Maps as `Conv` takes them to (N, O, H, W)."""
        if self.bn.training or not lean(maps if isinstance(maps, Tensor) else maps[0]):
            x: Tensor = super().forward(maps)
            return x
        # With fixed statistics batch norm is a factor and a summand for each channel: the weight takes the factor.
        scale = self.bn.weight * (self.bn.running_var + self.bn.eps).rsqrt()  # (O,)
        shift = self.bn.bias - self.bn.running_mean * scale
        x = self.conv.with_weight(self.conv.weight * scale[:, None, None, None], maps)  # (N, O, H, W)
        return x.add_(shift[:, None, None]).relu_()
