"""Whole models under torch.compile: no graph breaks, the same losses and gradients."""

import pytest
import torch

from tests.ops_helpers import worst
from tests.test_models_export import segmentor
from vistalib.models import Segmentor


def step(model: Segmentor, *, compiled: str | None = None) -> dict[str, torch.Tensor]:
    """The losses of a batch and the gradient of every parameter, from a compiled step or a plain one."""
    torch.manual_seed(1)  # of dropout
    image, label = torch.randn(2, 3, 64, 96, dtype=torch.float64), torch.randint(0, 5, (2, 64, 96))
    loss = torch.compile(model.loss, fullgraph=True, backend=compiled) if compiled else model.loss
    losses = loss(image, label)
    model.zero_grad()
    sum(value for name, value in losses.items() if "loss" in name).backward()
    losses = {name: value.detach() for name, value in losses.items()}
    return losses | {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Inductor about its own
@pytest.mark.parametrize(
    ("head", "backend"), [("upernet", "aot_eager"), ("segformer", "aot_eager"), ("segformer", "inductor")], ids=str
)
def test_a_training_step_compiles_without_a_graph_break(head: str, backend: str) -> None:
    from torch._inductor import config

    model = segmentor(head, drop_path_rate=0.0).train().double()  # roundings of float32 differ between processors
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    expected = step(model)
    with config.patch({"cpp.simdlen": 1}):  # without vectors it is written in a third of the time
        found = step(model, compiled=backend)
    errors = {name: worst(found[name], expected[name]) / max(float(expected[name].abs().max()), 1e-3) for name in expected}
    assert max(errors.values()) < 1e-11, errors  # measured 8e-15, Inductor 2e-13
