"""Exported models: what they compute, for which sizes, and that they run without vistalib."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.ops_helpers import random_inputs, worst
from tests.test_cli import status
from vistalib.cli.export import difference
from vistalib.files import read_json
from vistalib.models import Deployment, Segmentor, create_model, export_file, export_program, run_exported, save_pretrained
from vistalib.models.inductor import decompositions
from vistalib.models.onnx_operators import OPSET, translations
from vistalib.models.upernet import mean_of_cells
from vistalib.ops import DCNv3, dcnv3

onnxruntime = pytest.importorskip("onnxruntime")

Size = tuple[int, int, int]
SIZES = ((1, 64, 96), (3, 75, 101), (2, 160, 64))  # none was traced; the second is no multiple of anything
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 55.0)
ODD = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0), "dilation": (1, 2), "offset_scale": 1.3}


def segmentor(head: str, **backbone: Any) -> Segmentor:
    """A block a stage, whose offsets reach across the image and beyond it."""
    torch.manual_seed(0)
    # The released SegFormer models are large: their head is put on the small backbone.
    options = {"channels": 16, "depths": (1, 1, 1, 1), "groups": (1, 2, 4, 8), "layer_scale": None, "norm": "pre"} | backbone
    model = create_model({"upernet": "upernet_internimage_nano", "segformer": "segformer_internimage_l"}[head], 5, **options)
    for module in model.modules():
        if isinstance(module, DCNv3):
            torch.nn.init.normal_(module.offset.weight, std=3.0)
            torch.nn.init.normal_(module.mask.weight)
    return model.eval()


def photographs(number: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8, generator=generator)


def run_without_vistalib(file: Path, folder: Path, sizes: Sequence[Size] = SIZES) -> dict[str, np.ndarray]:
    """What the file gives for every size, in a process that is told not to look for vistalib and says that it did not."""
    np.savez(folder / "images.npz", **{str(size): photographs(*size).numpy() for size in sizes})
    code = """if True:
        import runpy, sys
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
        assert not [name for name in sys.modules if name.startswith("vistalib")]
    """
    arguments = run_exported.__file__, file, folder / "images.npz", folder / "found.npz", 1
    command = [sys.executable, "-I", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["seconds"] > 0
    with np.load(folder / "found.npz") as found:
        return dict(found)


class Operator(torch.nn.Module):
    """The operator with its settings, as a model."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, value: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return dcnv3(value, offset, mask, **self.settings)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export about itself
@pytest.mark.parametrize(
    "reach", [1.0, pytest.param(1e4, marks=pytest.mark.slow), 1e37], ids=["near", "far outside", "not countable"]
)
@pytest.mark.parametrize(("settings", "logits"), [({}, True), (ODD, False)], ids=["3x3-logits", "odd-mask"])
def test_the_operator_in_onnx_is_the_definition(settings: dict[str, Any], logits: bool, reach: float, tmp_path: Path) -> None:
    inputs = random_inputs(2, 5, 7, dtype=torch.float32, **settings)
    inputs.offset[:, ::2] *= reach
    model = Operator(**inputs.settings, mask_is_logits=logits).eval()
    torch.onnx.export(
        model, inputs.tensors, tmp_path / "op.onnx", opset_version=OPSET, custom_translation_table=translations(), verbose=False
    )
    session = onnxruntime.InferenceSession(tmp_path / "op.onnx")
    feed = {given.name: tensor.numpy() for given, tensor in zip(session.get_inputs(), inputs.tensors)}
    exact = dcnv3(*inputs.tensors, **inputs.settings, mask_is_logits=logits, backend="torch")
    assert worst(torch.from_numpy(session.run(None, feed)[0]), exact) < 1e-5  # measured 2.3e-6


@pytest.mark.parametrize("scale", [1, 2, 3, 6])
def test_the_means_of_cells_are_adaptive_pooling_at_every_size(scale: int) -> None:
    for height in range(1, 20):
        x = torch.rand(1, 2, height, 23 - height, dtype=torch.float64)
        assert worst(mean_of_cells(x, scale), torch.nn.functional.adaptive_avg_pool2d(x, scale)) < 1e-14  # measured 3.4e-16


@pytest.mark.parametrize("labels", [False, True], ids=["logits", "labels"])
def test_a_deployment_normalizes_inside_and_keeps_the_classes_that_mean_something(labels: bool) -> None:
    model, image = segmentor("upernet"), photographs(2, 40, 52)
    with torch.no_grad():
        given = Deployment(model, mean=MEAN, std=STD, num_classes=3, labels=labels).eval()(image)
        normal = (image.double() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        expected = model(normal.float())[:, :3]
    assert given.shape == ((2, 40, 52) if labels else (2, 3, 10, 13))
    assert difference(given.numpy(), expected.numpy()) < 1e-5  # measured 3.5e-6


def test_a_wrong_label_is_as_far_off_as_its_logit_is_below_the_highest() -> None:
    logits = np.array([[[[3.0]], [[1.0]], [[4.0]]]], np.float32)  # (1, 3, 1, 1)
    wrong = [difference(np.full((1, 1, 1), label, np.uint8), logits) for label in range(3)]
    assert wrong == pytest.approx([0.25, 0.75, 0.0])


def test_a_model_in_training_mode_is_refused_with_the_repair() -> None:
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        export_program(segmentor("upernet").train())


def test_a_file_of_another_kind_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end with \.onnx or \.pt2, got 'model\.engine'"):
        export_file(segmentor("upernet"), tmp_path / "model.engine")


@pytest.mark.slow
@pytest.mark.parametrize(("head", "strict"), [("upernet", False), ("segformer", True)], ids=["upernet", "segformer-strict"])
def test_one_program_serves_every_batch_height_and_width(head: str, strict: bool) -> None:
    model = segmentor(head)
    run = export_program(model, strict=strict).module()
    for size in SIZES:
        image = torch.randn(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert worst(run(image), model(image)) < 2e-5  # measured 1.8e-6


@pytest.mark.slow
@pytest.mark.parametrize("head", ["upernet", "segformer"])
def test_an_onnx_file_gives_what_pytorch_gives_at_every_size(head: str, tmp_path: Path) -> None:
    model = Deployment(segmentor(head), mean=MEAN, std=STD, labels=head == "segformer").eval()
    export_file(model, tmp_path / "model.onnx", about={"classes": ["road", "façade"]})
    found = run_without_vistalib(tmp_path / "model.onnx", tmp_path)
    model.labels = False
    for size in SIZES:
        with torch.no_grad():
            assert difference(found[str(size)], model(photographs(*size)).numpy()) < 1e-4  # measured 7.3e-5

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 3, "height", "width"])
    assert output.name == ("labels" if head == "segformer" else "logits")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["road", "façade"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.export about itself
@pytest.mark.parametrize("reach", [1.0, 1e4], ids=["near", "far outside"])
@pytest.mark.parametrize(("settings", "logits"), [({}, True), (ODD, False)], ids=["3x3-logits", "odd-mask"])
def test_the_operator_taken_apart_is_the_definition(settings: dict[str, Any], logits: bool, reach: float) -> None:
    inputs = random_inputs(2, 5, 7, dtype=torch.float64, **settings)
    inputs.offset[:, ::2] *= reach
    program = torch.export.export(Operator(**inputs.settings, mask_is_logits=logits).eval(), inputs.tensors)
    program = program.run_decompositions(decompositions())
    assert not [node for node in program.graph.nodes if "vistalib" in str(node.target)]
    exact = dcnv3(*inputs.tensors, **inputs.settings, mask_is_logits=logits, backend="torch")
    assert worst(program.module()(*inputs.tensors), exact) < 1e-14  # measured 2.2e-16


@pytest.mark.slow
def test_a_package_runs_without_the_model_and_gives_what_pytorch_gives(tmp_path: Path) -> None:
    from torch._inductor import config

    model, size = Deployment(segmentor("upernet"), mean=MEAN, std=STD).eval(), (2, 64, 96)
    with config.patch({"cpp.simdlen": 1}):  # without vectors it is written in a third of the time
        export_file(model, tmp_path / "model.pt2", size=size, about={"classes": ["road", "façade"]})
    found = run_without_vistalib(tmp_path / "model.pt2", tmp_path, [size])
    with torch.no_grad():
        assert difference(found[str(size)], model(photographs(*size)).numpy()) < 1e-4  # measured
    assert json.loads(torch._inductor.aoti_load_package(tmp_path / "model.pt2").get_metadata()["classes"]) == ["road", "façade"]
    with pytest.raises(ValueError, match=r"takes images of shape \(2, 3, 64, 96\), got \(1, 3, 64, 96\)"):
        run_exported.load(str(tmp_path / "model.pt2"), 1)(photographs(1, 64, 96).numpy())


def test_without_a_compiler_a_package_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ValueError, match="install one"):
        export_file(segmentor("upernet"), tmp_path / "model.pt2")


@pytest.mark.slow
def test_the_command_writes_a_file_and_says_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = segmentor("upernet")
    save_pretrained(model, tmp_path / "weights")
    file = tmp_path / "model.onnx"
    assert status("export", tmp_path / "weights", file, "--size", 64, 96, "--json", tmp_path / "figures.json") == 0
    figures = read_json(tmp_path / "figures.json")
    assert figures["worst_error"] < 1e-4  # measured 9e-6
    assert min(figures[kind][name] for kind in ("exported", "eager") for name in ("seconds", "memory_mb")) > 0
    assert f"{file.stat().st_size / 1e6:.1f} MB" in capsys.readouterr().out
