"""Published numbers: the table, and a checkpoint of our own measured against a number made up from it."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from vistalib.data import Cityscapes, synthesize
from vistalib.evaluate import MULTI_SCALES, evaluate_dataset
from vistalib.files import sha256
from vistalib.models import RELEASED_FILES, create_model, to_released
from vistalib.recipes import Cell, Reproduction, list_cells, open_model, reproduce
from vistalib.recipes.reproduce import find_cell

SCALE = (128, 64)
NANO = "upernet_internimage_nano"


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Cityscapes:
    root = tmp_path_factory.mktemp("streets")
    synthesize(root, layout="cityscapes", num_images={"train": 1, "val": 2}, seed=4, size=(128, 256), workers=1)
    return Cityscapes(root, "val")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as the released ones lie there: 150 outputs, float16, under the released names, in a .pth."""
    torch.manual_seed(0)
    model = create_model(NANO)
    for parameter in model.decode_head.conv_seg.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("weights") / "nano.pth"
    torch.save({"state_dict": {name: value.half() for name, value in to_released(model.state_dict()).items()}}, path)
    return path


@pytest.fixture(scope="module")
def found(validation: Cityscapes, checkpoint: Path) -> Reproduction:
    return reproduce(Cell("nano", NANO, False, 50.0), validation, weights=checkpoint, scale=SCALE)


def against(found: Reproduction, published: float) -> Reproduction:
    return dataclasses.replace(found, cell=dataclasses.replace(found.cell, published=published))


def test_every_released_segmentor_of_cityscapes_has_two_numbers() -> None:
    names = [name for name, file in RELEASED_FILES.items() if file.model and not name.endswith("_80k_mapillary")]
    assert sorted((cell.name, cell.multi_scale) for cell in list_cells()) == sorted(
        (name, multi) for name in names for multi in (False, True)
    )


def test_multi_scale_is_published_as_better_everywhere() -> None:
    assert all(file.mean_iou[0] < file.mean_iou[1] for file in RELEASED_FILES.values() if file.mean_iou)


def test_a_cell_is_found_by_name_and_mode() -> None:
    cell = find_cell("upernet_internimage_t_512x1024_160k_cityscapes", multi_scale=True)
    assert (cell.published, cell.model, cell.label[-3:]) == (83.40, "upernet_internimage_t", "_ms")


def test_a_name_without_a_number_is_refused_with_near_ones() -> None:
    with pytest.raises(ValueError, match="did you mean upernet_internimage_l_512x1024_160k_mapillary2cityscapes"):
        find_cell("upernet_internimage_l_512x1024_80k_mapillary", multi_scale=False)


@pytest.mark.parametrize(
    "multi_scale", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["single scale", "multi-scale + flip"]
)
def test_the_score_is_that_of_the_evaluation(validation: Cityscapes, checkpoint: Path, multi_scale: bool) -> None:
    found = reproduce(Cell("nano", NANO, multi_scale, 50.0), validation, weights=checkpoint, scale=SCALE)
    scales = MULTI_SCALES if multi_scale else (1.0,)
    expected = evaluate_dataset(
        open_model(checkpoint).model, validation, scale=SCALE, scales=scales, flip=multi_scale, progress=False
    )
    assert (found.found, found.evaluation.mode) == (100 * expected.mean_iou, expected.mode)
    assert 0 < found.found < 50


@pytest.mark.parametrize(
    ("off", "within"), [(0.0, True), (0.05, True), (-0.05, True), (0.06, False), (-0.06, False)], ids=lambda value: str(value)
)
def test_a_number_is_met_within_the_tolerance_of_its_printed_digits(found: Reproduction, off: float, within: bool) -> None:
    assert against(found, round(round(found.found, 2) + off, 2)).within is within


def test_what_is_no_test_of_the_number_is_said(found: Reproduction) -> None:
    said = found.sentence()
    for departure in ("not the released file", "has 500 images, and 2 were scored", "fitted into 64x128, not 1024x2048"):
        assert departure in said
    assert "reproduced" not in said


@pytest.mark.parametrize(("off", "said"), [(0.0, "reproduced, within 0.05"), (2.0, "not reproduced, -2.00 points off")])
def test_a_whole_measurement_is_judged(found: Reproduction, monkeypatch: pytest.MonkeyPatch, off: float, said: str) -> None:
    released = RELEASED_FILES["upernet_internimage_t_512x1024_160k_cityscapes"]
    monkeypatch.setitem(RELEASED_FILES, "nano", dataclasses.replace(released, name="nano", sha256=found.digest))
    evaluation = dataclasses.replace(found.evaluation, images=500)
    whole = dataclasses.replace(found, evaluation=evaluation, scale=(2048, 1024))
    assert said in against(whole, found.found + off).sentence()


def test_the_record_says_where_the_number_comes_from(found: Reproduction, checkpoint: Path) -> None:
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record["checkpoint"] == {"source": "nano.pth", "sha256": sha256(checkpoint)}
    assert record["facts"]["versions"]["torch"] == torch.__version__
    assert record["difference"] == pytest.approx(record["found"] - 50, abs=1e-4)
    assert record["evaluation"]["mean_iou"] == found.evaluation.mean_iou


def test_weights_of_another_model_are_refused(validation: Cityscapes, checkpoint: Path) -> None:
    cell = find_cell("upernet_internimage_t_512x1024_160k_cityscapes", multi_scale=False)
    with pytest.raises(ValueError, match="weights of upernet_internimage_t, got some of upernet_internimage_nano"):
        reproduce(cell, validation, weights=checkpoint)
