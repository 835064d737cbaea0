"""Every parameter of the released models gets its released rate, scale, weight decay and layer."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from train_helpers import settings, tiny

from vistalib.models import create_model, to_released
from vistalib.train import TrainSettings, parameter_groups

GOLDENS = {
    "upernet_internimage_l": "upernet_internimage_l_512x1024_80k_mapillary",
    "upernet_internimage_t": "upernet_internimage_t_512x1024_160k_cityscapes",
}


@pytest.mark.parametrize("name", GOLDENS)
def test_groups_are_the_released_ones(name: str) -> None:
    golden = json.loads((Path(__file__).parent / f"data/optim/{GOLDENS[name]}.json").read_text())
    with torch.device("meta"):
        model = create_model(name)
    released = dict(zip(model.state_dict(), to_released(model.state_dict())))
    groups = parameter_groups(
        model,
        TrainSettings(iterations=1, learning_rate=golden["learning_rate"], layer_decay=golden["layer_decay"]),
    )
    ours = {
        group["name"]: {key: group[key] for key in ("lr", "lr_scale", "weight_decay", "layer_id")}
        | {"params": {released[name] for name in group["param_names"]}}
        for group in groups
    }
    assert ours == {key: group | {"params": set(group["params"])} for key, group in golden["groups"].items()}


def test_every_parameter_is_in_one_group() -> None:
    model = tiny()
    groups = parameter_groups(model, settings())
    assert sorted(name for group in groups for name in group["param_names"]) == sorted(
        name for name, _ in model.named_parameters()
    )
    assert {id(parameter) for group in groups for parameter in group["params"]} == {
        id(parameter) for parameter in model.parameters()
    }


def test_vectors_biases_and_norms_do_not_decay() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 2))
            self.vector = nn.Parameter(torch.zeros(2))
            self.bias = nn.Parameter(torch.zeros(2, 2))  # only a name that ends in ".bias" counts
            self.inner = nn.ParameterDict({"bias": torch.zeros(2, 2), "norm1": torch.zeros(2, 2)})

    decays = {
        name: group["weight_decay"] > 0 for group in parameter_groups(Model(), settings()) for name in group["param_names"]
    }
    assert decays == {"weight": True, "vector": False, "bias": True, "inner.bias": False, "inner.norm1": False}


def test_frozen_parameters_are_left_out() -> None:
    model = tiny()
    model.stem.requires_grad_(False)
    names = {name for group in parameter_groups(model, settings()) for name in group["param_names"]}
    assert names == {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_model_without_anything_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="unfreeze"):
        parameter_groups(tiny().requires_grad_(False), settings())


def test_layer_ids_that_forget_a_parameter_are_refused() -> None:
    model = tiny()
    model.extra = nn.Parameter(torch.zeros(1))
    forgetful = model.layer_ids()
    del forgetful["extra"]
    model.layer_ids = lambda: forgetful  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="'extra' is not among them"):
        parameter_groups(model, settings())


def test_layer_beyond_the_heads_is_refused() -> None:
    model = tiny()
    model.num_layers = 0
    with pytest.raises(ValueError, match=r"0 .. num_layers \+ 1 = 1, got 2 for 'head.weight'"):
        parameter_groups(model, settings())
