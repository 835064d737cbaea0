"""The named models: the released ones, T to XL, the huge ones for loading and study, and two of our own that train on a CPU.

Source of the released numbers: the configurations of InternImage's segmentation release (T to XL those for Cityscapes and
Mapillary Vistas, H and G `upernet_internimage_{h,g}_896_160k_ade20k`) and the tables beside them. They have 150 classes
whatever they are trained on. A name is `{head}_internimage_{size}`.
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
    norm: Literal["pre", "post", "res_post"] = "post"
    layer_scale: float | None = 1.0
    offset_scale: float = 1.0
    dw_kernel_size: int | None = None
    extra_post_norm_blocks: tuple[int, ...] = ()
    center_feature_scale: bool = False


@dataclass(frozen=True)
class Published:
    """What the released tables print, or None, and the image's (height, width) that the FLOPs are for."""

    parameters: str | None = None
    flops: str | None = None
    size: tuple[int, int] = (1024, 2048)


@dataclass(frozen=True)
class Variant:
    """A named model: backbone, head and their widths; `auxiliary_channels` is None where there is no auxiliary head."""

    size: str
    head: HeadKind
    head_channels: int
    auxiliary_channels: int | None
    published: Published = Published()

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
    "h": Backbone(
        320,
        (6, 6, 32, 6),
        (10, 20, 40, 80),
        drop_path_rate=0.5,
        norm="res_post",
        layer_scale=None,
        dw_kernel_size=5,
        extra_post_norm_blocks=(5, 11, 17, 23, 29),
        center_feature_scale=True,
    ),
    "g": Backbone(
        512,
        (2, 2, 48, 4),
        (16, 32, 64, 128),
        drop_path_rate=0.5,
        layer_scale=None,
        dw_kernel_size=5,
        extra_post_norm_blocks=(5, 11, 17, 23, 29, 35, 41, 47),
        center_feature_scale=True,
    ),
}


def _upernet(size: str, published: Published) -> Variant:
    return Variant(size, "upernet", head_channels=512, auxiliary_channels=256, published=published)


def _segformer(size: str, published: Published) -> Variant:
    return Variant(size, "segformer", head_channels=256, auxiliary_channels=None, published=published)


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("nano", "upernet", head_channels=64, auxiliary_channels=32),
        Variant("micro", "upernet", head_channels=128, auxiliary_channels=64),
        _upernet("t", Published("59M", "1889G")),
        _upernet("s", Published("80M", "2035G")),
        _upernet("b", Published("128M", "2369G")),
        _upernet("l", Published("256M", "3234G")),
        _upernet("xl", Published("368M", "4022G")),
        _upernet("h", Published("1.12B", "3566G", size=(896, 896))),
        _upernet("g", Published(size=(896, 896))),  # released as a configuration, without a row in a table
        _segformer("l", Published("220M", "1580G")),
        _segformer("xl", Published("330M", "2364G")),
    )
}


def size_of(channels: int, depths: tuple[int, ...]) -> str | None:
    """The size whose backbone has these widths and depths, or None."""
    return next((size for size, row in BACKBONES.items() if (row.channels, row.depths) == (channels, depths)), None)


def backbone_options(size: str) -> dict[str, Any]:
    """The keyword arguments of `InternImage` for a size."""
    return dict(vars(BACKBONES[size]))
