"""What every segmentation head shares: the convolution unit, and the classifier at its end.

Layout: maps are (N, C, H, W); the backbone hands them over in channels-last memory and the heads keep it. Letters: N images,
C channels, H and W pixels of a map, K classes.
"""

from collections import OrderedDict

from torch import Tensor, nn

from vistalib.models.convolution import Conv


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


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    """Convolution of one map or several (see `Conv`), batch norm, ReLU. Weights start as Kaiming's fan-out normal."""
    conv = Conv(in_channels, out_channels, kernel_size)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU(inplace=True)))
