"""How often a forward pass copies a map: counted among the operations that the models ask torch for.

What torch does inside an operation (a matrix product that lays out a part anew, a convolution its weight) is not seen here.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vistalib.models import FCNHead, InternImage, SegFormerHead, Segmentor, UPerHead, convolution

aten = torch.ops.aten
COPYING = {aten.clone, aten.copy_, aten._to_copy, aten.cat, aten.stack, aten.constant_pad_nd, aten.repeat, aten.index}
IMAGES = 5  # a first dimension that no weight has
HUGE = {"dw_kernel_size": 5, "extra_post_norm_blocks": (1,), "center_feature_scale": True}
STYLES = {
    "pre": {"norm": "pre"},
    "post, layer scale": {"norm": "post", "layer_scale": 1.0, "drop_path_rate": 0.5},
    "H": {"norm": "res_post", **HUGE},
    "G": {"norm": "post", **HUGE},
}


class Copies(TorchDispatchMode):
    """The copies of maps beneath it: what copied, and the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in COPYING and output.ndim > 2 and output.shape[0] == IMAGES:
            self.found.append((func.overloadpacket.__name__, tuple(output.shape)))
        return output


def copies(module: torch.nn.Module, x: Tensor | list[Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    with Copies() as seen:
        module(x)
    return seen.found


def segmentor(head: str) -> Segmentor:
    backbone = InternImage(8, (1, 1, 2, 1), (1, 2, 4, 8))
    kind = {"upernet": UPerHead, "segformer": SegFormerHead}[head]
    return Segmentor(backbone, kind(backbone.out_channels, channels=8, num_classes=7), FCNHead(32, num_classes=7))


IMAGE = ("clone", (IMAGES, 64, 96, 3))


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("style", STYLES)
def test_the_backbone_copies_the_image_to_channels_last_and_nothing_else(style: str, training: bool) -> None:
    backbone = InternImage(8, (1, 1, 2, 1), (1, 2, 4, 8), **STYLES[style]).train(training)
    assert copies(backbone, torch.randn(IMAGES, 3, 64, 96)) == [IMAGE]


def test_an_image_in_channels_last_memory_is_not_copied() -> None:
    image = torch.randn(IMAGES, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    assert copies(InternImage(8, (1, 1, 2, 1), (1, 2, 4, 8)), image) == []


# The definition, as it runs on GPUs. Of the concatenations, torch has no convolution that reads several maps; the map pooled to
# one pixel has no layout of its own, so that its resized form must be given one.
@pytest.mark.parametrize(
    ("head", "others"),
    [
        ("upernet", [("clone", (IMAGES, 8, 2, 3)), ("cat", (IMAGES, 64 + 4 * 8, 2, 3)), ("cat", (IMAGES, 4 * 8, 16, 24))]),
        ("segformer", [("cat", (IMAGES, 4 * 8, 16, 24))]),
    ],
    ids=["upernet", "segformer"],
)
def test_the_heads_copy_only_what_they_concatenate(
    head: str, others: list[tuple[str, tuple[int, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "written_out", lambda x: True)
    assert copies(segmentor(head), torch.randn(IMAGES, 3, 64, 96)) == [IMAGE, *others]


@pytest.mark.parametrize("height", [64, 256], ids=["one band", "two bands"])
@pytest.mark.parametrize("head", ["upernet", "segformer"])
def test_on_a_cpu_the_only_copy_as_large_as_the_finest_map_puts_its_bands_together(
    head: str, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "WORTHWHILE", 0)  # as maps of more channels are treated
    first, *others = copies(segmentor(head), torch.randn(IMAGES, 3, height, 96))
    finest = (IMAGES, height // 4, 24, 8)
    assert first == ("clone", (IMAGES, height, 96, 3))
    assert [copy for copy in others if math.prod(copy[1]) >= math.prod(finest)] == [("cat", finest)]
