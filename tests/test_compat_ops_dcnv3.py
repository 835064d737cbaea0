"""Code written for the released `ops_dcnv3` package runs unchanged on our operator, and computes what the released one did."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_with_torch
from ops_helpers import RECORDED, called, disagreements, recorded, worst
from torch import Tensor, nn

from vistalib import ops
from vistalib.compat import ops_dcnv3
from vistalib.compat.ops_dcnv3 import DCNv3, DCNv3_pytorch, DCNv3Function, dcnv3_core_pytorch
from vistalib.models import UPerHead, from_released

GOLDEN = Path(__file__).parent / "data" / "models" / "upernet_t_style.npz"


class PixelsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class Layer(nn.Module):
    """A pre-norm InternImage layer as others write it, with the released parameter names."""

    def __init__(self, opsm: ModuleType, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.Sequential(nn.LayerNorm(channels, eps=1e-6))
        self.dcn = opsm.DCNv3(
            channels=channels,
            kernel_size=3,
            stride=1,
            pad=1,
            dilation=1,
            group=groups,
            offset_scale=1.0,
            act_layer="GELU",
            norm_layer="LN",
            dw_kernel_size=None,
            center_feature_scale=False,
        )
        self.norm2 = nn.Sequential(nn.LayerNorm(channels, eps=1e-6))
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma1, self.gamma2 = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma1 * self.dcn(self.norm1(x))
        return x + self.gamma2 * self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class Backbone(nn.Module):
    """An InternImage as others write it: `levels` of layers, each but the last with a `downsample`."""

    def __init__(self, opsm: ModuleType, channels: int, depths: tuple[int, ...], groups: tuple[int, ...]) -> None:
        super().__init__()
        half = channels // 2
        self.patch_embed = nn.Module()
        self.patch_embed.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1)
        self.patch_embed.norm1 = nn.Sequential(PixelsFirst(), nn.LayerNorm(half, eps=1e-6), ChannelsFirst())
        self.patch_embed.conv2 = nn.Conv2d(half, channels, 3, stride=2, padding=1)
        self.patch_embed.norm2 = nn.Sequential(PixelsFirst(), nn.LayerNorm(channels, eps=1e-6))
        self.levels = nn.ModuleList()
        for i, (depth, group) in enumerate(zip(depths, groups)):
            level, width = nn.Module(), channels * 2**i
            level.blocks = nn.ModuleList(Layer(opsm, width, group) for _ in range(depth))
            level.norm = nn.Sequential(nn.LayerNorm(width, eps=1e-6))
            if i < len(depths) - 1:
                level.downsample = nn.Module()
                level.downsample.conv = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
                level.downsample.norm = nn.Sequential(PixelsFirst(), nn.LayerNorm(2 * width, eps=1e-6))
            self.levels.append(level)
        self.apply(lambda module: module._reset_parameters() if isinstance(module, opsm.DCNv3) else None)

    def forward(self, image: Tensor) -> list[Tensor]:
        stem, maps = self.patch_embed, []
        x = stem.norm2(stem.conv2(nn.functional.gelu(stem.norm1(stem.conv1(image)))))
        for level in self.levels:
            for block in level.blocks:
                x = block(x)
            maps.append(level.norm(x).permute(0, 3, 1, 2))
            if hasattr(level, "downsample"):
                x = level.downsample.norm(level.downsample.conv(maps[-1]))
        return maps


def test_an_internimage_written_for_the_released_package_computes_the_released_logits() -> None:
    with np.load(GOLDEN) as file:
        released = {key.removeprefix("sd/"): torch.from_numpy(file[key]) for key in file.files if key.startswith("sd/")}
        image, expected = torch.from_numpy(file["img"]), torch.from_numpy(file["logits_raw"])
    model = Backbone(ops_dcnv3.modules, channels=16, depths=(1, 1, 2, 1), groups=(2, 4, 8, 16))
    model.load_state_dict({key.removeprefix("backbone."): t for key, t in released.items() if key.startswith("backbone.")})
    head = UPerHead((16, 32, 64, 128), channels=24, num_classes=19).eval()
    ours = from_released(released)
    head.load_state_dict({key.removeprefix("decode_head."): t for key, t in ours.items() if key.startswith("decode_head.")})
    assert worst(head(model(image)), expected) < 5e-5  # measured 6e-6, at logits of up to 2.7


def test_parameters_are_the_released_ones_in_the_released_order() -> None:
    prefix = "sd/backbone.levels.0.blocks.0.dcn."
    with np.load(GOLDEN) as file:
        released = {key.removeprefix(prefix): file[key].shape for key in file.files if key.startswith(prefix)}
    state = DCNv3(channels=16, group=2).state_dict()
    assert list(state) == list(released)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == released


def test_the_stand_in_is_our_layer_under_other_names() -> None:
    theirs = DCNv3(16, 5, 3, 2, 2, 1, 2, 0.5, center_feature_scale=False)
    ours = ops.DCNv3(16, 2, kernel_size=5, dw_kernel_size=3, stride=2, padding=2, offset_scale=0.5)
    nn.init.normal_(theirs.offset.weight)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 9, 8, 16)
    assert torch.equal(theirs(x), ours(x))
    assert (theirs.group, theirs.group_channels, theirs.channels) == (2, 8, 16)


@pytest.mark.parametrize("activation", ["GELU", "SiLU", "ReLU"])
@pytest.mark.parametrize("norm", ["LN", "BN"])
def test_activation_and_norm_are_those_asked_for(activation: str, norm: str) -> None:
    layer = DCNv3_pytorch(8, group=2, act_layer=activation, norm_layer=norm).eval()
    seen = layer.dw_conv[0](x := torch.randn(1, 8, 5, 6))
    normed = nn.functional.layer_norm(seen.permute(0, 2, 3, 1), (8,), eps=1e-6)
    if norm == "BN":
        normed = seen.permute(0, 2, 3, 1) / (1 + 1e-5) ** 0.5
    function = {"GELU": nn.functional.gelu, "SiLU": nn.functional.silu, "ReLU": nn.functional.relu}[activation]
    assert worst(layer.dw_conv(x), function(normed)) < 1e-6  # measured 1.2e-7
    assert (f"dw_conv.1.{0 if norm == 'BN' else 1}.weight") in layer.state_dict()


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("function", ["core", "Function", "Function-as-first-released"])
def test_the_functions_give_the_recorded_numbers(name: str, function: str) -> None:
    inputs, truth = recorded(name)
    s = inputs.settings
    depth = inputs.value.shape[-1] // s["groups"]
    pairs = (*s["kernel_size"], *s["stride"], *s["padding"], *s["dilation"])
    settings = (*pairs, s["groups"], depth, s["offset_scale"])
    call = dcnv3_core_pytorch if function == "core" else DCNv3Function.apply
    more = {"core": (0,), "Function": (256, False), "Function-as-first-released": (256,)}[function]
    results = called(lambda *tensors: call(*tensors, *settings, *more), inputs._replace(settings={}))
    assert not disagreements(results, truth)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param({"remove_center": True}, "remove_center has no counterpart", id="remove_center"),
        pytest.param({"act_layer": "Mish"}, "act_layer must be one of GELU, SiLU, ReLU, got 'Mish'", id="act_layer"),
        pytest.param({"norm_layer": "GN"}, "norm_layer must be one of LN, BN, got 'GN'", id="norm_layer"),
        pytest.param({"channels": 30, "group": 4}, "channels must be divisible by groups", id="group"),
        pytest.param({"kernel_size": 5}, "one prediction per output pixel", id="pad"),
    ],
)
def test_what_cannot_be_honoured_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DCNv3(**arguments)


def test_group_channels_that_do_not_fit_are_refused() -> None:
    inputs, _ = recorded(RECORDED[0])
    with pytest.raises(ValueError, match=r"group \* group_channels channels, got 64 for 4 \* 8; pass group_channels=16"):
        dcnv3_core_pytorch(*inputs.tensors, 3, 3, 1, 1, 1, 1, 1, 1, 4, 8, 1.0)


def test_after_install_the_released_imports_work_as_they_are() -> None:
    code = """
import vistalib.compat.ops_dcnv3
vistalib.compat.ops_dcnv3.install()
from ops_dcnv3 import modules as opsm
from ops_dcnv3.modules import DCNv3
from ops_dcnv3.modules.dcnv3 import DCNv3_pytorch
from ops_dcnv3.functions import DCNv3Function
from ops_dcnv3.functions.dcnv3_func import dcnv3_core_pytorch
import ops_dcnv3.modules.dcnv3
print(getattr(opsm, "DCNv3") is DCNv3 is ops_dcnv3.DCNv3, DCNv3.__module__)
"""
    assert run_with_torch(code) == "True vistalib.compat.ops_dcnv3"
