"""How much memory the PyTorch path takes beside its inputs: some maps, whatever the number of points.

A map is a tensor of the size of value or output. Offset and mask grow with the points themselves, and so do their gradients.
"""

from collections.abc import Callable

import pytest
import torch
from ops_helpers import Inputs, random_inputs
from torch.profiler import ProfilerActivity, profile

from vistalib.ops import dcnv3


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that PyTorch's CPU allocator held at once during `call`, what was there before not counted."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    held = peak = 0
    events = profiled.profiler.kineto_results.events()
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def case(kernel: int) -> Inputs:
    """128 channels a group, so that offset and mask weigh little against a map."""
    sizes = {"kernel_size": (kernel, kernel), "padding": (kernel // 2, kernel // 2)}
    return random_inputs(1, 48, 48, groups=1, group_channels=128, dtype=torch.float32, **sizes)


def forward(inputs: Inputs) -> float:
    call = lambda: dcnv3(*inputs.tensors, **inputs.settings, backend="torch")  # noqa: E731
    return peak_bytes(call) / inputs.value.nbytes


def backward(inputs: Inputs) -> float:
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]
    output = dcnv3(*tensors, **inputs.settings, backend="torch")
    return peak_bytes(lambda: torch.autograd.grad(output, tensors, inputs.grad_output)) / inputs.value.nbytes


@pytest.mark.parametrize("measure", [forward, backward])
def test_more_points_cost_no_more_maps(measure: Callable[[Inputs], float]) -> None:
    few, many = case(3), case(7)
    own = [(inputs.offset.nbytes + inputs.mask.nbytes) / inputs.value.nbytes for inputs in (few, many)]
    small, large = measure(few), measure(many)
    print(f"{small:.2f} maps for 9 points, {large:.2f} for 49; offset and mask are {own[0]:.2f} and {own[1]:.2f}")
    assert small < 5  # measured 4.3 forward, 4.5 backward
    assert large - small < 2 * (own[1] - own[0])  # measured 0.7 and 1.7 times; 40 more maps would be 43 times


def test_no_map_a_point_is_kept_for_the_backward() -> None:
    inputs = case(5)
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        dcnv3(*tensors, **inputs.settings, backend="torch")
    assert [tensor.data_ptr() for tensor in kept] == [tensor.data_ptr() for tensor in tensors]
