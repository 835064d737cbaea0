"""Weights with NaN or infinity: refused wherever they would be used, named where they are only moved."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vistalib.cli import main
from vistalib.files import read_json
from vistalib.models import Segmentor, create_model, from_pretrained, load_weights, read_weights, save_pretrained, to_released
from vistalib.models.finite import not_finite
from vistalib.recipes import open_model
from vistalib.recipes.start import find_start, load_start

NANO = "upernet_internimage_nano"
LAST, VARIANCE = "decode_head.conv_seg.weight", "decode_head.ppm.0.bn.running_var"
State = dict[str, Tensor]


@cache
def state() -> State:
    torch.manual_seed(0)
    return create_model(NANO, 3).state_dict()


def spoilt(name: str, value: float, dtype: torch.dtype = torch.float32) -> State:
    """Weights as `dtype`, of which one number of the tensor `name` is `value`."""
    tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state().items()}
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[-1] = value
    return tensors


def file_of(folder: Path, tensors: State, name: str = "w.pth") -> Path:
    torch.save({"state_dict": to_released(tensors)}, folder / name)
    return folder / name


USES: dict[str, Callable[[Path], object]] = {
    "from_pretrained": from_pretrained,
    "create_model": lambda path: create_model(NANO, 3, pretrained=path),
    "open_model": lambda path: open_model(path, device="cpu"),
    "a start": lambda path: load_start(create_model(NANO, 3), find_start(path), ()),
}


@pytest.mark.parametrize("use", USES)
def test_weights_that_are_not_finite_are_refused_by_file_and_tensor(use: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, spoilt(LAST, float("nan")))
    said = f"{path} must hold finite numbers, got NaN in 1 of {len(state())} tensors ({LAST}); a training diverged"
    with pytest.raises(ValueError, match=re.escape(said)):
        USES[use](path)


@pytest.mark.parametrize("use", USES)
def test_a_saved_model_that_is_not_finite_is_refused(use: str, tmp_path: Path) -> None:
    model = create_model(NANO, 3)
    torch.nn.init.constant_(model.backbone.stem.conv1.bias, float("inf"))
    with pytest.raises(ValueError, match=r"finite numbers, got infinity in 1 of .* \(backbone\.stem\.conv1\.bias\)"):
        USES[use](save_pretrained(model, tmp_path / "saved"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("name", [LAST, VARIANCE, "backbone.stem.conv1.bias"])
def test_one_number_of_any_type_in_any_tensor_is_seen(dtype: torch.dtype, value: float, name: str) -> None:
    assert f" in 1 of {len(state())} tensors" in (said := not_finite(spoilt(name, value, dtype)))
    assert f"({name})" in said


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (spoilt(LAST, float("nan"), torch.float16), "diverged, or the file is damaged: take an earlier checkpoint"),
        (spoilt(VARIANCE, float("inf"), torch.float16), "float16 holds nothing above 65504: save them in float32 or bfloat16"),
        (spoilt(VARIANCE, float("inf"), torch.float16), "in 1 of 227 tensors, statistics of batch norm among them"),
        (spoilt(VARIANCE, float("inf")), "a training diverged, or they went through float16"),
        (dict.fromkeys("abcd", torch.tensor([float("nan")])), r"NaN in 4 of 4 tensors \(a, b, c and 1 more\)"),
        ({"a": torch.tensor([float("nan")]), "b": torch.tensor([float("inf")])}, r"NaN or infinity in 2 of 2 tensors \(a, b\)"),
    ],
    ids=["nan", "half", "statistics", "float32", "many", "both"],
)
def test_the_cause_and_its_repair_are_said(tensors: State, said: str) -> None:
    assert re.search(said, not_finite(tensors))


def test_what_the_type_of_the_model_cannot_hold_is_infinite() -> None:
    with pytest.raises(ValueError, match="infinity in 1"):
        load_weights(create_model(NANO, 3), spoilt(LAST, 1e300, torch.float64))
    with pytest.raises(ValueError, match=r"infinity in 1 .* float16 holds nothing above 65504"):
        load_weights(create_model(NANO, 3).half(), spoilt(LAST, 1e6, torch.bfloat16))


@pytest.mark.parametrize("value", [3e38, -3e38, 1e-45, 0.0], ids=str)
def test_large_and_small_numbers_are_finite(value: float) -> None:
    assert not not_finite({"a": torch.full((1000,), value), "count": torch.tensor(7), "none": torch.empty(0)})


def test_a_refused_file_leaves_the_model_as_it_was() -> None:
    model = create_model(NANO, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="finite"):
        load_weights(model, spoilt(LAST, float("nan")))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_tensors_that_are_not_loaded_may_be_anything() -> None:
    source = spoilt(LAST, float("nan"))
    other = create_model(NANO, 7)
    assert load_weights(other, source | {"head.weight": torch.tensor(float("nan"))}).skipped.keys() >= {LAST, "head.weight"}
    rows = {name: tensor.clone() for name, tensor in source.items()}
    rows[LAST][:2] = 0  # the last number is of the third class
    model: Segmentor = create_model(NANO, 2)
    load_weights(model, rows, classes="slice")
    assert model.decode_head.conv_seg.weight.isfinite().all()


def test_nothing_is_exported_from_such_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file_of(tmp_path, spoilt(LAST, float("nan")))
    assert main(["export", str(path), str(tmp_path / "m.onnx")]) == 1
    assert f"{path} must hold finite numbers" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_converting_moves_every_bit_and_names_what_is_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file_of(tmp_path, spoilt(VARIANCE, float("inf"), torch.float16))
    assert main(["convert", str(path), str(tmp_path / "o.safetensors"), "--json", str(tmp_path / "done.json")]) == 0
    printed = capsys.readouterr().out
    assert "converted as it is, though no model can use it: infinity in 1 of 227 tensors, statistics of batch norm" in printed
    assert "save them in float32" in printed
    assert read_json(tmp_path / "done.json")["not_finite"].startswith("infinity in 1 of")
    assert read_weights(tmp_path / "o.safetensors")[VARIANCE].isinf().sum() == 1


def test_counts_that_half_precision_cannot_hold_are_no_matter_for_converting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {n: t.half() if t.is_floating_point() else torch.tensor(160_000.0).half() for n, t in state().items()}
    assert main(["convert", str(file_of(tmp_path, tensors)), str(tmp_path / "o.safetensors")]) == 0
    assert "infinity" not in capsys.readouterr().out
