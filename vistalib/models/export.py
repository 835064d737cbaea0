"""Models for other runtimes: a traced program or an ONNX file for images of every size, a package compiled for one.

`export_program` traces a model with DCNv3 as one operator. The files have none of ours left: in ONNX, DCNv3 is written by
GridSample (see `onnx_operators`); for AOTInductor it is taken apart and compiled with all the rest into one library (see
`inductor`). `run_exported` shows how both are run.

Letters: N images, H and W pixels, K classes.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vistalib.extras import missing
from vistalib.files import replacing
from vistalib.models.convolution import resize, side
from vistalib.models.inductor import check_compiler, write_package
from vistalib.models.onnx_operators import OPSET, translations
from vistalib.models.segmentor import Segmentor

# Any example would do in which no two sizes of the network are equal. From 33 pixels on the coarsest map is more than one wide.
EXAMPLE = (2, 264, 328)
SIZES = {0: ("batch", 1, 1024), 2: ("height", 33, 16384), 3: ("width", 33, 16384)}
SUFFIXES = {".onnx": ("onnxscript", "onnxruntime"), ".pt2": ()}  # and the packages that write and check such a file


class Deployment(nn.Module):
    """A segmentor as others run it: RGB bytes (N, 3, H, W) in, logits (N, K, H/4, W/4) or labels (N, H, W), uint8, out.

    `mean` and `std` of the three colours normalise inside, so that nobody can forget them. Only the first `num_classes` outputs
    of `model` are kept: a released model has more than it was trained on. `labels` asks for the most likely class of every
    pixel of the image instead of logits.
    """

    def __init__(
        self,
        model: Segmentor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        num_classes: int | None = None,
        labels: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.num_classes = num_classes or model.num_classes
        self.labels = labels
        self.mean = nn.Buffer(torch.tensor(mean).view(3, 1, 1))
        self.inverse = nn.Buffer(1 / torch.tensor(std).view(3, 1, 1))
        self.train(model.training)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to logits (N, K, H/4, W/4) or labels (N, H, W)."""
        logits: Tensor = self.model((image.float() - self.mean) * self.inverse)[:, : self.num_classes]  # (N, K, H/4, W/4)
        return resize(logits, side(image)).argmax(dim=1).byte() if self.labels else logits


def export_program(model: nn.Module, *, size: tuple[int, int, int] | None = None, strict: bool = False) -> ExportedProgram:
    """The graph of `model`, which takes images (N, 3, H, W): floats, or bytes where it is a `Deployment`.

    The program runs 1 to 1024 images of 33 to 16384 pixels a side, or, with `size`, N images of H x W alone. DCNv3 in it is the
    operator that the model's device gets, so a process that loads the program from a file must import `vistalib.ops` first.
    `strict` traces the Python code instead of running it. Raises `ValueError` for a model in training mode.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("a model to export must be in evaluation mode, got one in training; call model.eval() first")
    some = next(model.parameters())
    number, height, width = size or EXAMPLE
    dtype = torch.uint8 if isinstance(model, Deployment) else some.dtype
    image = torch.zeros(number, 3, height, width, dtype=dtype, device=some.device)
    free = None if size else ({axis: Dim(name, min=low, max=high) for axis, (name, low, high) in SIZES.items()},)
    with _quiet(), torch.no_grad():
        return torch.export.export(model, (image,), dynamic_shapes=free, strict=strict)


def export_file(
    model: nn.Module, path: str | Path, *, size: tuple[int, int, int] = (1, 512, 1024), about: Mapping[str, Any] | None = None
) -> None:
    """Write `model` to `path`: an .onnx file of opset 18, or a .pt2 package of AOTInductor, which a C++ compiler here makes.

    Input "image", output "logits", or "labels" of a `Deployment` that gives them. In an .onnx file batch, height and width are
    free within the bounds of `export_program`; a package takes `size`, N images of H x W, alone, and runs on processors that
    have this one's vector instructions. `about` is kept in the file as JSON texts by name. Raises `ValueError` for another
    suffix, where there is no compiler, and for a model in training mode.
    """
    path = Path(path)
    check_suffix(path)
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in (about or {}).items()}
    compiled = path.suffix == ".pt2"
    program = export_program(model, size=size if compiled else None)
    with replacing(path) as beside, _quiet():
        if compiled:
            write_package(program, beside, texts | {"size": json.dumps(size)})
        else:
            _write_onnx(program, beside, texts, labels=isinstance(model, Deployment) and model.labels)


def check_suffix(path: Path) -> None:
    """Raise now what `export_file` would raise about `path` after minutes of work."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"an exported file must end with {' or '.join(SUFFIXES)}, got {path.name!r}; rename it")
    if path.suffix == ".pt2":
        check_compiler()
    for package in SUFFIXES[path.suffix]:
        if find_spec(package) is None:
            raise missing(package, "write and check ONNX files")


def _write_onnx(program: ExportedProgram, path: Path, texts: Mapping[str, str], *, labels: bool) -> None:
    from onnx_ir import Shape

    output = "labels" if labels else "logits"
    written = torch.onnx.export(
        program,
        opset_version=OPSET,
        input_names=["image"],
        output_names=[output],
        custom_translation_table=translations(),
        verbose=False,
    )
    assert written is not None  # it is None for the old exporter alone
    image, result = written.model.graph.inputs[0], written.model.graph.outputs[0]
    assert result.shape is not None
    image.shape = Shape(["batch", 3, "height", "width"])
    result.shape = Shape(["batch", "height", "width"] if labels else ["batch", result.shape[1], "height / 4", "width / 4"])
    written.model.metadata_props.update(texts)
    written.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters have to say of themselves and of packages that nobody asked for."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
