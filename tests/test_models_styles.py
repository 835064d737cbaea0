"""Every style of the released backbone, with both heads, against the plain rendering of `models_plain` in float64."""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_plain import Style, auxiliary_logits, logits
from torch import Tensor
from torch.nn import functional as F

from vistalib.models import FCNHead, InternImage, SegFormerHead, Segmentor, UPerHead, from_released, to_released

GROUPS = (2, 4, 8, 16)
HUGE = {"dw_kernel_size": 5, "extra_post_norm_blocks": (2, 0), "center_feature_scale": True}
# our options, and the released ones that mean the same
STYLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pre": ({"norm": "pre"}, {}),
    "pre, layer scale": ({"norm": "pre", "layer_scale": 1.0}, {"layer_scale": True}),
    "post": ({"norm": "post", "offset_scale": 2.0}, {"post_norm": True, "offset_scale": 2.0}),
    "post, layer scale": ({"norm": "post", "layer_scale": 1.0}, {"post_norm": True, "layer_scale": True}),
    "res post": ({"norm": "res_post", "offset_scale": 0.5}, {"res_post_norm": True, "offset_scale": 0.5}),
    "wide window": ({"norm": "pre", "dw_kernel_size": 7, "mlp_ratio": 2.5}, {}),
    "H": ({"norm": "res_post", **HUGE}, {"res_post_norm": True, "level2_post_norm_block_ids": (2, 0)}),
    "G": ({"norm": "post", **HUGE}, {"post_norm": True, "level2_post_norm_block_ids": (2, 0)}),
    "all but res post": (
        {"norm": "pre", "layer_scale": 1.0, "offset_scale": 2.0, **HUGE},
        {"layer_scale": True, "offset_scale": 2.0, "level2_post_norm_block_ids": (2, 0)},
    ),
}


def random_model(options: dict[str, Any], head: str) -> Segmentor:
    """A small model in float64 whose every parameter and statistic is drawn at random."""
    torch.manual_seed(0)
    backbone = InternImage(16, (1, 2, 3, 1), GROUPS, **options)
    kind = {"upernet": UPerHead, "segformer": SegFormerHead}[head]
    auxiliary = FCNHead(backbone.out_channels[2], channels=12, num_classes=7)
    model = Segmentor(backbone, kind(backbone.out_channels, channels=24, num_classes=7), auxiliary).double().eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.ndim > 1:
            tensor.normal_(std=tensor[0].numel() ** -0.5)
        elif tensor.is_floating_point():
            tensor.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.3)
    return model


def cross_entropy(output: Tensor, label: Tensor) -> Tensor:
    """Over all pixels, the ignored ones in the divisor, written out."""
    chances = F.interpolate(output, size=label.shape[1:], mode="bilinear").log_softmax(1)
    kept = label != 255
    picked = chances.gather(1, torch.where(kept, label, 0)[:, None])[:, 0]
    return -(picked * kept).mean()


def error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize(("style", "head"), [*zip(STYLES, cycle(("upernet", "segformer"))), ("H", "segformer")], ids=str)
def test_logits_losses_and_gradients_are_those_of_the_plain_rendering(style: str, head: str) -> None:
    options, released = STYLES[style]
    model, plain = random_model(options, head), Style(GROUPS, **released)
    image = torch.randn(2, 3, 50, 77, dtype=torch.float64)
    label = torch.randint(0, 7, (2, 50, 77)).masked_fill_(torch.rand(2, 50, 77) < 0.2, 255)
    state = {name: value.clone() for name, value in to_released(model.state_dict()).items()}
    leaves = from_released(state)
    for name, _ in model.named_parameters():
        leaves[name].requires_grad_()
    expected, expected_aux = logits(state, plain, image), auxiliary_logits(state, plain, image)
    (cross_entropy(expected, label) + 0.4 * cross_entropy(expected_aux, label)).backward()
    losses = model.loss(image, label)
    (losses["decode.loss_ce"] + losses["aux.loss_ce"]).backward()
    errors = {
        "logits": error(model(image), expected),
        "auxiliary logits": error(model.auxiliary_head(model.backbone(image)[2]), expected_aux),
        "decode.loss_ce": error(losses["decode.loss_ce"], cross_entropy(expected, label)),
        "aux.loss_ce": error(losses["aux.loss_ce"], 0.4 * cross_entropy(expected_aux, label)),
        **{f"gradient of {name}": error(p.grad, leaves[name].grad) for name, p in model.named_parameters()},
    }
    assert max(errors.values()) < 1e-12, max(errors, key=lambda name: errors[name])  # worst measured 6.1e-15


@pytest.mark.parametrize(
    ("file", "style"),
    [
        ("upernet_l_style", Style(GROUPS, post_norm=True, layer_scale=True, offset_scale=2.0)),
        ("upernet_t_style", Style(GROUPS, layer_scale=True)),
    ],
    ids=["L", "T"],
)
def test_the_plain_rendering_gives_the_released_logits(file: str, style: Style) -> None:
    arrays = np.load(Path(__file__).parent / "data" / "models" / f"{file}.npz")
    state = {name.removeprefix("sd/"): torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith("sd/")}
    state = {name: value.double() for name, value in state.items()}
    got = logits(state, style, torch.from_numpy(arrays["img"]).double())
    assert error(got, torch.from_numpy(arrays["logits_raw_f64"])) < 1e-9  # worst measured 4.3e-15
