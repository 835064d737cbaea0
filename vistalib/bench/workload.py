"""What is measured, and what it must cost: shapes of DCNv3 in the models, and the bytes and operations no code can avoid.

The cost model. Bytes: every tensor that goes in is read once and every tensor that comes out is written once, at the width of
its dtype. Forward that is value, offset and mask in, output out; backward it is gradient of the output, value, offset and mask
in, gradients of the last three out; both is the sum of the two. Operations: a multiply-add counts as two; forward is one for
each channel, kernel point and corner of the interpolation, backward is two (a product with the gradient, and a share of the
gradient added to the corner's pixel). What is done once for all channels of a group, locations and corner weights, is left out.

Layout: channels last. Letters: N images, H x W pixels, C channels, G groups, K = 9 points; the output is as large as the input.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from vistalib.models.variants import BACKBONES

Direction = Literal["forward", "backward", "both"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
POINTS = 9
CORNERS = 4
AWAY = 0.97  # times an offset that would lead to a pixel's centre
STEM = 4  # how much smaller than the image the first stage is


class Cost(NamedTuple):
    """What a call cannot do without: bytes moved and floating-point operations."""

    bytes: int
    flops: int


@dataclass(frozen=True)
class Workload:
    """One call of the operator as the models make it: a 3 x 3 window, stride 1, padding 1, dilation 1.

    `name` is model and stage ("l1"), or the shape; `crop` is the image it belongs to, or None.
    """

    name: str
    crop: str | None
    images: int
    height: int
    width: int
    channels: int
    groups: int
    offset_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse sizes that no call can have."""
        if min(self.images, self.height, self.width, self.channels, self.groups) < 1 or self.channels % self.groups:
            raise ValueError(
                f"sizes must be at least 1 and channels a multiple of groups, got {self.images}x{self.height}x{self.width}x"
                f"{self.channels} (NxHxWxC) and groups={self.groups}; try 1x128x256x64 with 4 groups"
            )

    def cost(self, direction: Direction, dtype: torch.dtype) -> Cost:
        """Bytes and operations of one call (see the module)."""
        pixels = self.images * self.height * self.width
        feature, offset_and_mask = pixels * self.channels, pixels * self.groups * POINTS * 3  # numbers
        moved = {"forward": 2 * feature + offset_and_mask, "backward": 3 * feature + 2 * offset_and_mask}
        added = {"forward": CORNERS * POINTS * feature, "backward": 2 * CORNERS * POINTS * feature}
        parts = ("forward", "backward") if direction == "both" else (direction,)
        return Cost(dtype.itemsize * sum(moved[part] for part in parts), 2 * sum(added[part] for part in parts))


def stage_workloads(models: Sequence[str], stages: Sequence[int], crops: Sequence[str], images: int) -> list[Workload]:
    """The operator's calls in stages 1 to 4 of models by size ("t" ... "xl"), for images cropped to "HEIGHTxWIDTH"."""
    for model in models:
        if model not in BACKBONES:
            raise ValueError(f"models must be among {', '.join(BACKBONES)}, got {model!r}")
    for stage in stages:
        if not 1 <= stage <= 4:
            raise ValueError(f"stages must be 1, 2, 3 or 4, got {stage}")
    return [_stage(model, stage, crop, images) for crop in crops for model in models for stage in stages]


def _stage(model: str, stage: int, crop: str, images: int) -> Workload:
    row, widening = BACKBONES[model], 2 ** (stage - 1)
    height, width = (-(-side // (STEM * widening)) for side in sizes(crop, "HEIGHTxWIDTH"))
    channels, groups = row.channels * widening, row.groups[stage - 1]
    return Workload(f"{model}{stage}", crop, images, height, width, channels, groups, row.offset_scale)


def sizes(text: str, form: str) -> list[int]:
    """The whole numbers in "512x1024"; `form` says which ones are wanted. Raises `ValueError` where the text is not so."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text) or text.count("x") != form.count("x"):
        raise ValueError(f"a size must be written {form} in whole numbers above 0, got {text!r}")
    return [int(number) for number in text.split("x")]


@dataclass(frozen=True)
class Offsets:
    """A distribution of offsets in pixels, before `offset_scale`: "normal:0.5" has that deviation, "uniform:4" that reach."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what `draw` could not draw."""
        if not re.fullmatch(r"(normal|uniform):(\d+\.?\d*|\.\d+)", self.text):
            raise ValueError(f"offsets must be normal:DEVIATION or uniform:REACH in pixels, got {self.text!r}; try normal:0.5")

    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Float32 numbers of `shape` on the generator's device."""
        kind, size = self.text.split(":")
        empty = torch.empty(shape, device=generator.device)
        if kind == "normal":
            return empty.normal_(0, float(size), generator=generator)
        return empty.uniform_(-float(size), float(size), generator=generator)


def draw(work: Workload, offsets: Offsets, dtype: torch.dtype, *, device: torch.device, seed: int) -> tuple[Tensor, ...]:
    """Value (N, H, W, C), offset (N, H, W, G*K*2), mask (N, H, W, G*K), summing to 1 over K, and gradient (N, H, W, C)."""
    generator = torch.Generator(device).manual_seed(seed)
    pixels = (work.images, work.height, work.width)
    normal = Offsets("normal:1")
    value = normal.draw(*pixels, work.channels, generator=generator)
    offset = offsets.draw(*pixels, work.groups * POINTS * 2, generator=generator)
    mask = normal.draw(*pixels, work.groups, POINTS, generator=generator).softmax(-1).flatten(-2)
    gradient = normal.draw(*pixels, work.channels, generator=generator)
    offset = offset.to(dtype)
    whole = (offset * work.offset_scale).frac() == 0  # of sixteen bits many are, and there the slope has two sides
    return value.to(dtype), torch.where(whole, offset * AWAY, offset), mask.to(dtype), gradient.to(dtype)
