"""The mistakes that implementations of DCNv3 make, put into ours one at a time: the suite's own comparison must see each.

A bug is a piece of the real source and what replaces it; a bug whose piece is no longer there fails, so that this list keeps
up with the code. The comparison is that of the other test files: recorded numbers of the released formula, and drawn cases
against plain loops, with and without the softmax inside.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from ops_helpers import RECORDED, Inputs, disagreements, recorded
from ops_scalar import scalar_truth
from torch import Tensor

from vistalib.ops import definition

Compute = Callable[[Inputs, bool], tuple[Tensor, ...]]  # output and gradients; True: the softmax of the mask is inside
SEEDS = range(24)


def first_disagreement(compute: Compute, *, group_channels: int | None = None) -> str | None:
    """The first case, of those with `group_channels`, in which the suite's comparison finds a difference."""
    for name in RECORDED:
        inputs, truth = recorded(name)
        if group_channels not in (None, inputs.value.shape[-1] // inputs.settings["groups"]):
            continue
        if wrong := disagreements(compute(inputs, False), truth):
            return f"{name}: {wrong}"
    for seed in SEEDS:
        for logits in (False, True):
            inputs, truth = scalar_truth(seed, logits)
            if wrong := disagreements(compute(inputs, logits), truth):
                return f"seed {seed}: {wrong}"
    return None


def replaced(source: str, *pieces: tuple[str, str]) -> str:
    for piece, bug in pieces:
        assert source.count(piece) == 1, f"this bug needs a new home, its line is not there (once): {piece}"
        source = source.replace(piece, bug)
    return source


def of_definition(module: ModuleType) -> Compute:
    def compute(inputs: Inputs, logits: bool) -> tuple[Tensor, ...]:
        output = module.dcnv3_definition(*inputs.tensors, **inputs.settings, mask_is_logits=logits)
        more = {**inputs.settings, "mask_is_logits": logits}
        return (output, *module.dcnv3_gradients(inputs.grad_output, *inputs.tensors, **more))

    return compute


def definition_with(*pieces: tuple[str, str]) -> ModuleType:
    assert definition.__file__ is not None
    module = ModuleType("definition_with_a_bug")
    exec(compile(replaced(Path(definition.__file__).read_text(), *pieces), module.__name__, "exec"), module.__dict__)
    return module


DEFINITION_BUGS = {
    "off by one in the centre": [
        (
            "centre_x, centre_y = dilation_w * (kernel_w - 1) // 2, dilation_h * (kernel_h - 1) // 2",
            "centre_x, centre_y = dilation_w * kernel_w // 2, dilation_h * kernel_h // 2",
        )
    ],
    "centre not rounded": [
        (
            "centre_x, centre_y = dilation_w * (kernel_w - 1) // 2, dilation_h * (kernel_h - 1) // 2",
            "centre_x, centre_y = dilation_w * (kernel_w - 1) / 2, dilation_h * (kernel_h - 1) / 2",
        )
    ],
    "align_corners": [("x, y = location.unbind(-1)", "x, y = (location * (1 - 1 / torch.tensor([width, height]))).unbind(-1)")],
    "half a pixel": [("x, y = location.unbind(-1)", "x, y = (location + 0.5).unbind(-1)")],
    "swapped offset pair": [
        ("groups, kernel_h * kernel_w, 2)  # (N, P, Q, G, K, 2)", "groups, kernel_h * kernel_w, 2).flip(-1)")
    ],
    "point order": [('dilation_h, indexing="ij")', 'dilation_h, indexing="xy")')],
    "softmax over the wrong axis": [
        ("mask = mask.softmax(-1)", "mask = mask.softmax(-2)"),
        ("weights = weights.softmax(-1)", "weights = weights.softmax(-2)"),
    ],
    "softmax without its backward": [
        ("if mask_is_logits:\n        grad_weights = weights", "if False:\n        grad_weights = weights")
    ],
    "padding swapped": [("(padding_h, padding_w), (dilation_h", "(padding_w, padding_h), (dilation_h")],
    "dilation swapped": [("(dilation_h, dilation_w) = pair(padding)", "(dilation_w, dilation_h) = pair(padding)")],
    "stride swapped": [("(stride_h, stride_w) = pair(kernel_size)", "(stride_w, stride_h) = pair(kernel_size)")],
    "missing offset_scale on the grid": [
        ("(centre_x - padding_w) - centre_x * offset_scale", "(centre_x - padding_w) - centre_x"),
        ("(centre_y - padding_h) - centre_y * offset_scale", "(centre_y - padding_h) - centre_y"),
        ("(point + offset) * offset_scale", "point + offset * offset_scale"),
    ],
    "missing offset_scale in its gradient": [("(offset_scale * grad_location)", "grad_location")],
    "border corner not dropped": [("found = torch.where(inside[..., None], found, 0.0)", "pass")],
    "border corner gets a gradient": [("torch.where(corner.inside, weights", "torch.where(corner.inside | True, weights")],
    "point on the border not dropped": [("kept = (x > -1)", "kept = (x >= -1)")],
    "slope to the pixel before": [("x.detach().floor(), y.detach().floor()", "x.detach().ceil() - 1, y.detach().ceil() - 1")],
    "slopes swapped": [
        ("grad_location[..., k, 0] += corner.slope_x", "grad_location[..., k, 1] += corner.slope_x"),
        ("grad_location[..., k, 1] += corner.slope_y", "grad_location[..., k, 0] += corner.slope_y"),
    ],
    "mask gradient without the bilinear value": [
        ("corner.weight_x * corner.weight_y * along", "corner.weight_x * corner.weight_y * grad_sum.sum(-1)")
    ],
    "mask gradient of the nearest pixel": [
        ("corner.weight_x * corner.weight_y * along", "(corner.weight_x * corner.weight_y).round() * along")
    ],
    "every image reads the first": [("(image * height + line)", "(0 * image + line)")],
    "every group reads the first": [("* groups + group\n", "* groups + 0 * group\n")],
    "race in the scatter": [("grad_table.index_add_(0, corner.row.flatten(), ", "grad_table[corner.row.flatten()] += (")],
}


def test_the_definition_without_a_bug_agrees() -> None:
    assert first_disagreement(of_definition(definition_with())) is None


@pytest.mark.parametrize("bug", DEFINITION_BUGS)
def test_a_bug_in_the_definition_is_seen(bug: str) -> None:
    found = first_disagreement(of_definition(definition_with(*DEFINITION_BUGS[bug])))
    print(f"{bug}: {found}")
    assert found is not None


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def kernels_with(folder: Path, file: str, *pieces: tuple[str, str]) -> ModuleType:
    """A copy of the package of kernels, under a name of its own, with a bug in `file`."""
    package = importlib.import_module("vistalib_kernels")
    name = f"kernels_{folder.name}"
    (folder / name).mkdir()
    for path in Path(package.__path__[0]).glob("*.py"):
        source = replaced(path.read_text(), *(pieces if path.name == file else ()))
        (folder / name / path.name).write_text(source.replace("vistalib_kernels", name))
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"{name}.numba_cpu")
    finally:
        sys.path.remove(str(folder))


KERNEL_BUGS = {
    "none": ("tile.py", []),
    "off by one in the centre": (
        "tile.py",
        [("= DW * (KW - 1) // 2, DH * (KH - 1) // 2", "= DW * KW // 2, DH * KH // 2")],
    ),
    "half a pixel": (
        "tile.py",
        [("left = real((first + t) * SW + centre_x - PW)", "left = real((first + t) * SW + centre_x - PW + 0.5)")],
    ),
    "swapped pair": (
        "tile.py",
        [("x, y = location[2 * e], location[2 * e + 1]", "y, x = location[2 * e], location[2 * e + 1]")],
    ),
    "point order": (
        "tile.py",
        [("real((k // KH) * DW)", "real((k % KW) * DW)"), ("real((k % KH) * DH)", "real((k // KW) * DH)")],
    ),
    "softmax over the wrong axis": (
        "tile.py",
        [("_softmax(weight[: pixels * G * K], K)", "_softmax(weight[: pixels * G * K], G)")],
    ),
    "padding swapped": (
        "tile.py",
        [("SH, SW, PH, PW, DH, DW, _, _ = sizes\n    point, start", "SH, SW, PW, PH, DH, DW, _, _ = sizes\n    point, start")],
    ),
    "missing offset_scale on the grid": (
        "tile.py",
        [("(point[e] + location[e]) * stretch", "point[e] + location[e] * stretch")],
    ),
    "point on the border not dropped": ("tile.py", [("kept = (x > none)", "kept = (x >= none)")]),
    "far corner dropped": ("tile.py", [("(x >= -1) & (x < W - 1)", "(x >= -1) & (x < W - 2)")]),
    "mask gradient without the bilinear value": (
        "simd.py",
        [('code.put(mix(top, bottom, down), "grad_weight"', 'code.put(builder.fadd(top, bottom), "grad_weight"')],
    ),
    "missing offset_scale in its gradient": ("numba_cpu.py", [("(begin + points)], stretch)", "(begin + points)], one)")]),
    "race in the scatter": (
        "numba_cpu.py",
        [("low, high = max(first_row - n * P, 0) * H // P, min(last_row - n * P, P) * H // P", "low, high = 0, H")],
    ),
    "neighbours forgotten in the scatter": ("numba_cpu.py", [("if not own and (reach", "if not own or (reach")]),
    "reach one window short": ("tile.py", [("(extent + high[1::2].max()) * scale", "(high[1::2].max() - extent) * scale")]),
}


@pytest.mark.slow
@pytest.mark.parametrize("bug", KERNEL_BUGS)
def test_a_bug_in_the_kernels_is_seen(bug: str, tmp_path: Path, two_threads: None) -> None:
    pytest.importorskip("numba")
    file, pieces = KERNEL_BUGS[bug]
    kernels = kernels_with(tmp_path, file, *pieces)
    kernels.ALONE = 0  # type: ignore[attr-defined]  # two threads for the smallest tensors, too

    def compute(inputs: Inputs, logits: bool) -> tuple[Tensor, ...]:
        more = {**inputs.settings, "mask_is_logits": logits}
        return kernels.forward(*inputs.tensors, **more), *kernels.backward(inputs.grad_output, *inputs.tensors, **more)

    found = first_disagreement(compute, group_channels=4)  # machine code for one number of channels, for the time it takes
    print(f"{bug}: {found}")
    assert (found is None) == (bug == "none")
