import sys

import numpy as np
import pytest
from PIL import Image

from vistalib.data import CITYSCAPES, TRAIN_CLASSES
from vistalib.evaluate import ConfusionMatrix, Evaluation, score_with_cityscapes_scripts, scripts_check
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
    # worst error measured: 0; the means may be summed in another order
    assert theirs["mean_iou"] == pytest.approx(ours.mean_iou, rel=1e-14)


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
