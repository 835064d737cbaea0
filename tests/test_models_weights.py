"""Weights into models: what loads, what is skipped and why, what is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vistalib.files import write_json
from vistalib.models import Segmentor, create_model, load_weights, read_weights, to_released

NANO = "upernet_internimage_nano"


def nano(num_classes: int = 7, seed: int = 0) -> Segmentor:
    torch.manual_seed(seed)
    return create_model(NANO, num_classes)


def same(model: Segmentor, other: Segmentor, prefix: str = "") -> bool:
    mine, theirs = model.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine if name.startswith(prefix))


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], dict[str, object]]] = {
    "ours": lambda state: dict(state),
    "released": lambda state: dict(to_released(state)),
    "state_dict": lambda state: {"meta": {"epoch": 3}, "state_dict": to_released(state)},
    "model": lambda state: {"model": to_released(state), "epoch": 3},
    "module": lambda state: {"state_dict": {f"module.{name}": value for name, value in to_released(state).items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_load_whatever_they_are_wrapped_in(wrapping: str) -> None:
    source, model = nano(seed=1), nano()
    report = load_weights(model, WRAPPINGS[wrapping](source.state_dict()))
    assert same(model, source)
    assert (len(report.loaded), report.skipped, report.missing) == (len(model.state_dict()), {}, ())


def test_a_head_for_other_classes_loads_all_but_its_last_convolution() -> None:
    source, model, fresh = nano(5, seed=1), nano(7), nano(7)
    report = load_weights(model, source.state_dict())
    assert set(report.skipped) == {
        f"{head}.conv_seg.{kind}" for head in ("decode_head", "auxiliary_head") for kind in ("weight", "bias")
    }
    assert set(report.skipped.values()) == {"another number of classes: 5 in the file, 7 in the model"}
    assert report.missing == tuple(name for name in model.state_dict() if "conv_seg" in name)
    assert same(model, source, "backbone.")
    assert same(model, source, "decode_head.ppm.")
    assert same(model, fresh, "decode_head.conv_seg.")


def test_a_head_of_another_kind_is_skipped_whole() -> None:
    source, model = nano(), create_model(NANO, 7)
    state = {name: value for name, value in source.state_dict().items() if not name.startswith("decode_head.")}
    state |= {
        "decode_head.conv_seg.weight": torch.ones(7, 64, 1, 1),
        "decode_head.fusion_conv.conv.weight": torch.ones(64, 256, 1, 1),
    }
    report = load_weights(model, state)
    assert set(report.skipped.values()) == {"a head of another kind, made of fusion_conv"}
    assert not (model.state_dict()["decode_head.conv_seg.weight"] == 1).all()


def test_a_classification_checkpoint_gives_its_backbone() -> None:
    source, model = nano(seed=1), nano()
    state = {n.removeprefix("backbone."): v for n, v in to_released(source.state_dict()).items() if n.startswith("backbone.")}
    report = load_weights(model, {"model": state | {"head.weight": torch.zeros(1000, 128), "norm.weight": torch.zeros(128)}})
    assert same(model, source, "backbone.")
    assert report.skipped == dict.fromkeys(["head.weight", "norm.weight"], "the model has no such parameter")


def test_the_report_reads_as_sentences() -> None:
    text = str(load_weights(nano(7), nano(5).state_dict()))
    assert "skipped decode_head.conv_seg.weight, decode_head.conv_seg.bias, auxiliary_head.conv_seg.weight and 1 more" in text
    assert "another number of classes: 5 in the file, 7 in the model" in text


@pytest.mark.parametrize(
    ("name", "part", "right"),
    [
        ("upernet_internimage_l", "", '"upernet_internimage_l"'),
        ("segformer_internimage_l", "", '"segformer_internimage_l"'),
        ("upernet_internimage_l", "backbone.", '"upernet_internimage_l" or "segformer_internimage_l"'),
        ("upernet_internimage_b", "backbone.", '"upernet_internimage_b"'),
    ],
    ids=["upernet", "segformer", "a backbone that two heads fit", "a backbone that one head fits"],
)
def test_weights_of_another_size_are_refused_and_the_right_model_named(name: str, part: str, right: str) -> None:
    with torch.device("meta"):
        state = to_released(create_model(name).state_dict())
    got = "L (channels 160, depths 5 5 22 5)" if name.endswith("_l") else "B (channels 112, depths 4 4 21 4)"
    expected = (
        f"of InternImage-nano (channels 16, depths 1 1 3 1), got InternImage-{got}; build the model with create_model({right})"
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        load_weights(nano(), {key: value for key, value in state.items() if key.startswith(part)})


def test_weights_with_another_norm_are_refused_naming_where_they_differ() -> None:
    with torch.device("meta"):
        post = create_model(NANO, norm="post").state_dict()
    with pytest.raises(ValueError, match=r"they differ in backbone\.stages\.0\.norm\.bias"):
        load_weights(nano(), post)


def test_a_refused_file_leaves_the_model_as_it_was() -> None:
    model = nano()
    with pytest.raises(ValueError, match="no InternImage"):
        load_weights(model, {"decode_head.conv_seg.weight": torch.zeros(7, 64, 1, 1), "layer1.0.conv1.weight": torch.zeros(1)})
    assert same(model, nano())


def test_a_pth_file_a_safetensors_file_and_a_run_folder_give_the_same_model(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    source = nano(seed=1)
    torch.save({"state_dict": to_released(source.state_dict())}, tmp_path / "released.pth")
    checkpoint = tmp_path / "run" / "checkpoints" / "iter_000010"
    checkpoint.mkdir(parents=True)
    save_file(source.state_dict(), checkpoint / "model.safetensors")
    write_json(checkpoint.parent / "index.json", {"last": "iter_000010", "best": None})
    for path in (tmp_path / "released.pth", checkpoint / "model.safetensors", checkpoint, tmp_path / "run"):
        assert same(create_model(NANO, 7, pretrained=path), source)


def test_what_was_not_loaded_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(nano(5).state_dict(), tmp_path / "five.pth")
    create_model(NANO, 7, pretrained=tmp_path / "five.pth")
    assert "another number of classes: 5 in the file, 7 in the model" in capsys.readouterr().err


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hook": Path.cwd}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="must be a checkpoint of tensors"):
        read_weights(tmp_path / "evil.pth")


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=name):
        read_weights(tmp_path / name)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.pth, where there is no such file"):
        read_weights(tmp_path / "nowhere.pth")
