"""What a forward pass costs, counted twice: as the released tool counts FLOPs, and in multiply-adds.

The model runs on torch's meta device, where tensors have a shape and no memory, so that XL on a whole image costs a second.
Each operation that it asks torch for is looked up in one table, whatever module it came from. There the heads follow their
definition; a CPU gets by with fewer multiply-adds (see `convolution`).

Source of the released column: `get_flops.py` of InternImage's release on top of mmcv's counter, measured by running it. What
it calls FLOPs are mostly multiply-adds. It adds the biases of convolutions but not of linear layers, two operations for each
value of a LayerNorm, one for each value of a ReLU and each value a pooling reads, and five for each point and channel of a
DCNv3. Batch norm, GELU, softmax, resizing, residuals and the gates of the centre feature scale it does not see.

The other column holds sums of products alone: convolutions, linear layers, and the bilinear sums of DCNv3 and of resizing.
What takes a few operations a value (norms, activations, biases, residuals) is left out. A multiply-add is two floating-point
operations.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from vistalib.ops import DCNv3

STRIDE = 32  # of the last stage; the released tool pads the image to a multiple of it
aten = torch.ops.aten
_Price = Callable[..., int]


@dataclass(frozen=True)
class Cost:
    """What one image costs by kind of operation, in the released tool's FLOPs and in multiply-adds."""

    released: Mapping[str, int]
    multiply_adds: Mapping[str, int]


def cost(model: nn.Module, size: tuple[int, int] = (1024, 2048)) -> Cost:
    """The cost of `model` for one image of `size` (height, width) in evaluation, where the auxiliary head does not run.

    The model may lie on any device and stays as it is. Raises `ValueError` for sides that are no multiples of 32.
    """
    if min(size) < 1 or size[0] % STRIDE or size[1] % STRIDE:
        raise ValueError(f"height and width must be multiples of {STRIDE}, got {size[0]} and {size[1]}; pad the image")
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
    training = [module for module in model.modules() if module.training]
    tally = _Tally()
    hooks = [m.register_forward_hook(tally.overlook_gate) for m in model.modules() if isinstance(m, DCNv3)]
    try:
        with torch.no_grad(), tally:
            functional_call(model.eval(), shapes, (torch.empty(1, 3, *size, device="meta"),))
    finally:
        for module in training:
            module.training = True
        for hook in hooks:
            hook.remove()
    return Cost(+tally.released, +tally.multiply_adds)  # without the zeros


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation that runs beneath it and adds up what it costs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.released: Counter[str] = Counter()
        self.multiply_adds: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in _PRICES:
            kind, released, multiply_adds = _PRICES[func.overloadpacket]
            self.released[kind] += released(output, *args)
            self.multiply_adds[kind] += multiply_adds(output, *args)
        return output

    def overlook_gate(self, dcn: nn.Module, args: Any, output: Tensor) -> None:
        """Take the linear layer of a centre feature scale, (N, P, Q, C) to (N, P, Q, G), from the released count."""
        if isinstance(dcn, DCNv3) and dcn.center_feature_scale:
            self.released["linear"] -= output.numel() * dcn.groups


def _nothing(*args: Any) -> int:
    return 0


# operation: kind, price as released, price in multiply-adds; y is the result, the other letters are the arguments
_PRICES: dict[Any, tuple[str, _Price, _Price]] = {
    aten.convolution: (
        "convolution",
        lambda y, x, weight, bias, *_: y.numel() * (weight[0].numel() + (bias is not None)),
        lambda y, x, weight, *_: y.numel() * weight[0].numel(),
    ),
    aten.addmm: (
        "linear",
        lambda y, bias, x, weight: y.numel() * x.shape[1],
        lambda y, bias, x, weight: y.numel() * x.shape[1],
    ),
    torch.ops.vistalib.dcnv3_torch: (  # y (N, P, Q, C), mask (N, P, Q, G*K): four corners a channel, and for each point of a
        # group two for its location and four for the weights of its corners
        "dcnv3",
        lambda y, value, offset, mask, groups, *_: 5 * y.numel() * (mask.shape[3] // groups),
        lambda y, value, offset, mask, groups, *_: 4 * y.numel() * (mask.shape[3] // groups) + 6 * mask.numel(),
    ),
    aten.upsample_bilinear2d: ("resizing", _nothing, lambda y, *_: 4 * y.numel()),
    aten.native_layer_norm: ("layer norm", lambda y, x, *_: 2 * x.numel(), _nothing),
    aten.relu_: ("relu", lambda y, *_: y.numel(), _nothing),
    aten._adaptive_avg_pool2d: ("pooling", lambda y, x, *_: x.numel(), _nothing),
    aten.mean: ("pooling", lambda y, x, *_: x.numel(), _nothing),  # pooling to 1x1
}
