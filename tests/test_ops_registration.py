"""The registered operators, each backend alike: opcheck, gradcheck, compile, export, autocast, and the ways a model is run."""

from collections.abc import Iterator
from shutil import which
from typing import Any

import pytest
import torch
from backend_pairs import CPU_BACKENDS, GPU_PAIRS, default_device
from ops_helpers import random_inputs, worst
from torch.utils.checkpoint import checkpoint

from vistalib.models import Segmentor, create_model
from vistalib.ops import DCNv3, dcnv3

PAIRS = [*((name, "cpu") for name in CPU_BACKENDS), *GPU_PAIRS]


@pytest.fixture(params=PAIRS, ids="-".join)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with default_device(*request.param):
        yield request.param[0]


def layer(backend: str, **more: Any) -> DCNv3:
    torch.manual_seed(0)
    model = DCNv3(8, 2, backend=backend, **more)
    torch.nn.init.normal_(model.offset.weight)
    torch.nn.init.normal_(model.mask.weight)
    return model


def image(*shape: int) -> torch.Tensor:
    cpu = torch.device("cpu")
    return torch.randn(shape, generator=torch.Generator(cpu).manual_seed(1), device=cpu).to(torch.get_default_device())


def segmentor(backend: str) -> Segmentor:
    torch.manual_seed(0)
    model = create_model("upernet_internimage_nano", num_classes=5)
    for module in model.modules():
        if isinstance(module, DCNv3):
            module.backend = backend
            torch.nn.init.normal_(module.offset.weight, std=0.3)
    return model.eval()


SETTINGS = (2, [3, 2], [1, 2], [1, 0], [1, 1], 1.3)  # groups, kernel, stride, padding, dilation, offset scale
SIZES = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)}


@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
@pytest.mark.parametrize("needed", [(True, True, True), (False, True, False), (False, False, False)], ids=str)
def test_opcheck_passes(backend: str, logits: bool, needed: tuple[bool, ...]) -> None:
    tensors = [tensor.requires_grad_(need) for tensor, need in zip(random_inputs(**SIZES).tensors, needed)]
    operator = getattr(torch.ops.vistalib, f"dcnv3_{backend.replace('-', '_')}").default
    results = torch.library.opcheck(operator, (*tensors, *SETTINGS, logits))
    assert set(results.values()) == {"SUCCESS"}


def test_opcheck_passes_for_the_backward_operator(backend: str) -> None:
    inputs = random_inputs(**SIZES)
    operator = getattr(torch.ops.vistalib, f"dcnv3_{backend.replace('-', '_')}_backward").default
    results = torch.library.opcheck(operator, (inputs.grad_output, *inputs.tensors, *SETTINGS, True))
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("logits", [False, True], ids=["mask", "logits"])
def test_gradcheck(backend: str, logits: bool) -> None:
    inputs = random_inputs(1, 2, 3, kernel_size=(2, 1), dilation=(1, 2), padding=(1, 0), offset_scale=1.3)
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]

    def call(*three: torch.Tensor) -> torch.Tensor:
        return dcnv3(*three, **inputs.settings, mask_is_logits=logits, backend=backend)

    assert torch.autograd.gradcheck(call, tensors, nondet_tol=1e-9)  # GPUs add in any order


def test_a_layer_compiles_without_a_graph_break(backend: str) -> None:
    model, x = layer(backend), image(2, 5, 6, 8).requires_grad_()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    (grad,) = torch.autograd.grad(model(x).square().sum(), x)
    (grad_compiled,) = torch.autograd.grad(compiled(x).square().sum(), x)
    assert worst(grad_compiled, grad) < 1e-4  # measured 0 on CPUs; GPUs add in any order


def test_a_layer_exports_as_one_operator(backend: str) -> None:
    model, x = layer(backend), image(2, 5, 6, 8)
    program = torch.export.export(model, (x,))
    names = [str(node.target) for node in program.graph.nodes]
    assert names.count(f"vistalib.dcnv3_{backend.replace('-', '_')}.default") == 1
    assert worst(program.module()(x), model(x)) < 1e-5  # measured 0


@pytest.mark.parametrize(
    "backend",
    [pytest.param(pair, marks=pytest.mark.slow if pair in (("torch", "cpu"), ("cpp", "cpu")) else ()) for pair in PAIRS],
    ids="-".join,
    indirect=True,
)
@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one-size", "any-size"])
def test_a_whole_model_compiles_without_a_graph_break(backend: str, dynamic: bool) -> None:
    model, x = segmentor(backend), image(1, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    with torch.no_grad():
        assert worst(compiled(x), model(x)) < 1e-5  # measured 5e-7
        if dynamic:
            other = image(2, 3, 64, 96)
            assert worst(compiled(other), model(other)) < 1e-5  # measured 5e-7


@pytest.mark.slow
def test_a_whole_model_exports_for_any_batch(backend: str) -> None:
    model, x = segmentor(backend), image(2, 3, 64, 64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("images", min=1, max=8)},))
    calls = [str(node.target) for node in program.graph.nodes].count(f"vistalib.dcnv3_{backend.replace('-', '_')}.default")
    assert calls == sum(isinstance(module, DCNv3) for module in model.modules())
    other = image(3, 3, 64, 64)
    assert worst(program.module()(other), model(other)) < 1e-5  # measured 0


@pytest.mark.slow
@pytest.mark.skipif(which("c++") is None, reason="Inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inductor's own
def test_a_layer_compiles_to_machine_code(backend: str) -> None:
    model, x = layer(backend), image(1, 5, 6, 8).requires_grad_()
    compiled = torch.compile(model, fullgraph=True)
    (grad,) = torch.autograd.grad(model(x).square().sum(), x)
    (grad_compiled,) = torch.autograd.grad(compiled(x).square().sum(), x)
    assert worst(grad_compiled, grad) < 1e-4 * float(grad.abs().max())  # measured 2e-6 of it


def test_a_compiled_layer_keeps_to_autocast(backend: str) -> None:
    model, x = layer(backend), image(1, 5, 6, 8)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad(), torch.autocast(torch.get_default_device().type, torch.bfloat16):
        expected = model(x)
        assert expected.dtype == torch.bfloat16
        assert torch.equal(compiled(x), expected)


def test_autocast_runs_the_operator_in_the_dtype_of_value(backend: str) -> None:
    inputs = random_inputs(dtype=torch.float32)
    value = inputs.value.bfloat16()
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        mixed = dcnv3(value, inputs.offset, inputs.mask, **inputs.settings, backend=backend)
    aligned = dcnv3(value, inputs.offset.bfloat16(), inputs.mask.bfloat16(), **inputs.settings, backend=backend)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, aligned)


def test_gradients_under_autocast_have_the_dtypes_of_the_inputs(backend: str) -> None:
    model, x = layer(backend), image(1, 5, 6, 8).requires_grad_()
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        model(x).sum().backward()
    assert x.grad is not None
    assert {x.grad.dtype, *(p.grad.dtype for p in model.parameters() if p.grad is not None)} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_tensors_are_summed_in_float32(backend: str, dtype: torch.dtype) -> None:
    inputs = random_inputs(dtype=dtype)
    output = dcnv3(*inputs.tensors, **inputs.settings, backend=backend)
    exact = dcnv3(*inputs.to(torch.float32).tensors, **inputs.settings, backend="torch")
    assert output.dtype == dtype
    assert worst(output, exact.to(dtype)) <= 2**-6  # one unit in the last place of bfloat16 at 2..4; measured 0


@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_gradients_reach_a_checkpointed_layer(backend: str, reentrant: bool) -> None:
    model, x = layer(backend), image(1, 5, 6, 8).requires_grad_()
    model(x).square().sum().backward()
    assert x.grad is not None
    grad, x.grad = x.grad, None
    checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
    again = x.grad
    assert worst(again, grad) < 1e-4  # measured 0 on CPUs; GPUs add in any order


def test_inference_mode_and_no_grad_give_the_same_numbers(backend: str) -> None:
    model, x = layer(backend), image(1, 5, 6, 8)
    expected = model(x).detach()
    with torch.inference_mode():
        assert torch.equal(model(x), expected)
    with torch.no_grad():
        assert torch.equal(model(x), expected)


def test_strided_inputs_give_the_numbers_of_contiguous_ones(backend: str) -> None:
    inputs = random_inputs()
    strided = [tensor.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for tensor in inputs.tensors]
    plain = [tensor.clone().requires_grad_() for tensor in inputs.tensors]
    strided = [tensor.requires_grad_() for tensor in strided]
    outputs = [dcnv3(*three, **inputs.settings, backend=backend) for three in (plain, strided)]
    assert torch.equal(*outputs)
    grad = inputs.grad_output.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for a, b in zip(torch.autograd.grad(outputs[0], plain, inputs.grad_output), torch.autograd.grad(outputs[1], strided, grad)):
        assert worst(a, b) < 1e-12  # measured 0 on CPUs; GPUs add in any order


def test_an_empty_batch_gives_empty_outputs_and_gradients(backend: str) -> None:
    inputs = random_inputs(0)
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]
    output = dcnv3(*tensors, **inputs.settings, backend=backend)
    gradients = torch.autograd.grad(output.sum(), tensors)
    assert output.shape == (0, 5, 7, 8)
    assert [gradient.shape for gradient in gradients] == [tensor.shape for tensor in tensors]


def test_a_second_derivative_is_refused(backend: str) -> None:
    inputs = random_inputs(1, 3, 3)
    tensors = [tensor.requires_grad_() for tensor in inputs.tensors]
    output = dcnv3(*tensors, **inputs.settings, backend=backend)
    (grad,) = torch.autograd.grad(output.square().sum(), tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
