"""Weights into models: what loads, what is skipped and why, what is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vistalib.files import write_json
from vistalib.models import (
    RELEASED_FILES,
    ModelConfig,
    Segmentor,
    create_model,
    load_weights,
    read_weights,
    to_released,
)

NANO = "upernet_internimage_nano"
HEADS = ("decode_head", "auxiliary_head")


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
    "model_state_dict": lambda state: {"model_state_dict": dict(state), "optimizer": {"state": {}}},
    "a container in another": lambda state: {"state_dict": {"module": to_released(state)}},
    "averaged weights": lambda state: {"model_ema": to_released(state), "ema_decay": 0.9999},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "compiled and parallel": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    "model. before the names": lambda state: {f"model.{name}": value for name, value in to_released(state).items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_load_whatever_they_are_wrapped_in(wrapping: str) -> None:
    source, model = nano(seed=1), nano()
    report = load_weights(model, WRAPPINGS[wrapping](source.state_dict()))
    assert same(model, source)
    assert (len(report.loaded), report.skipped, report.missing) == (len(model.state_dict()), {}, ())


def test_of_two_sets_of_weights_the_averaged_one_is_left_and_said() -> None:
    source, averaged, model = nano(seed=1), nano(seed=2), nano()
    report = load_weights(model, {"model_ema": averaged.state_dict(), "model": source.state_dict(), "epoch": 3})
    assert same(model, source)
    assert report.notes == ("found under model of the file", "not used, as it is beside the weights: model_ema, epoch")


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


@pytest.mark.parametrize("prefix", ["", "model.", "module."], ids=["bare", "as on the Hub", "parallel"])
def test_a_backbone_without_layer_scales_gives_the_same_network(prefix: str) -> None:
    # As the released ImageNet weights of the T size, whose segmentors have them: without any, x + branch; with ones, the same.
    source = create_model(NANO, 7, layer_scale=None)
    model = create_model(NANO, 7, layer_scale=1e-5)
    state = to_released({n: v for n, v in source.state_dict().items() if n.startswith("backbone.")})
    bare = {prefix + name.removeprefix("backbone."): value for name, value in state.items()}
    report = load_weights(model, {"model": bare | {prefix + "conv_head.0.weight": torch.zeros(192, 128, 1, 1)}})
    image = torch.rand(1, 3, 32, 32)
    assert all(torch.equal(*maps) for maps in zip(model.backbone(image), source.backbone(image), strict=True))
    assert "12 layer scales are not in the file, and are ones: the same network" in report.notes
    assert len(report.loaded) == len(bare)
    assert report.skipped == {"conv_head.0.weight": "the model has no such parameter"}


def test_layer_scales_under_the_names_of_the_hub_load() -> None:
    source, model = create_model(NANO, 7, layer_scale=0.5), create_model(NANO, 7, layer_scale=1.0)
    state = to_released(source.state_dict())
    load_weights(model, {re.sub(r"gamma(\d)$", r"layer_scale\1", name): value for name, value in state.items()})
    assert same(model, source)


def test_half_precision_becomes_the_precision_of_the_model_and_is_said() -> None:
    source, model = nano(seed=1), nano()
    report = load_weights(model, {name: value.half() for name, value in source.state_dict().items()})
    assert all(torch.equal(p, q.half().float()) for p, q in zip(model.parameters(), source.parameters(), strict=True))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert "turned float16 into float32" in report.notes


def test_a_count_that_half_precision_cannot_hold_is_left_out() -> None:
    source, model = nano(seed=1), nano()
    state = source.state_dict()
    counts = [name for name in state if name.endswith("num_batches_tracked")]
    report = load_weights(model, state | dict.fromkeys(counts, torch.tensor(160_000.0).half()))
    assert report.skipped == dict.fromkeys(counts, "a count that float16 cannot hold")
    assert {int(model.state_dict()[name]) for name in counts} == {0}


def rows(model: Segmentor) -> list[list[float]]:
    """The last convolutions of both heads, a row a class."""
    state = model.state_dict()
    weights = [state[f"{head}.conv_seg.weight"].flatten(1) for head in HEADS]  # (K, C)
    biases = [state[f"{head}.conv_seg.bias"][:, None] for head in HEADS]  # (K, 1)
    return torch.cat(weights + biases, dim=1).tolist()


def test_a_slice_keeps_the_first_classes_and_their_logits() -> None:
    source, model = nano(9, seed=1).eval(), nano(4).eval()
    report = load_weights(model, to_released(source.state_dict()), classes="slice")
    image = torch.rand(1, 3, 32, 64)
    # Worst 0 over 5 seeds; another processor may go another way through a matrix product with fewer rows.
    torch.testing.assert_close(model(image), source(image)[:, :4], rtol=0, atol=1e-6)
    assert rows(model) == rows(source)[:4]
    assert (report.skipped, report.missing) == ({}, ())
    assert "kept the first 4 of 9 classes" in report.notes


def test_rows_of_classes_that_share_a_name_are_copied_and_the_others_stay() -> None:
    source, model, fresh = nano(5, seed=1), nano(4), nano(4)
    theirs = ["road", "sidewalk", "sky"]  # and two outputs without a name, as in the released files
    report = load_weights(model, source.state_dict(), classes=["sky", "egg", "road", "ham"], their_classes=theirs)
    before, after, anew = rows(source), rows(model), rows(fresh)
    assert after == [before[2], anew[1], before[0], anew[3]]
    assert "copied the rows of 2 classes by name; new: egg, ham" in report.notes
    assert (report.skipped, report.missing) == ({}, ())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": "slice"}, "at least the 7 classes of the model, .* for a file with 5"),
        ({"classes": "cut"}, "\"slice\" .* got 'cut'"),
        ({"classes": list("abc"), "their_classes": list("abc")}, "classes must be 7 different names, .* got 3"),
        ({"classes": list("aabcdef"), "their_classes": list("abc")}, "classes must be 7 different names"),
        ({"classes": list("abcdefg"), "their_classes": list("abcdef")}, "at most the 5 of the file, got 6"),
        ({"classes": list("abcdefg"), "their_classes": list("aa")}, "their_classes must be different names"),
        ({"classes": list("abcdefg"), "their_classes": list("xyz")}, "must share a name, got a, b, c and 4 more and x, y, z"),
        ({"classes": list("abcdefg")}, "must share a name"),
    ],
    ids=["slice up", "no way", "too few", "twice", "more than the file", "theirs twice", "none shared", "theirs unknown"],
)
def test_classes_that_cannot_be_matched_are_refused_and_nothing_is_loaded(options: dict[str, Any], said: str) -> None:
    model = nano()
    with pytest.raises(ValueError, match=said):
        load_weights(model, nano(5, seed=1).state_dict(), **options)
    assert same(model, nano())


@pytest.mark.parametrize("classes", ["slice", ["road", "b", "c", "d"]], ids=["slice", "by name"])
def test_a_head_of_another_kind_gives_no_rows_and_its_model_is_named(classes: Any) -> None:
    source, model, fresh = nano(9, seed=1), nano(4), nano(4)
    state = {name.replace("decode_head.ppm", "decode_head.fusion_conv"): t for name, t in source.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("auxiliary_head.")}
    report = load_weights(model, state, classes=classes, their_classes=["road"])
    assert same(model, source, "backbone.")
    assert same(model, fresh, "decode_head.")
    assert "no head like the model's is in the file: no rows of classes were taken" in report.notes


@pytest.mark.filterwarnings("ignore:for .*a meta parameter in the current model, which is a no-op")  # nothing to copy into
def test_a_head_of_another_model_names_that_model() -> None:
    with torch.device("meta"):
        upernet, segformer = create_model("upernet_internimage_l"), create_model("segformer_internimage_l")
    report = load_weights(upernet, segformer.state_dict())
    assert 'its head is of segformer_internimage_l: create_model("segformer_internimage_l") takes that too' in report.notes


def test_the_classes_of_a_released_checkpoint_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "upernet_internimage_t_512x1024_160k_cityscapes"
    source = nano(150, seed=1)
    torch.save(to_released(source.state_dict()), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    mine = create_model(NANO, 3, name, classes=["bicycle", "tram", "road"])
    assert [rows(mine)[i] for i in (0, 2)] == [rows(source)[i] for i in (18, 0)]
    assert mine.config is not None
    assert mine.config.classes == ("bicycle", "tram", "road")
    sliced = create_model(NANO, 19, name, classes="slice")
    assert rows(sliced) == rows(source)[:19]
    assert sliced.config is not None
    assert sliced.config.classes == RELEASED_FILES[name].classes
    assert same(create_model(NANO, 150, name), source)


def test_a_released_recipe_names_its_model_and_a_backbone_none() -> None:
    with torch.device("meta"):
        model = create_model("segformer_internimage_l_512x1024_80k_mapillary")
    assert model.config == ModelConfig("segformer_internimage_l", 150)
    with pytest.raises(ValueError, match="is a backbone; build a model"):
        create_model("internimage_t_1k_224")


def test_pretrained_true_needs_a_released_name() -> None:
    with pytest.raises(ValueError, match="pretrained=True needs the name of a released recipe, got 'upernet_internimage_nano'"):
        create_model(NANO, 7, pretrained=True)


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"net": {"stem.conv1.weight": torch.ones(1)}, "epoch": 3}, "its names begin with net, epoch"),
        ({"layer1.0.conv1.weight": torch.ones(1)}, r"its names begin with layer1\.0\.conv1\.weight"),
        ({}, "its names begin with nothing"),
    ],
    ids=["an unknown container", "another network", "an empty file"],
)
def test_a_file_without_an_internimage_is_refused_with_what_it_holds(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"got no InternImage; {said}"):
        load_weights(nano(), content)


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
