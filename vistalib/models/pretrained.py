"""Whole models from weights, and back: `from_pretrained`, `save_pretrained`, `push_to_hub`.

A saved model is a folder, or a repository on the Hub, with `model.safetensors` under our names, `config.json` (see
`ModelConfig`, and the sha256 of the weights) and a model card, `README.md`. Nothing is pickled.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistalib.extras import missing
from vistalib.files import sha256, write_json, write_text
from vistalib.models.card import PLACE, model_card
from vistalib.models.config import ModelConfig, Outputs, config_beside, outputs_of
from vistalib.models.fetch import CONFIG, WEIGHTS, locate
from vistalib.models.identify import describe, models_of, num_classes_of
from vistalib.models.segmentor import Segmentor
from vistalib.models.weight_files import find_tensors, read_weights, write_weights
from vistalib.models.weights import LoadReport, load_weights, under_our_names
from vistalib.models.zoo import create_model


def from_pretrained(source: str | Path, *, sha256: str | None = None) -> Segmentor:
    """The model that `source` holds, ready to predict: of the right size and head, with its weights, on the CPU.

    `source` and `sha256` are as for `locate`: a saved model, a run's folder, a released name, a weight file, an address or a
    place on the Hub. `config` of the model says what is known of it. What was loaded is said on standard error. Raises
    `ValueError` where `locate` or the reading does, for weights that are not those of one whole model, and for NaN or infinity
    among them.
    """
    path = locate(source, sha256=sha256)
    content = read_weights(path)
    outputs = outputs_of(path, content)
    config = config_beside(path) or _config_of(content, source, outputs)
    try:
        model, report = _filled(config, content, str(source))
    except TypeError as error:
        raise ValueError(f"{source} must be of a model that this version can build, got: {error}; get a newer one") from error
    lacking = [name for name in report.missing if name.startswith("decode_head.") and not name.endswith("num_batches_tracked")]
    if lacking:
        raise ValueError(
            f"{source} must hold a whole {config.model}, got one without {lacking[0]}; for a part of one, build the model "
            f'with create_model("{config.model}", pretrained=...)'
        )
    print(f"{source}: {config.model}, {report}" + (f"\n  {outputs.guess}" if outputs.guess else ""), file=sys.stderr)
    model.config = config
    return model.eval()


def save_pretrained(
    model: Segmentor,
    folder: str | Path,
    *,
    classes: Sequence[str] | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    scale: tuple[int, int] | None = None,
    licence: str = "other",
    datasets: Sequence[str] = (),
    measured: Mapping[str, float] | None = None,
) -> Path:
    """Write `model` to `folder`, for `from_pretrained`; return the folder.

    `classes`, `colors` (RGB) and `scale` (width, height), where given, replace those of `model.config`; other classes leave its
    colours behind. The rest is for the
    card: `licence` of the weights as the Hub names licences, names of the `datasets` they were trained on, and what was
    `measured`: the mean IoU, a fraction, by dataset and how ("Cityscapes val, single scale"). Raises `ValueError` for a
    model that `create_model` did not build, and `NotWritten` where the folder cannot be written.
    """
    if model.config is None:
        raise ValueError(
            "only a model that create_model or from_pretrained built can be saved, since its arguments are saved with it; "
            "for the weights of another, save model.state_dict()"
        )
    changes: dict[str, Any] = {"classes": classes and tuple(classes), "scale": scale}
    others = classes is not None and tuple(classes) != model.config.classes
    changes["colors"] = tuple(tuple(map(int, color)) for color in colors) if colors else () if others else None
    config = replace(model.config, **{name: value for name, value in changes.items() if value is not None})
    folder = Path(folder)
    write_weights(folder / WEIGHTS, model.state_dict())
    write_json(folder / CONFIG, {**config.to_json(), "sha256": sha256(folder / WEIGHTS)})
    parameters = sum(parameter.numel() for parameter in model.parameters())
    write_text(
        folder / "README.md", model_card(config, parameters, licence=licence, datasets=datasets, measured=measured or {})
    )
    return folder


def push_to_hub(
    model: Segmentor, repo: str, *, private: bool = False, token: str | None = None, message: str = "Upload model", **card: Any
) -> str:
    """Save `model` into the repository `owner/name` of the Hub, which is made if need be; return the address of the commit.

    `card` are the keyword arguments of `save_pretrained`. `token` defaults to the one that `hf auth login` keeps. Raises
    `ValueError` where `save_pretrained` does, and when the Hub refuses.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    except ModuleNotFoundError as error:
        raise missing("huggingface-hub", "upload a model") from error
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        readme = save_pretrained(model, folder, **card) / "README.md"
        write_text(readme, readme.read_text(encoding="utf-8").replace(PLACE, repo))
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message).commit_url)
        except (HfHubHTTPError, OfflineModeIsEnabled) as error:
            raise ValueError(
                f"{repo} could not be written on the Hub ({str(error).splitlines()[0]}); check the name, and `hf auth login` "
                "with a token that may write there"
            ) from error


def _filled(config: ModelConfig, content: Mapping[str, Any], source: str) -> tuple[Segmentor, LoadReport]:
    """A model with the weights in `content`, which are from `source`, and what was loaded.

    First values are drawn only where the file lacks some: for a large model that takes several times as long as reading it.
    """
    with torch.device("meta"):
        model = create_model(config.model, config.num_classes, **config.backbone)
    model.to_empty(device="cpu")
    for buffer in model.buffers():
        buffer.zero_()
    report = load_weights(model, content, source=source)
    if all(name.endswith("num_batches_tracked") for name in report.missing):
        return model, report
    model = create_model(config.model, config.num_classes, **config.backbone)
    return model, load_weights(model, content, source=source)


def _config_of(content: Mapping[str, Any], source: str | Path, outputs: Outputs) -> ModelConfig:
    """What can be told of bare weights: the model from the tensors, beside what is known of their outputs."""
    tensors: dict[str, Tensor] = under_our_names(find_tensors(content).tensors)
    names, num_classes = models_of(tensors), num_classes_of(tensors)
    if num_classes is None or len(names) != 1:
        hint = f"; build one of {', '.join(names)} with create_model(..., pretrained=...)" if names else ""
        raise ValueError(f"{source} must hold a whole model of list_models(), got {describe(tensors)}{hint}")
    return ModelConfig(names[0], num_classes, classes=outputs.classes, colors=outputs.colors)
