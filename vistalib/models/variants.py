"""The named models: the released ones, T to XL, and two of our own that train on a CPU.

Source of the released numbers: the configurations of InternImage's segmentation release; they have 150 classes whatever they
are trained on. A name is `{head}_internimage_{size}`.
"""

from dataclasses import dataclass
from typing import Any, Literal

HeadKind = Literal["upernet", "segformer"]


@dataclass(frozen=True)
class Backbone:
    """A row of the table of backbones: the arguments of `InternImage` that make a size."""

    channels: int
    depths: tuple[int, int, int, int]
    groups: tuple[int, int, int, int]
    drop_path_rate: float
    norm: Literal["pre", "post"] = "post"
    layer_scale: float | None = 1.0
    offset_scale: float = 1.0


@dataclass(frozen=True)
class Variant:
    """A named model: backbone, head and their widths; `auxiliary_channels` is None where there is no auxiliary head."""

    size: str
    head: HeadKind
    head_channels: int
    auxiliary_channels: int | None

    @property
    def name(self) -> str:
        """What `create_model` calls it."""
        return f"{self.head}_internimage_{self.size}"


BACKBONES = {
    "nano": Backbone(16, (1, 1, 3, 1), (1, 2, 4, 8), drop_path_rate=0.0, norm="pre", layer_scale=None),
    "micro": Backbone(32, (2, 2, 6, 2), (2, 4, 8, 16), drop_path_rate=0.0, norm="pre", layer_scale=None),
    "t": Backbone(64, (4, 4, 18, 4), (4, 8, 16, 32), drop_path_rate=0.2, norm="pre"),
    "s": Backbone(80, (4, 4, 21, 4), (5, 10, 20, 40), drop_path_rate=0.3),
    "b": Backbone(112, (4, 4, 21, 4), (7, 14, 28, 56), drop_path_rate=0.4),
    "l": Backbone(160, (5, 5, 22, 5), (10, 20, 40, 80), drop_path_rate=0.4, offset_scale=2.0),
    "xl": Backbone(192, (5, 5, 24, 5), (12, 24, 48, 96), drop_path_rate=0.4, offset_scale=2.0),
}

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("nano", "upernet", head_channels=64, auxiliary_channels=32),
        Variant("micro", "upernet", head_channels=128, auxiliary_channels=64),
        *(Variant(size, "upernet", head_channels=512, auxiliary_channels=256) for size in ("t", "s", "b", "l", "xl")),
        *(Variant(size, "segformer", head_channels=256, auxiliary_channels=None) for size in ("l", "xl")),
    )
}


def size_of(channels: int, depths: tuple[int, ...]) -> str | None:
    """The size whose backbone has these widths and depths, or None."""
    return next((size for size, row in BACKBONES.items() if (row.channels, row.depths) == (channels, depths)), None)


def backbone_options(size: str) -> dict[str, Any]:
    """The keyword arguments of `InternImage` for a size."""
    return dict(vars(BACKBONES[size]))
