import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vistalib.data import CITYSCAPES, TRAIN_CLASSES, Cityscapes, synthesize
from vistalib.evaluate import (
    ConfusionMatrix,
    Evaluation,
    evaluate_dataset,
    read_evaluation,
    score_with_cityscapes_scripts,
    scripts_check,
)
from vistalib.evaluate.export import write_label_ids

SIZE = (37, 53)  # the scripts take any


@pytest.fixture
def scripts():
    return pytest.importorskip("cityscapesscripts")


def write_streets(root, *, classes=19, images=3, instances=True):
    """Random ground truth of all 34 ids and random predictions of `classes` training ids; returns our evaluation of them."""
    rng = np.random.default_rng(0)
    truth, predictions = root / "gtFine" / "val" / "aachen", root / "predictions"
    truth.mkdir(parents=True)
    predictions.mkdir()
    counts = ConfusionMatrix(19)
    for i in range(images):
        ids = rng.integers(0, 34, SIZE, np.uint8)
        right = rng.random(SIZE) < 0.6
        target = CITYSCAPES.id_to_train_id()[ids]
        prediction = np.where(right & (target != 255), target, rng.integers(0, classes, SIZE)).astype(np.uint8)
        Image.fromarray(ids).save(truth / f"aachen_{i:06d}_000019_gtFine_labelIds.png")
        if instances:
            things = np.where(ids >= 24, ids.astype(np.uint16) * 1000 + 1, ids).astype(np.uint16)
            Image.fromarray(things).save(truth / f"aachen_{i:06d}_000019_gtFine_instanceIds.png")
        write_label_ids(predictions, f"aachen_{i:06d}_000019_leftImg8bit", prediction)
        counts.update(prediction, target)
    matrix, missed = counts.matrix.numpy(), counts.missed.numpy()
    return Evaluation(TRAIN_CLASSES, matrix, missed, images=images, seconds=0.0, mode="single scale")


@pytest.mark.parametrize("classes", [19, 150], ids=["19 classes", "a head of 150"])
def test_the_scripts_give_the_same_iou_for_every_class(scripts, tmp_path, classes):
    ours = write_streets(tmp_path, classes=classes)
    theirs = score_with_cityscapes_scripts(tmp_path / "predictions", tmp_path / "gtFine")
    assert theirs["iou"] == ours.to_json()["iou"]


def test_the_scripts_give_the_same_mean_iou(scripts, tmp_path):
    ours = write_streets(tmp_path)
    theirs = score_with_cityscapes_scripts(tmp_path / "predictions", tmp_path / "gtFine")
    assert theirs["mean_iou"] == ours.mean_iou


def test_the_check_says_that_both_agree(scripts, tmp_path):
    ours = write_streets(tmp_path)
    assert scripts_check(ours, tmp_path / "predictions", tmp_path / "gtFine")["agree"]


def test_the_check_notices_one_pixel(scripts, tmp_path):
    ours = write_streets(tmp_path)
    ours.confusion[4, 5] += 1
    assert not scripts_check(ours, tmp_path / "predictions", tmp_path / "gtFine")["agree"]


def test_instance_scores_are_there_where_the_instance_maps_are(scripts, tmp_path):
    write_streets(tmp_path)
    assert 0 < score_with_cityscapes_scripts(tmp_path / "predictions", tmp_path / "gtFine")["mean_instance_iou"] < 1


def test_without_instance_maps_the_classes_are_still_scored(scripts, tmp_path):
    ours = write_streets(tmp_path, instances=False)
    theirs = score_with_cityscapes_scripts(tmp_path / "predictions", tmp_path / "gtFine")
    assert (theirs["iou"], theirs["instance_iou"]) == (ours.to_json()["iou"], None)


class Guess(nn.Module):
    """Guesses coarsely at random, with a leaning to a few classes; `outputs` may be more than 19."""

    def __init__(self, outputs=19):
        super().__init__()
        self.outputs = outputs

    def forward(self, image):
        seed = int(1000 * image.abs().mean())
        drawn = torch.randn(len(image), self.outputs, 9, 17, generator=torch.Generator().manual_seed(seed))
        drawn[:, [0, 2, 11, 13, 18]] += 1.5
        return drawn


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    synthesize(root, layout="cityscapes", num_images={"train": 1, "val": 2}, seed=3, size=(128, 256), workers=1)
    return root


@pytest.fixture(scope="module", params=[19, 150], ids=["19 classes", "a head of 150"])
def both(request, streets, tmp_path_factory):
    """Our scores of a guess, and theirs, on streets with instances."""
    pytest.importorskip("cityscapesscripts")
    out = tmp_path_factory.mktemp("guess") / "predictions"
    ours = evaluate_dataset(Guess(request.param), Cityscapes(streets, "val"), scale=(128, 64), export=out, progress=False)
    return ours.to_json(), score_with_cityscapes_scripts(out, streets / "gtFine" / "val"), ours, out


@pytest.mark.parametrize("score", ["iou", "category_iou", "instance_iou", "instance_category_iou"])
def test_each_kind_of_score_is_theirs_to_the_last_digit(both, score):
    ours, theirs, *_ = both
    assert len({value for value in ours[score].values() if value}) > 1
    assert (ours[score], ours[f"mean_{score}"]) == (theirs[score], theirs[f"mean_{score}"])


def test_the_check_notices_one_pixel_of_an_instance(both, streets):
    *_, evaluation, out = both
    table = evaluation.instances.copy()
    table[np.argmax(table[:, 3]), 3] -= 1
    assert scripts_check(evaluation, out, streets / "gtFine" / "val")["agree"]
    assert not scripts_check(replace(evaluation, instances=table), out, streets / "gtFine" / "val")["agree"]


def test_scores_by_instance_come_back_from_files(both, tmp_path):
    ours, _, evaluation, _ = both
    evaluation.save(tmp_path / "scores.json")
    assert read_evaluation(tmp_path / "scores.json").to_json() == ours


def test_where_an_instance_map_is_missing_no_score_by_instance_is_given(streets, tmp_path):
    root = shutil.copytree(streets, tmp_path / "streets")
    next((root / "gtFine" / "val").rglob("*_instanceIds.png")).unlink()
    found = evaluate_dataset(Guess(), Cityscapes(root, "val"), scale=(128, 64), progress=False)
    assert (found.instance_iou, "mean_instance_iou" in found.to_json()) == ({}, False)


def test_an_instance_map_of_another_size_is_named(streets, tmp_path):
    root = shutil.copytree(streets, tmp_path / "streets")
    path = next((root / "gtFine" / "val").rglob("*_instanceIds.png"))
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(path)
    with pytest.raises(ValueError, match=f"instance map of {path.name.removesuffix('_gtFine_instanceIds.png')}"):
        evaluate_dataset(Guess(), Cityscapes(root, "val"), scale=(128, 64), progress=False)


def test_an_instance_map_that_is_no_map_is_named(streets, tmp_path):
    root = shutil.copytree(streets, tmp_path / "streets")
    path = next((root / "gtFine" / "val").rglob("*_instanceIds.png"))
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match="must be a 16-bit grey PNG of instance ids"):
        evaluate_dataset(Guess(), Cityscapes(root, "val"), scale=(128, 64), progress=False)


def test_numpy_is_left_as_it_was(scripts, tmp_path):
    write_streets(tmp_path)
    before = vars(np).get("in1d")
    score_with_cityscapes_scripts(tmp_path / "predictions", tmp_path / "gtFine")
    assert vars(np).get("in1d") is before


def test_a_folder_without_ground_truth_is_refused(scripts, tmp_path):
    with pytest.raises(ValueError, match="try gtFine/val"):
        score_with_cityscapes_scripts(tmp_path, tmp_path)


def test_a_missing_prediction_is_said_in_the_words_of_the_scripts(scripts, tmp_path):
    write_streets(tmp_path)
    (tmp_path / "predictions" / "aachen_000001_000019_leftImg8bit.png").unlink()
    with pytest.raises(ValueError, match=r"Found no prediction for ground truth .*aachen_000001"):
        score_with_cityscapes_scripts(tmp_path / "predictions", tmp_path / "gtFine")


def test_training_ids_in_place_of_label_ids_are_refused(scripts, tmp_path):
    write_streets(tmp_path)
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(tmp_path / "predictions" / "aachen_000001_000019_leftImg8bit.png")
    with pytest.raises(ValueError, match=r"predictions must be label ids 0\.\.33"):
        score_with_cityscapes_scripts(tmp_path / "predictions", tmp_path / "gtFine")


def test_without_the_package_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cityscapesscripts", None)
    monkeypatch.setitem(sys.modules, "cityscapesscripts.evaluation", None)
    with pytest.raises(ModuleNotFoundError, match="pip install cityscapesscripts"):
        score_with_cityscapes_scripts(tmp_path, tmp_path)
