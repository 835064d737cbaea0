"""What a run starts from, by whatever name, and whose rows a new head takes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vistalib.data.labels import TRAIN_CLASSES
from vistalib.files import sha256, write_json
from vistalib.models import Segmentor, create_model, save_pretrained, to_released
from vistalib.models.weight_files import write_weights
from vistalib.recipes.start import Start, find_start, load_start

NANO = "upernet_internimage_nano"


def nano(num_classes: int = 3, seed: int = 0) -> Segmentor:
    torch.manual_seed(seed)
    return create_model(NANO, num_classes)


def a_run(root: Path, model: Segmentor, about: dict[str, Any]) -> Path:
    folder = root / "run" / "checkpoints" / "iter_000010"
    write_weights(folder / "model.safetensors", model.state_dict())
    write_weights(folder / "optimizer.safetensors", {})
    write_json(folder / "state.json", {"iteration": 10, "about": about})
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    write_json(folder / "manifest.json", {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files})
    return root / "run"


@pytest.mark.parametrize("kind", ["run", "checkpoint", "saved model", "pth", "safetensors"])
def test_a_run_starts_from_whatever_holds_weights(kind: str, tmp_path: Path) -> None:
    source, model = nano(seed=1), nano()
    place = tmp_path / "weights"
    match kind:
        case "run":
            place = a_run(tmp_path, source, {})
        case "checkpoint":
            place = a_run(tmp_path, source, {}) / "checkpoints" / "iter_000010"
        case "saved model":
            save_pretrained(source, place)
        case _:
            place = tmp_path / f"weights.{kind}"
            write_weights(place, to_released(source.state_dict()))
    load_start(model, find_start(str(place)), ())
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), source.parameters(), strict=True))


def test_a_head_for_other_classes_takes_the_rows_of_those_it_shares(tmp_path: Path) -> None:
    source, model, fresh = nano(3, seed=1), nano(4), nano(4)
    start = find_start(a_run(tmp_path, source, {"classes": ["sky", "road", "car"], "recipe": {"name": "mine"}}))
    report = load_start(model, start, ("egg", "car", "road", "ham"))
    rows, theirs, new = (m.decode_head.conv_seg.weight for m in (model, source, fresh))
    assert torch.equal(rows, torch.stack([new[0], theirs[2], theirs[1], new[3]]))
    assert start.made_by == "mine"
    assert "copied the rows of 2 classes by name; new: egg, ham" in report.notes


def test_the_classes_of_a_saved_model_come_with_it(tmp_path: Path) -> None:
    start = find_start(save_pretrained(nano(3), tmp_path, classes=["sky", "road", "car"]))
    assert start.classes == ("sky", "road", "car")


def test_the_classes_of_a_released_checkpoint_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "upernet_internimage_t_512x1024_160k_cityscapes"
    source, model = nano(150, seed=1), nano(19)
    torch.save(to_released(source.state_dict()), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    start = find_start(name)
    load_start(model, start, TRAIN_CLASSES)
    assert torch.equal(model.decode_head.conv_seg.weight, source.decode_head.conv_seg.weight[:19])
    assert start.made_by == name


def test_a_start_of_ade20k_gives_the_rows_of_the_classes_that_streets_share_with_it(tmp_path: Path) -> None:
    source, model = nano(150, seed=1), nano(2)
    torch.save(to_released(source.state_dict()), tmp_path / "upernet_internimage_t_512_160k_ade20k.pth")
    report = load_start(model, find_start(tmp_path / "upernet_internimage_t_512_160k_ade20k.pth"), ("sidewalk", "road"))
    assert torch.equal(model.decode_head.conv_seg.weight, source.decode_head.conv_seg.weight[[11, 6]])
    assert "by its name, its 150 outputs are taken to be the 150 classes of ADE20K" in report.notes


def test_a_start_whose_file_names_its_classes_gives_their_rows(tmp_path: Path) -> None:
    source, model = nano(3, seed=1), nano(2)
    torch.save({"meta": {"CLASSES": ["sky", "road", "car"]}, "state_dict": source.state_dict()}, tmp_path / "w.pth")
    load_start(model, find_start(tmp_path / "w.pth"), ("car", "sky"))
    assert torch.equal(model.decode_head.conv_seg.weight, source.decode_head.conv_seg.weight[[2, 0]])


@pytest.mark.parametrize("outputs", [19, 150], ids=["sliced", "as released"])
def test_a_head_with_more_outputs_than_classes_is_taken_whole_or_cut(outputs: int) -> None:
    source, model = nano(150, seed=1), nano(outputs)
    load_start(model, Start(source.state_dict(), None, TRAIN_CLASSES), TRAIN_CLASSES)
    assert torch.equal(model.decode_head.conv_seg.weight, source.decode_head.conv_seg.weight[:outputs])
