"""`dcnv3`, the one function everybody calls: checks the arguments, chooses a backend, runs its operator."""

from torch import Tensor

from vistalib.ops.backends import choose_backend
from vistalib.ops.checks import check_arguments
from vistalib.ops.geometry import Pair, pair
from vistalib.ops.registration import OPERATORS


def dcnv3(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    *,
    groups: int,
    kernel_size: Pair = 3,
    stride: Pair = 1,
    padding: Pair = 1,
    dilation: Pair = 1,
    offset_scale: float = 1.0,
    mask_is_logits: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Deformable convolution, version 3: what `dcnv3_definition` writes down, by the fastest backend that runs here.

    `value` is (N, H, W, C), C a multiple of `groups` G. `offset` is (N, P, Q, G*K*2), pairs (x, y) in input pixels before
    `offset_scale`; `mask` is (N, P, Q, G*K). The K points of a window are width-major: k = i_w * kernel_h + i_h. Sizes are one
    int or (height, width). With `mask_is_logits` the softmax over the K points is part of the operator. Returns
    (N, P, Q, C) in the dtype of `value`. Differentiable once in all three tensors.

    `backend` is "auto", the first of these that is usable on the tensors' device: "cuda" (compiled, or by NVRTC), "numba-cuda"
    (the GPU kernels to read), "numba" (CPUs), "torch" (everywhere). "cpp", the C++ twin of "cuda", is taken by name only.
    Tiles and tensor cores of "cuda", which no GPU has run, are taken where the environment says VISTALIB_KERNELS_TIER=fast.
    `backend_status` tells which are usable. Under `torch.use_deterministic_algorithms(True)` every backend gives the same bits
    again, but for "numba-cuda", whose backward refuses.
    Raises `ValueError` for arguments that do not fit together, `ModuleNotFoundError` for a backend that is not installed,
    `RuntimeError` for one that is broken or not built.
    """
    kernel_size, stride, padding, dilation = pair(kernel_size), pair(stride), pair(padding), pair(dilation)
    check_arguments(
        value,
        offset,
        mask,
        groups=groups,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        offset_scale=offset_scale,
    )
    operator = OPERATORS[choose_backend(backend, value.device.type)]
    return operator(value, offset, mask, groups, kernel_size, stride, padding, dilation, float(offset_scale), mask_is_logits)
