"""Weight files converted between the released names and ours, and between formats, there and back."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vistalib.cli import main
from vistalib.files import read_json, sha256
from vistalib.models import create_model, from_released, read_weights, to_released
from vistalib.models.convert import Naming, convert_weights
from vistalib.models.weight_files import write_weights

NANO = "upernet_internimage_nano"
MODELS = json.loads(gzip.decompress((Path(__file__).parent / "data" / "manifests" / "released.json.gz").read_bytes()))["models"]
HUGE = {"norm": "res_post", "dw_kernel_size": 5, "extra_post_norm_blocks": (0, 2), "center_feature_scale": True}


@pytest.fixture(scope="module")
def released() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return to_released(create_model(NANO, 3).state_dict())


def same(found: dict[str, Any], expected: dict[str, Tensor]) -> bool:
    return list(found) == list(expected) and all(
        torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in expected.items()
    )


@pytest.mark.parametrize("first", [".pth", ".safetensors"])
@pytest.mark.parametrize("second", [".pth", ".safetensors"])
def test_there_and_back_gives_the_same_names_and_tensors_in_order(
    first: str, second: str, released: dict[str, Tensor], tmp_path: Path
) -> None:
    write_weights(tmp_path / f"released{first}", released)
    convert_weights(tmp_path / f"released{first}", tmp_path / f"ours{second}")
    assert same(read_weights(tmp_path / f"ours{second}"), from_released(released))
    convert_weights(tmp_path / f"ours{second}", tmp_path / f"back{first}", to="released")
    assert same(read_weights(tmp_path / f"back{first}"), released)
    assert sha256(tmp_path / f"back{first}") == sha256(tmp_path / f"released{first}")


@pytest.mark.parametrize("name", MODELS)
def test_every_released_model_comes_back_under_its_names(name: str, tmp_path: Path) -> None:
    # Of every tensor one number, which is enough to follow it.
    released = {key: torch.tensor(i) for i, (key, *_) in enumerate(MODELS[name]["state_dict"])}
    write_weights(tmp_path / "released.pth", released)
    done = convert_weights(tmp_path / "released.pth", tmp_path / "ours.safetensors")
    with torch.device("meta"):
        assert list(read_weights(tmp_path / "ours.safetensors")) == list(create_model(name).state_dict())
    convert_weights(tmp_path / "ours.safetensors", tmp_path / "back.pth", to="released")
    assert same(read_weights(tmp_path / "back.pth"), released)
    assert (done.naming, done.tensors, done.unknown) == ("released", len(released), ())


def test_a_huge_model_and_half_precision_come_back(tmp_path: Path) -> None:
    released = {n: t.half() for n, t in to_released(create_model(NANO, 3, **HUGE).state_dict()).items()}
    write_weights(tmp_path / "a.pth", released)
    convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors")
    convert_weights(tmp_path / "b.safetensors", tmp_path / "c.pth", to="released")
    assert same(read_weights(tmp_path / "c.pth"), released)


def test_a_backbone_of_a_classification_stays_bare_and_keeps_its_head(released: dict[str, Tensor], tmp_path: Path) -> None:
    bare = {n.removeprefix("backbone."): t for n, t in released.items() if n.startswith("backbone.")}
    bare |= {"conv_head.0.weight": torch.zeros(3), "head.weight": torch.ones(2)}
    torch.save({"model": bare, "epoch": 300}, tmp_path / "a.pth")
    done = convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors")
    ours = read_weights(tmp_path / "b.safetensors")
    backbone = create_model(NANO, 3).backbone
    assert list(ours) == [*backbone.state_dict(), "conv_head.0.weight", "head.weight"]
    assert (done.unknown, done.ignored, done.where) == (("conv_head.0.weight", "head.weight"), ("epoch",), "under model")
    convert_weights(tmp_path / "b.safetensors", tmp_path / "c.pth", to="released")
    assert same(read_weights(tmp_path / "c.pth"), bare)


@pytest.mark.parametrize("to", ["released", "vistalib"])
def test_a_file_that_has_the_names_already_changes_its_format_alone(
    to: Naming, released: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = released if to == "released" else from_released(released)
    write_weights(tmp_path / "a.pth", tensors)
    assert convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors", to=to).renamed == 0
    assert same(read_weights(tmp_path / "b.safetensors"), tensors)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["layer1.0.conv1.weight", "fc.weight"], "must hold an InternImage .* names like layer1.0.conv1.weight, fc.weight"),
        (["decode_head.conv_seg.weight"], "must hold an InternImage"),
        ([], "names like none"),
        (["backbone.stem.conv1.weight", "backbone.levels.0.norm.0.weight"], "under one of them"),
        (
            ["backbone.patch_embed.conv1.weight", "decode_head.ppm.0.conv.weight"],
            r"can be turned back, got decode_head\.ppm\.0\.conv\.weight",
        ),
    ],
    ids=["another network", "a head alone", "nothing", "both namings", "a head of ours on a released backbone"],
)
def test_what_is_not_known_is_refused_and_nothing_written(names: list[str], said: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {name: torch.zeros(2) for name in names}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=said):
        convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_the_command_says_what_it_did(released: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {"meta": {}, "state_dict": {f"module.{n}": t for n, t in released.items()} | {"head.weight": torch.ones(1)}}
    torch.save(content, tmp_path / "in.pth")
    arguments = [str(tmp_path / name) for name in ("in.pth", "out.safetensors")]
    assert main(["convert", *arguments, "--json", str(tmp_path / "done.json")]) == 0
    printed = capsys.readouterr().out
    count = len(released) + 1
    assert f"in.pth: {count} tensors under the released names, under state_dict, with module. before the names" in printed
    assert f"out.safetensors: {count} tensors under the vistalib names" in printed
    assert "kept under their own names: head.weight" in printed
    assert "left out, since they are no tensors: meta" in printed
    done = read_json(tmp_path / "done.json")
    assert done["sha256"] == sha256(tmp_path / "out.safetensors")
    assert (done["naming"], done["to"], done["tensors"], done["unknown"]) == ("released", "vistalib", count, ["head.weight"])


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("nowhere.pth", "out.pth", "which is none"),
        ("in.pth", "out.ckpt", ".safetensors or .pth"),
        ("in.pth", "taken/out.pth", "could not be written"),
    ],
    ids=["no source", "another format", "no place"],
)
def test_the_command_fails_with_one_sentence(
    source: str,
    target: str,
    said: str,
    released: dict[str, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_weights(tmp_path / "in.pth", released)
    (tmp_path / "taken").write_text("")
    assert main(["convert", str(tmp_path / source), str(tmp_path / target)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
