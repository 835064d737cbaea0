"""Models saved whole and opened again, and the list of what was released."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from vistalib.data.labels import TRAIN_CLASSES
from vistalib.evaluate import evaluate_dataset
from vistalib.files import NotWritten, read_json, write_json
from vistalib.models import (
    RELEASED_FILES,
    InternImage,
    ModelConfig,
    Segmentor,
    UPerHead,
    create_model,
    from_pretrained,
    save_pretrained,
    to_released,
)
from vistalib.models.ade20k import ADE20K
from vistalib.models.config import Outputs, outputs_of
from vistalib.models.variants import VARIANTS
from vistalib.models.weight_files import write_weights
from vistalib.recipes import get_recipe, list_recipes

NANO = "upernet_internimage_nano"
IMAGE = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
CARD = {
    "classes": ["road", "sky", "car"],
    "colors": [(128, 64, 128), (70, 130, 180), (0, 0, 142)],
    "scale": (64, 32),
    "licence": "cc-by-nc-sa-4.0",
    "datasets": ["my streets"],
    "measured": {"my streets val, single scale": 0.4321},
}


@pytest.fixture(scope="module")
def model() -> Segmentor:
    torch.manual_seed(1)
    return create_model(NANO, 3).eval()


@pytest.fixture(scope="module")
def folder(model: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pretrained(model, tmp_path_factory.mktemp("saved") / "model", **CARD)


def test_a_saved_model_opens_with_its_weights_and_what_its_outputs_mean(model: Segmentor, folder: Path) -> None:
    opened = from_pretrained(folder)
    assert torch.equal(opened(IMAGE), model(IMAGE))
    assert opened.config == ModelConfig(NANO, 3, {}, ("road", "sky", "car"), tuple(CARD["colors"]), (64, 32))
    assert not opened.training


def test_what_differs_from_the_table_is_saved_too(tmp_path: Path) -> None:
    options = {"norm": "post", "layer_scale": 0.5, "offset_scale": 2.0, "extra_post_norm_blocks": (0, 2), "dw_kernel_size": 5}
    model = create_model(NANO, 3, drop_path_rate=0.3, **options).eval()
    opened = from_pretrained(save_pretrained(model, tmp_path))
    assert torch.equal(opened(IMAGE), model(IMAGE))
    assert repr(opened) == repr(model)


def test_saving_what_was_opened_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    again = save_pretrained(from_pretrained(folder), tmp_path, **{k: CARD[k] for k in ("licence", "datasets", "measured")})
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_the_card_says_how_to_use_it_what_was_measured_and_under_which_licence(folder: Path) -> None:
    _, matter, text = (folder / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(matter)
    assert (front["license"], front["datasets"], front["pipeline_tag"]) == (
        "cc-by-nc-sa-4.0",
        ["my streets"],
        "image-segmentation",
    )
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "mean_iou", "value": 0.4321}]
    assert "| my streets val, single scale | 43.21% |" in text
    assert "road, sky, car" in text
    assert "999,347 parameters" not in text  # of 19 classes
    assert f"{sum(p.numel() for p in create_model(NANO, 3).parameters()):,} parameters" in text


def test_the_card_is_one_that_the_hubs_own_library_reads(folder: Path) -> None:
    card = pytest.importorskip("huggingface_hub").ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-nc-sa-4.0"
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("my streets val, single scale", 0.4321)


def test_the_code_in_the_card_runs(folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names = {"image": IMAGE}
    exec(code.replace("owner/name", str(folder)), names)
    assert names["labels"].shape == (1, 32, 64)


def test_a_card_without_facts_says_that_there_are_none(model: Segmentor, tmp_path: Path) -> None:
    text = (save_pretrained(model, tmp_path) / "README.md").read_text()
    assert "Licence of the weights: not stated" in text
    assert "Nothing was stated." in text
    assert "model-index" not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"measured": {"val": 43.21}}, "from 0 to 1, got 43.21 for 'val'; divide percent by 100"),
        ({"classes": list("abcd")}, "at most the 3 of the model"),
        ({"classes": list("abc"), "colors": [(0, 0, 0)]}, "got 3 classes and 1 colors"),
    ],
    ids=["percent", "too many classes", "too few colours"],
)
def test_a_card_that_does_not_fit_is_refused(model: Segmentor, tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        save_pretrained(model, tmp_path / "new", **options)


def test_a_model_that_was_built_by_hand_is_not_saved_without_its_arguments(tmp_path: Path) -> None:
    backbone = InternImage(16, (1, 1, 3, 1), (1, 2, 4, 8))
    model = Segmentor(backbone, UPerHead(backbone.out_channels, channels=64, num_classes=3))
    with pytest.raises(ValueError, match="only a model that create_model or from_pretrained built"):
        save_pretrained(model, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(model: Segmentor, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotWritten, match="taken"):
        save_pretrained(model, tmp_path / "taken")


@pytest.mark.parametrize("name", ["upernet_internimage_nano", "upernet_internimage_micro"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_model_of_bare_weights_is_told_from_them(name: str, suffix: str, tmp_path: Path) -> None:
    model = create_model(name, 5).eval()
    write_weights(tmp_path / f"weights{suffix}", to_released(model.state_dict()))
    opened = from_pretrained(tmp_path / f"weights{suffix}")
    assert opened.config == ModelConfig(name, 5)
    assert torch.equal(opened(IMAGE), model(IMAGE))


def test_the_classes_of_a_released_checkpoint_come_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "upernet_internimage_t_512x1024_160k_cityscapes.pth"
    torch.save(create_model(NANO).state_dict(), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    config = from_pretrained(name).config
    assert config == ModelConfig(NANO, 150, classes=TRAIN_CLASSES)


@pytest.mark.parametrize(
    ("name", "num_classes", "known"),
    [
        ("upernet_internimage_xl_640_160k_ade20k.pth", 150, "wall"),
        ("Mine-ADE20K.safetensors", 150, "wall"),
        ("cityscapes2ade20k", 150, "wall"),
        ("ade20k_to_cityscapes.pth", 150, "road"),
        ("segformer_internimage_l_512x1024_160k_mapillary2cityscapes.pth", 150, "road"),
        ("mapillary.pth", 19, "road"),
        ("mapillary.pth", 66, None),
        ("ade20k.pth", 149, None),
        ("ade20k_cityscapes.pth", 30, None),
        ("facade20k.pth", 150, None),
        ("latest.pth", 150, None),
    ],
)
def test_the_last_dataset_in_a_files_name_tells_its_classes_where_the_outputs_are_as_many(
    name: str, num_classes: int, known: str | None, tmp_path: Path
) -> None:
    content = {"decode_head.conv_seg.weight": torch.empty(num_classes, 1, 1, 1)}
    assert outputs_of(tmp_path / name, content).classes[:1] == ((known,) if known else ())


def test_what_a_file_says_counts_more_than_its_name(tmp_path: Path) -> None:
    content = {"meta": {"CLASSES": ["a", "b"]}, "state_dict": {"decode_head.conv_seg.weight": torch.empty(150, 1, 1, 1)}}
    assert outputs_of(tmp_path / "ade20k.pth", content) == Outputs(("a", "b"))


def test_every_class_of_ade20k_has_a_name_of_its_own_and_a_colour() -> None:
    assert len(ADE20K) == len({name for name, _ in ADE20K}) == 150
    assert all(name == name.strip().lower() for name, _ in ADE20K)
    assert {
        tuple(name for name, c in ADE20K if c == color) for _, color in ADE20K if [c for _, c in ADE20K].count(color) > 1
    } == {("road", "skyscraper")}


COLORS = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
META = {"CLASSES": ("road", "sky", "car"), "PALETTE": [list(color) for color in COLORS]}


@pytest.mark.parametrize(
    ("meta", "classes", "colors"),
    [
        (META, META["CLASSES"], tuple(COLORS)),
        ({"dataset_meta": {"classes": META["CLASSES"], "palette": META["PALETTE"]}}, META["CLASSES"], tuple(COLORS)),
        ({"CLASSES": META["CLASSES"], "PALETTE": None}, META["CLASSES"], ()),
        ({"CLASSES": list("abcd")}, (), ()),
        ({"epoch": 3}, (), ()),
    ],
    ids=["mmseg 0", "mmseg 1", "no colours", "more than outputs", "nothing"],
)
def test_classes_that_mmsegmentation_wrote_beside_the_weights_are_read(
    meta: dict[str, Any], classes: Any, colors: Any, model: Segmentor, tmp_path: Path
) -> None:
    torch.save({"meta": meta, "state_dict": to_released(model.state_dict())}, tmp_path / "w.pth")
    assert from_pretrained(tmp_path / "w.pth").config == ModelConfig(NANO, 3, {}, tuple(classes), tuple(colors))


def test_a_new_head_takes_rows_from_a_saved_model_by_the_names_saved_with_it(folder: Path, model: Segmentor) -> None:
    other = create_model(NANO, 2, folder, classes=["tram", "sky"])
    assert torch.equal(other.decode_head.conv_seg.weight[1], model.decode_head.conv_seg.weight[1])


@pytest.mark.parametrize(
    ("options", "outputs"), [({}, 150), ({"num_classes": 19, "classes": "slice"}, 19)], ids=["as released", "sliced"]
)
def test_150_logits_are_scored_on_19_classes_kept_or_sliced(
    options: dict[str, Any], outputs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkpoint in which an untrained logit wins everywhere: kept, every pixel is missed; sliced, road is second and wins.
    name = "upernet_internimage_t_512x1024_160k_cityscapes"
    state = create_model(NANO).state_dict()
    state["decode_head.conv_seg.bias"][:] = torch.tensor([1e3, *[0.0] * 148, 2e3])
    torch.save(to_released(state), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    model = create_model(NANO, pretrained=name, **options).eval()
    assert model(IMAGE).shape[1] == outputs

    class Street:
        classes, ignore_index = TRAIN_CLASSES, 255

        def __len__(self) -> int:
            return 1

        def name(self, i: int) -> str:
            return str(i)

        def read(self, i: int) -> tuple[Any, Any]:
            return np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64), np.uint8)

    scored = evaluate_dataset(model, Street(), scale=(64, 32), progress=False)
    assert scored.missed.sum() == (32 * 64 if outputs == 150 else 0)
    assert scored.confusion.sum() == (0 if outputs == 150 else 32 * 64)


def test_what_the_file_lacks_begins_as_in_a_new_model(model: Segmentor, tmp_path: Path) -> None:
    tensors = {name: t for name, t in model.state_dict().items() if not name.startswith("auxiliary_head.")}
    write_weights(tmp_path / "w.pth", tensors)
    torch.manual_seed(5)
    new = create_model(NANO, 3).state_dict()
    torch.manual_seed(5)
    opened = from_pretrained(tmp_path / "w.pth").state_dict()
    assert all(torch.equal(opened[name], tensors.get(name, new[name])) for name in new)


def test_counts_that_the_file_lacks_begin_at_zero(model: Segmentor, tmp_path: Path) -> None:
    write_weights(tmp_path / "w.pth", {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")})
    opened = from_pretrained(tmp_path / "w.pth")
    assert {int(buffer) for name, buffer in opened.named_buffers() if name.endswith("num_batches_tracked")} == {0}
    assert torch.equal(opened(IMAGE), model(IMAGE))


def test_everything_in_a_model_is_in_its_state_dict() -> None:
    # A model is opened without drawing its first values; a buffer outside the state dict would be left without any.
    model = create_model(NANO, 3, dw_kernel_size=5, center_feature_scale=True, extra_post_norm_blocks=(0, 2))
    assert dict(model.named_buffers()).keys() | dict(model.named_parameters()).keys() == model.state_dict().keys()


def test_a_run_opens_with_what_its_checkpoints_are_about(tmp_path: Path, model: Segmentor) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "iter_000010"
    write_weights(checkpoint / "model.safetensors", model.state_dict())
    write_json(checkpoint.parent / "index.json", {"last": checkpoint.name, "best": None})
    about = {"recipe": {"model": NANO, "evaluation_scale": [64, 32]}, "num_classes": 3, "classes": list("abc")}
    write_json(checkpoint / "state.json", {"iteration": 10, "about": about | {"colors": [[0, 0, i] for i in range(3)]}})
    for place in (tmp_path / "run", checkpoint):
        opened = from_pretrained(place)
        assert torch.equal(opened(IMAGE), model(IMAGE))
        assert opened.config == ModelConfig(NANO, 3, {}, tuple("abc"), ((0, 0, 0), (0, 0, 1), (0, 0, 2)), (64, 32))


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("backbone.", r"a whole model of list_models\(\), got InternImage-nano .*; build one of upernet_internimage_nano"),
        ("decode_head.", r"a whole model of list_models\(\), got no InternImage"),
        (r"(?!decode_head\.bottleneck\.conv)", r"a whole upernet_internimage_nano, .* without decode_head\.bottleneck\.conv"),
    ],
    ids=["a backbone", "a head", "half a head"],
)
def test_a_part_of_a_model_is_refused_by_name(model: Segmentor, tmp_path: Path, kept: str, said: str) -> None:
    write_weights(tmp_path / "part.pth", {name: t for name, t in model.state_dict().items() if re.match(kept, name)})
    with pytest.raises(ValueError, match=rf"part\.pth must hold {said}"):
        from_pretrained(tmp_path / "part.pth")


@pytest.mark.parametrize("config", [{"architectures": ["InternImageModel"]}, ["no", "object"]], ids=["its own", "a list"])
def test_the_configuration_of_another_program_does_not_keep_a_model_from_opening(
    config: Any, model: Segmentor, tmp_path: Path
) -> None:
    write_weights(tmp_path / "model.safetensors", {f"model.{n}": t for n, t in to_released(model.state_dict()).items()})
    write_json(tmp_path / "config.json", config)
    assert torch.equal(from_pretrained(tmp_path)(IMAGE), model(IMAGE))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "upernet_internimage_q"}, "upernet_internimage_q"),
        ({"backbone": {"experts": 8}}, "version can build.*experts"),
    ],
    ids=["a model", "an option"],
)
def test_a_configuration_of_a_newer_version_is_refused(change: dict[str, Any], said: str, folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "model.safetensors", tmp_path)
    write_json(tmp_path / "config.json", read_json(folder / "config.json") | change)
    with pytest.raises(ValueError, match=said):
        from_pretrained(tmp_path)


def test_every_released_recipe_and_every_backbone_it_starts_from_is_listed() -> None:
    recipes = [get_recipe(name) for name in list_recipes() if name in RELEASED_FILES]
    assert len(recipes) == 13
    assert {recipe.name for recipe in recipes} | {recipe.starts_from for recipe in recipes} == set(RELEASED_FILES)
    assert {recipe.name: recipe.model for recipe in recipes} == {
        name: file.model for name, file in RELEASED_FILES.items() if file.model
    }


@pytest.mark.parametrize("name", RELEASED_FILES)
def test_a_released_file_has_a_place_a_hash_and_the_size_of_its_model(name: str) -> None:
    file = RELEASED_FILES[name]
    assert file.url == f"https://huggingface.co/OpenGVLab/InternImage/resolve/main/{name}.pth"
    assert re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert file.licence == "MIT"
    size = next(v.size for v in VARIANTS.values() if f"internimage_{v.size}_" in name)
    with torch.device("meta"):
        model = create_model(file.model or f"upernet_internimage_{size}")
    tensors = model.state_dict() if file.model else model.backbone.state_dict()
    megabytes = sum(t.numel() for t in tensors.values()) * (2 if file.model else 4) / 1e6  # float16, float32
    head = 0.0
    if file.model is None:  # a 1x1 convolution to 1.5 times the channels, and the classes of ImageNet-1k or -22k
        channels = model.backbone.out_channels[-1]
        head = 1.5 * channels * (channels + (21_841 if "22k" in name else 1000)) * 4 / 1e6
    assert file.megabytes == pytest.approx(megabytes + head, rel=0.01)


def test_the_trained_classes_are_those_of_cityscapes() -> None:
    assert {file.classes for file in RELEASED_FILES.values()} == {(), TRAIN_CLASSES}
