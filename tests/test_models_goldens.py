"""Whole tiny models against numbers of the released code, per tensor and relative in L2."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vistalib.models import FCNHead, InternImage, SegFormerHead, Segmentor, UPerHead, from_released, load_weights, to_released

DATA = Path(__file__).parent / "data" / "models"
STYLES = ["upernet_l_style", "upernet_t_style"]


def golden(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(DATA / f"{name}.npz"))


def part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): torch.from_numpy(array) for name, array in arrays.items() if name.startswith(prefix)}


def inputs(arrays: dict[str, np.ndarray], kind: str = "") -> tuple[Tensor, Tensor]:
    return torch.from_numpy(arrays[f"{kind}img"]), torch.from_numpy(arrays[f"{kind}label"]).long()


def tiny(arrays: dict[str, np.ndarray]) -> Segmentor:
    """The tiny model of a file with its weights, in evaluation mode."""
    backbone = InternImage(**json.loads(str(arrays["options"])))
    head = UPerHead(backbone.out_channels, channels=24, num_classes=19)
    model = Segmentor(backbone, head, FCNHead(backbone.out_channels[2], channels=12, num_classes=19))
    load_weights(model, part(arrays, "sd/"))
    return model.eval()


def error(got: Tensor, expected: Tensor) -> float:
    expected = expected.double()
    return float((got.detach().double() - expected).norm() / expected.norm())


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in losses.items() if "loss" in name]).sum()


@pytest.mark.parametrize("style", STYLES)
def test_logits_equal_the_released_float32_ones(style: str) -> None:
    arrays = golden(style)
    model, (image, _) = tiny(arrays), inputs(arrays)
    maps = model.backbone(image)
    # worst measured 1.5e-6 and 3.6e-6
    assert error(model.decode_head(maps), torch.from_numpy(arrays["logits_raw"])) < 5e-5
    assert error(model.auxiliary_head(maps[2]), torch.from_numpy(arrays["aux_logits_raw"])) < 5e-5


@pytest.mark.parametrize("style", STYLES)
def test_losses_and_accuracies_equal_the_released_float32_ones(style: str) -> None:
    arrays = golden(style)
    losses = tiny(arrays).loss(*inputs(arrays))
    errors = {name: error(losses[name], value) for name, value in part(arrays, "loss/").items()}
    assert max(errors.values()) < 5e-5, errors  # worst measured 2.3e-7
    assert losses.keys() == errors.keys()


@pytest.mark.parametrize("style", STYLES)
def test_float64_logits_and_losses_equal_the_exact_ones(style: str) -> None:
    arrays = golden(style)
    model, (image, label) = tiny(arrays).double(), inputs(arrays)
    losses = model.loss(image.double(), label)
    errors = {name: error(losses[name], value) for name, value in part(arrays, "loss_f64/").items() if "loss" in name}
    errors["logits"] = error(model(image.double()), torch.from_numpy(arrays["logits_raw_f64"]))
    assert max(errors.values()) < 1e-9, errors  # worst measured 3.1e-15


@pytest.mark.parametrize("style", STYLES)
def test_float64_gradient_of_every_parameter_equals_the_exact_one(style: str) -> None:
    arrays = golden(style)
    model, (image, label) = tiny(arrays).double(), inputs(arrays)
    total(model.loss(image.double(), label)).backward()
    got = to_released({name: parameter.grad for name, parameter in model.named_parameters()})
    expected = part(arrays, "grad_f64/")
    assert got.keys() == expected.keys()
    errors = {}
    for name, value in expected.items():  # of more than 1024 numbers, the file has every thirteenth
        grad = got[name]
        errors[name] = error(grad if grad.shape == value.shape else grad.flatten()[::13], value)
    assert max(errors.values()) < 1e-6, max(errors, key=lambda name: errors[name])  # worst measured 4.1e-8, stored as float32


@pytest.mark.parametrize("style", STYLES)
def test_training_mode_gives_the_released_losses_and_running_statistics(style: str) -> None:
    arrays = golden(style)
    model = tiny(arrays).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    losses = model.loss(*inputs(arrays, "train_"))
    state = to_released(model.state_dict())
    errors = {name: error(losses[name], value) for name, value in part(arrays, "train_loss/").items()}
    errors |= {name: error(state[name], value) for name, value in part(arrays, "train_buffer_after/").items()}
    assert max(errors.values()) < 5e-5, max(errors, key=lambda name: errors[name])  # worst measured 2.0e-6


def test_the_segformer_head_gives_the_released_logits_for_the_released_maps() -> None:
    arrays = golden("segformer_head")
    head = SegFormerHead((16, 32, 64, 128), channels=24, num_classes=19).eval()
    state = from_released(part(arrays, "sd/"))
    head.load_state_dict({name.removeprefix("decode_head."): value for name, value in state.items()})
    logits = head([torch.from_numpy(arrays[f"feat{i}"]) for i in range(4)])
    assert error(logits, torch.from_numpy(arrays["logits_raw"])) < 5e-5  # measured 0 on the machine that made both
