"""What a trained model is opened with: what its weights say, and what street scenes have in common where they say nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vistalib.data import TRAIN_CLASSES, TRAIN_COLORS
from vistalib.models import create_model, save_pretrained
from vistalib.recipes import open_model


def weights(path: Path, num_classes: int) -> Path:
    """Weights alone, as a file that says nothing of its classes."""
    save_file(create_model("upernet_internimage_nano", num_classes=num_classes).state_dict(), path)
    return path


@pytest.mark.parametrize("outputs", [19, 150], ids=["trained", "released"])
def test_bare_weights_with_the_outputs_of_the_released_models_know_the_classes_of_cityscapes(
    tmp_path: Path, outputs: int
) -> None:
    opened = open_model(weights(tmp_path / "w.safetensors", outputs))
    assert opened.classes == TRAIN_CLASSES
    np.testing.assert_array_equal(opened.colors, TRAIN_COLORS)
    assert opened.scale == (2048, 1024)


def test_all_outputs_of_a_released_model_are_kept(tmp_path: Path) -> None:
    assert open_model(weights(tmp_path / "w.safetensors", 150)).model.num_classes == 150


def test_classes_that_nobody_named_have_numbers_and_colors_of_their_own(tmp_path: Path) -> None:
    opened = open_model(weights(tmp_path / "w.safetensors", 7))
    assert opened.classes == tuple(f"class {c}" for c in range(7))
    assert len({tuple(color) for color in opened.colors.tolist()}) == 7


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
