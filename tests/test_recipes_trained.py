"""What a trained model is opened with: what its weights say, and what street scenes have in common where they say nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vistalib.data import TRAIN_CLASSES, TRAIN_COLORS
from vistalib.models import create_model, from_pretrained, save_pretrained
from vistalib.recipes import open_model


def weights(path: Path, num_classes: int) -> Path:
    """Weights alone, as a file that says nothing of its classes."""
    save_file(create_model("upernet_internimage_nano", num_classes=num_classes).state_dict(), path)
    return path


def test_nineteen_outputs_without_names_are_taken_for_those_of_cityscapes_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_model(weights(tmp_path / "w.safetensors", 19))
    assert opened.classes == TRAIN_CLASSES
    np.testing.assert_array_equal(opened.colors, TRAIN_COLORS)
    assert opened.scale == (2048, 1024)
    said = "w.safetensors does not say what its 19 outputs stand for: they are taken to be the 19 classes of Cityscapes; save_"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["upernet_internimage_t_512x1024_160k_cityscapes", "w_512x1024_80k_Mapillary"])
def test_a_file_that_is_named_as_the_released_ones_knows_their_classes_and_keeps_all_outputs(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_model(weights(tmp_path / f"{name}.safetensors", 150))
    assert (opened.classes, opened.model.num_classes) == (TRAIN_CLASSES, 150)
    np.testing.assert_array_equal(opened.colors, TRAIN_COLORS)
    said = capsys.readouterr().err
    assert "by its name, its first 19 of 150 outputs are taken to be the 19 classes of Cityscapes" in said
    assert "does not say" not in said


def test_a_file_of_ade20k_knows_its_classes_and_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_model(weights(tmp_path / "upernet_internimage_t_512_160k_ade20k.safetensors", 150))
    assert (len(opened.classes), opened.classes[:2], opened.classes[-1]) == (150, ("wall", "building"), "flag")
    assert opened.colors[:2].tolist() == [[120, 120, 120], [180, 120, 120]]
    assert "by its name, its 150 outputs are taken to be the 150 classes of ADE20K" in capsys.readouterr().err


@pytest.mark.parametrize("outputs", [7, 150, 171])
def test_classes_that_nobody_named_have_numbers_and_that_is_said_with_what_names_them(
    tmp_path: Path, outputs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_model(weights(tmp_path / "w.safetensors", outputs))
    assert opened.classes == tuple(f"class {c}" for c in range(outputs))
    assert outputs > 7 or len({tuple(color) for color in opened.colors.tolist()}) == 7
    said = capsys.readouterr().err
    assert f"does not say what its {outputs} outputs stand for: they get numbers for names; save_pretrained(" in said
    assert ("..._ade20k.pth" in said) is (outputs == 150)


def test_what_is_said_to_name_the_outputs_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, names = weights(tmp_path / "w_ade20k.safetensors", 150), [f"thing {c}" for c in range(150)]
    save_pretrained(from_pretrained(source), tmp_path / "named", classes=names)
    capsys.readouterr()
    opened = open_model(tmp_path / "named")
    assert opened.classes == tuple(names)
    assert opened.colors[0].tolist() != [120, 120, 120]  # of ADE20K's wall
    assert "taken to be" not in capsys.readouterr().err


def test_classes_that_are_given_count_where_the_weights_say_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = weights(tmp_path / "w.safetensors", 3)
    assert open_model(source, classes=["road", "sky"]).classes == ("road", "sky")
    assert "does not say" not in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"at most the 3 outputs of .*w\.safetensors, got 4; give others"):
        open_model(source, classes=list("abcd"))
    save_pretrained(from_pretrained(source), tmp_path / "saved", classes=list("abc"))
    assert open_model(tmp_path / "saved", classes=["road", "sky"]).classes == ("a", "b", "c")


def test_the_weights_of_a_saved_model_are_not_parted_from_what_lies_beside_them(tmp_path: Path) -> None:
    save_pretrained(create_model("upernet_internimage_nano", num_classes=19), tmp_path, classes=[f"c{c}" for c in range(19)])
    assert open_model(tmp_path / "model.safetensors").classes == tuple(f"c{c}" for c in range(19))


def test_more_outputs_than_a_label_map_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at most 255 outputs, .* got 256 in .*classes=\"slice\""):
        open_model(weights(tmp_path / "w.safetensors", 256))


def test_what_a_saved_model_says_counts(tmp_path: Path) -> None:
    model = create_model("upernet_internimage_nano", num_classes=2)
    save_pretrained(model, tmp_path, classes=("road", "rest"), colors=((1, 2, 3), (4, 5, 6)), scale=(256, 128))
    opened = open_model(tmp_path)
    assert (opened.classes, opened.colors.tolist(), opened.scale) == (("road", "rest"), [[1, 2, 3], [4, 5, 6]], (256, 128))


def test_an_opened_model_is_ready_to_predict_and_computes_the_same(tmp_path: Path) -> None:
    model = create_model("upernet_internimage_nano", num_classes=3).eval()
    image = torch.randn(1, 3, 64, 64)
    opened = open_model(save_pretrained(model, tmp_path)).model
    assert not opened.training
    assert torch.equal(opened(image), model(image))


def test_a_device_that_torch_cannot_use_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="cpu, cuda"):
        open_model("nowhere", device="gpu")
