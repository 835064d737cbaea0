"""Where a model's time goes, part by part, as PyTorch's profiler sees its operators."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # of torch
from torch.profiler import ProfilerActivity, profile

# The first line whose words an operator's name has any of. What is left are sums, copies and other passes over memory.
PARTS = {
    "DCNv3": ("dcnv3", "grid_sampler"),
    "convolution": ("convolution", "conv2d", "conv3x3"),
    "products": ("addmm", "bmm", "aten::mm"),
    "layer norm": ("layer_norm",),
    "batch norm and ReLU": ("batch_norm", "relu", "clamp_min", "threshold"),
    "GELU": ("gelu",),
    "resizing": ("upsample",),
    "loss and accuracy": ("log_softmax", "nll_loss", "argmax", "entropy", "amax", "exp_", "count_nonzero", "gather", "scatter"),
    "optimizer": ("lerp", "addcdiv", "sqrt", "_foreach", "_fused_adam"),
}
CPU = torch.device("cpu")
DEPTHWISE, REST = "depthwise convolution", "sums, copies and the rest"


def by_part(call: Callable[[], object], device: torch.device = CPU) -> dict[str, float]:
    """Seconds of one call by part, most first; what an operator calls counts with the one called.

    On a CPU they are of processor time, on CUDA of the kernels that each operator starts, without what passes between them.
    """
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, record_shapes=True) as record:
        call()
        if cuda:
            torch.cuda.synchronize(device)
    total: Counter[str] = Counter()
    for event in record.events():
        if event.device_type == DeviceType.CPU:  # the kernels themselves are events, too
            total[_part(event)] += (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6
    return dict(total.most_common())


def _part(event: Any) -> str:
    name = event.name.lower()
    part = next((part for part, words in PARTS.items() if any(word in name for word in words)), REST)
    if part == "convolution" and any(len(shape) == 4 and shape[1] == 1 for shape in event.input_shapes[1:3]):
        return DEPTHWISE  # its weight is (C, 1, k, k); backward it is the third argument
    return part
