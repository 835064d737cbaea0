"""AdamW's parameter groups: one rate a layer, and no weight decay where it would do harm.

Source: the layer-decay rule of the released configurations. Layers are counted from the stem (0) over the blocks (1 ..
num_layers) to the heads (num_layers + 1), which learn at the full rate; each layer below learns `layer_decay` times slower.
"""

from typing import Any, Protocol

from torch import nn

from vistalib.train.settings import TrainSettings


class Layered(Protocol):
    """A model that knows which layer each of its parameters belongs to, as `vistalib.models.Segmentor` does."""

    @property
    def num_layers(self) -> int:
        """The number of blocks of the backbone."""
        ...

    def layer_ids(self) -> dict[str, int]:
        """The layer of each parameter by name: 0 the stem, 1 .. num_layers the blocks, num_layers + 1 the heads."""
        ...


def parameter_groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """The groups to hand to AdamW, in the order in which the model's parameters first need them.

    Each holds `params`, their `param_names`, its `name` (`layer_3_decay`, `layer_3_no_decay`), `layer_id`, `lr_scale`, `lr`
    (the peak rate) and `weight_decay`. Parameters that need no gradient are left out. `model` is `Layered`; a model without
    `layer_ids` is one layer. Raises `ValueError` when `layer_ids()` does not name every parameter, or nothing is left to train.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ValueError("the model must have parameters to train, got none with requires_grad; unfreeze some of them")
    layer_ids, num_layers = _layers(model, list(trained))
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in trained.items():
        layer, decays = layer_ids[name], _decays(name, parameter)
        scale = settings.layer_decay ** (num_layers + 1 - layer)
        key = f"layer_{layer}_{'decay' if decays else 'no_decay'}"
        group = groups.setdefault(
            key,
            {
                "params": [],
                "param_names": [],
                "name": key,
                "layer_id": layer,
                "lr_scale": scale,
                "lr": settings.learning_rate * scale,
                "weight_decay": settings.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
        group["param_names"].append(name)
    return list(groups.values())


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Weights of convolutions and linear layers decay; vectors, biases and whatever belongs to a norm do not."""
    return parameter.ndim > 1 and not name.endswith(".bias") and "norm" not in name


def _layers(model: nn.Module, names: list[str]) -> tuple[dict[str, int], int]:
    if not hasattr(model, "layer_ids"):
        return dict.fromkeys(names, 1), 0
    layered: Layered = model  # type: ignore[assignment]  # nn.Module cannot promise the protocol
    layer_ids, num_layers = layered.layer_ids(), layered.num_layers
    for name in names:
        if name not in layer_ids:
            raise ValueError(f"layer_ids() must name every parameter, {name!r} is not among them; add it to the model's rule")
        if not 0 <= layer_ids[name] <= num_layers + 1:
            rule = f"layer ids must lie in 0 .. num_layers + 1 = {num_layers + 1}"
            raise ValueError(f"{rule}, got {layer_ids[name]} for {name!r}; mend the model's rule")
    return layer_ids, num_layers
