"""`vistalib export`: a trained model as one file for other runtimes, measured and compared with PyTorch before it is kept."""

import json as json_text
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vistalib.cli.parts import Chosen, with_weights
from vistalib.files import check_writable, replacing, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vistalib.models import Deployment
    from vistalib.recipes import TrainedModel

TOLERANCE = 1e-4  # of the largest logit, or of 1 where that is smaller
MORE_SIZES = ((2, 96, 160), (1, 75, 101))  # checked beside the size that is timed; one is no multiple of anything


def export(
    places: Annotated[Chosen[tyro.conf.Positional[tuple[str, ...]]], tyro.conf.arg(metavar="[WEIGHTS] TARGET")],
    *,
    weights: Chosen[str | None] = None,
    labels: bool = False,
    size: tuple[int, int] = (512, 1024),
    json: Path | None = None,
) -> None:
    """Write a model as one file that runs without vistalib: ONNX, or a package compiled for PyTorch.

    An ONNX file takes RGB bytes, (batch, 3, height, width), of any number and size; a package, which needs a C++ compiler here
    and none where it runs, takes one image of --size. The file is kept only if it gives what PyTorch gives.

    Args:
        places: File to write, NAME.onnx or NAME.pt2. The weights may stand before it, too.
        weights: Run folder, weight file, released name, address or place on the Hub.
        labels: Give the class of every pixel instead of logits at a quarter of the size.
        size: Height and width at which time and memory are measured, and which a package takes.
        json: File for the figures.
    """
    from vistalib.models import export_file
    from vistalib.models.export import check_suffix
    from vistalib.recipes import open_model

    source, name = with_weights(weights, places, "TARGET")
    target = Path(name)
    check_suffix(target)
    sizes = ((1, *size),) if target.suffix == ".pt2" else ((1, *size), *MORE_SIZES)
    for path in (target, json):
        if path is not None:
            check_writable(path)
    trained = open_model(source, device="cpu")
    deployed = _deployed(trained, labels)
    with replacing(target) as beside:
        _say("export: tracing and writing; large models take minutes")
        began = time.monotonic()
        export_file(deployed, beside, size=sizes[0], about=_about(source, trained))
        _say(f"export: written in {time.monotonic() - began:.0f} s; running it without vistalib, and PyTorch beside it")
        figures = _compare(source, beside, labels=labels, sizes=sizes)
    figures = {"file": str(target), "bytes": target.stat().st_size, "classes": len(trained.classes), **figures}
    print(f"{target}: {figures['bytes'] / 1e6:.1f} MB; image {figures['input']} RGB bytes -> {figures['output']}")
    print(f"  {'':18}{'seconds':>9}{'peak MB':>9}   one image of {size[0]}x{size[1]}, {figures['threads']} threads")
    for name in ("exported", "eager"):
        row = figures[name]
        memory = "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
        print(f"  {name:18}{row['seconds']:9.3f}{memory:>9}")
    print(f"  worst difference {figures['worst_error']:.1e} of the largest logit, over {', '.join(figures['sizes'])}")
    if json is not None:
        write_json(json, figures)


def _deployed(trained: "TrainedModel", labels: bool) -> "Deployment":
    from vistalib.data.colors import MEAN, STD
    from vistalib.models import Deployment

    return Deployment(trained.model, mean=MEAN, std=STD, num_classes=len(trained.classes), labels=labels)


def _about(source: str, trained: "TrainedModel") -> dict[str, Any]:
    """What the file says of itself."""
    from vistalib import __version__

    return {
        "model": trained.model.config.model if trained.model.config else None,
        "source": Path(source).name,
        "classes": list(trained.classes),
        "colors": trained.colors.tolist(),
        "image": "RGB, 0 to 255, normalised inside",
        "evaluated_at": list(trained.scale),  # width, height
        "vistalib": __version__,
    }


def _compare(source: str, file: Path, *, labels: bool, sizes: tuple[tuple[int, int, int], ...]) -> dict[str, Any]:
    """Run `file` and the model of `source` in a process each, the first of `sizes` for time, all of them for agreement."""
    import numpy as np
    import torch

    from vistalib.models import run_exported

    draw = np.random.default_rng(0)
    images = {f"{n}x3x{h}x{w}": draw.integers(0, 256, (n, 3, h, w), dtype=np.uint8) for n, h, w in sizes}
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        given, found, expected = (Path(folder) / f"{name}.npz" for name in ("images", "found", "expected"))
        np.savez(given, **images)  # type: ignore[arg-type]  # its other arguments are no arrays
        exported = _run("-I", run_exported.__file__, str(file), str(given), str(found), str(threads))
        eager = _run(
            "-c",
            "import sys; from vistalib.cli.export import eager; eager(*sys.argv[1:])",
            source,
            str(given),
            str(expected),
            str(threads),
        )
        with np.load(found) as ours, np.load(expected) as theirs:
            worst = max(difference(ours[name], theirs[name]) for name in images)
    if worst > TOLERANCE:
        raise ValueError(
            f"the exported file must give what PyTorch gives to {TOLERANCE} of the largest logit, got {worst:.1e}; "
            "it was not kept; try another version of torch, onnxscript or onnxruntime"
        )
    batch, height, width = sizes[0] if len(sizes) == 1 else ("batch", "height", "width")
    return {
        "input": f"({batch}, 3, {height}, {width})",
        "output": "labels (batch, height, width)" if labels else "logits (batch, classes, height / 4, width / 4)",
        "exported": exported,
        "eager": eager,
        "threads": threads,
        "sizes": list(images),
        "worst_error": worst,
    }


def difference(found: "NDArray[Any]", logits: "NDArray[np.float32]") -> float:
    """How far `found`, logits or labels, is from what `logits` (N, K, h, w) say, as a share of the largest of them.

    A label is as far off as the logit of its class, at the size of the labels, is below the highest: two classes that
    differ by a rounding may change places, others may not.
    """
    import numpy as np
    import torch

    expected = torch.from_numpy(logits)
    largest = max(float(expected.abs().max()), 1.0)
    if found.dtype != np.uint8:
        return float(np.abs(found - logits).max()) / largest
    from vistalib.models.convolution import resize

    expected = resize(expected, found.shape[1:])  # (N, K, H, W)
    chosen = expected.gather(1, torch.from_numpy(found).long()[:, None])[:, 0]  # (N, H, W)
    return float((expected.amax(1) - chosen).max()) / largest


def _run(*arguments: str) -> dict[str, float | None]:
    """The figures that a fresh Python prints on its last line."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise ValueError(f"the exported file or its model did not run: {sys.executable} {' '.join(arguments)}; see above why")
    figures: dict[str, float | None] = json_text.loads(done.stdout.splitlines()[-1])
    return figures


def eager(source: str, given: str, expected: str, threads: str) -> None:
    """In a process of its own: the logits of the model of `source`, its seconds and memory, as `run_exported` tells them."""
    import numpy as np
    import torch

    from vistalib.models.run_exported import measure
    from vistalib.recipes import open_model

    torch.set_num_threads(int(threads))
    model = _deployed(open_model(source, device="cpu"), labels=False)
    with np.load(given) as held:
        images = dict(held)
    with torch.inference_mode():
        arrays, figures = measure(lambda array: model(torch.from_numpy(array)).numpy(), images)
    np.savez(expected, **arrays)
    print(json_text.dumps(figures))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
