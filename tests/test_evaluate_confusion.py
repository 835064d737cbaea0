from pathlib import Path

import numpy as np
import pytest
import torch

from vistalib.evaluate import ConfusionMatrix

RELEASED = np.load(Path(__file__).parent / "data" / "evaluate_released.npz")
TARGET = [[0, 0, 1, 255], [1, 1, 0, 255]]
PREDICTION = [[0, 1, 1, 0], [1, 0, 0, 2]]


def counted(prediction, target, num_classes=3):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(np.array(prediction), np.array(target))
    return matrix


def random_maps(num_classes, shape=(40, 60), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_classes + 4, shape), np.where(rng.random(shape) < 0.1, 255, rng.integers(0, num_classes, shape))


def test_rows_are_targets_and_columns_predictions():
    assert counted(PREDICTION, TARGET).matrix.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]


def test_iou_is_intersection_over_union():
    assert counted(PREDICTION, TARGET).iou().tolist() == pytest.approx([2 / 4, 2 / 4, np.nan], nan_ok=True)


def test_a_class_absent_from_target_and_prediction_is_left_out_of_the_mean():
    assert counted(PREDICTION, TARGET).mean_iou() == 0.5


def test_a_class_that_is_only_predicted_has_iou_zero_and_counts_in_the_mean():
    matrix = counted([0, 0, 0, 2], [0, 0, 0, 0])
    assert matrix.mean_iou() == pytest.approx((3 / 4 + 0) / 2)


def test_a_class_that_is_only_predicted_has_no_accuracy():
    assert counted([0, 0, 0, 2], [0, 0, 0, 0]).accuracy().tolist() == pytest.approx([3 / 4, np.nan, np.nan], nan_ok=True)


def test_pixel_accuracy_is_over_all_counted_pixels():
    assert counted(PREDICTION, TARGET).pixel_accuracy() == pytest.approx(4 / 6)


def test_mean_accuracy_weighs_classes_alike():
    assert counted([0, 0, 0, 0, 1], [0, 0, 0, 1, 1]).mean_accuracy() == pytest.approx((1 + 1 / 2) / 2)


def test_ignored_pixels_count_nowhere():
    padded = np.full((6, 9), 255)
    padded[:2, :4] = TARGET
    prediction = np.random.default_rng(0).integers(0, 3, (6, 9))
    prediction[:2, :4] = PREDICTION
    assert counted(prediction, padded).matrix.tolist() == counted(PREDICTION, TARGET).matrix.tolist()


def test_a_prediction_outside_the_table_is_a_miss_of_its_target_alone():
    matrix = counted([0, 0, 149, 1, 255], [0, 0, 0, 1, 1])
    assert matrix.iou().tolist() == pytest.approx([2 / 3, 1 / 2, np.nan], nan_ok=True)
    assert matrix.missed.tolist() == [1, 1, 0]


def test_nothing_counted_scores_nan():
    matrix = counted([0, 1], [255, 255])
    assert np.isnan([matrix.mean_iou(), matrix.pixel_accuracy(), matrix.mean_accuracy()]).all()


def test_the_counts_are_those_of_a_plain_loop():
    prediction, target = random_maps(5)
    expected = np.zeros((5, 5), np.int64)
    for t, p in zip(target.flat, prediction.flat):
        if t != 255 and p < 5:
            expected[t, p] += 1
    assert counted(prediction, target, 5).matrix.tolist() == expected.tolist()


def test_map_by_map_equals_all_maps_at_once():
    prediction, target = random_maps(5, (7, 8, 9))
    one_by_one = ConfusionMatrix(5)
    for p, t in zip(prediction, target):
        one_by_one.update(torch.from_numpy(p), t.astype(np.uint8))
    assert torch.equal(one_by_one.matrix, counted(prediction, target, 5).matrix)


@pytest.mark.parametrize("score", ["iou", "accuracy", "pixel_accuracy"])
def test_scores_are_the_released_ones(score):
    matrix = counted(RELEASED["iou_prediction"], RELEASED["iou_target"], 19)
    released = RELEASED[{"iou": "iou_iou", "accuracy": "iou_acc", "pixel_accuracy": "iou_aacc"}[score]]
    # worst error measured: 0 for all three
    np.testing.assert_allclose(np.atleast_1d(getattr(matrix, score)()), np.atleast_1d(released), rtol=0, atol=1e-12)


def test_counts_stay_exact_where_float32_does_not():
    matrix = ConfusionMatrix(1)
    plane = torch.zeros(2**24 + 1, dtype=torch.uint8)
    matrix.update(plane, plane)
    assert matrix.matrix.item() == 2**24 + 1


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([0, 1], [0, 1, 2], "same shape"),
        ([0, 1], [0, 3], r"targets must be 0\.\.2 or ignore_index=255, got \[3\]; map the labels"),
        ([0, 1], [0, -1], "targets must be"),
        ([0, -1], [0, 1], "must not be negative"),
        ([0.0, 1.0], [0, 1], "prediction must hold integers"),
        ([0, 1], [False, True], "target must hold integers"),
    ],
    ids=["shapes", "target above", "target below", "negative prediction", "probabilities", "booleans"],
)
def test_maps_that_cannot_be_counted_are_refused(prediction, target, message):
    with pytest.raises(ValueError, match=message):
        counted(prediction, target)


@pytest.mark.parametrize(("num_classes", "ignore_index"), [(0, 255), (19, 3)], ids=["no class", "ignored class in the table"])
def test_a_table_without_sense_is_refused(num_classes, ignore_index):
    with pytest.raises(ValueError, match="keep ignore_index=255"):
        ConfusionMatrix(num_classes, ignore_index)


def test_all_reduce_changes_nothing_in_a_single_process():
    matrix = counted(PREDICTION, TARGET)
    before = matrix.matrix.tolist()
    matrix.all_reduce()
    assert matrix.matrix.tolist() == before


def _share(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    prediction, target = random_maps(5, (2, 40, 60))
    matrix = counted(prediction[rank], target[rank], 5)
    matrix.all_reduce()
    np.save(f"{folder}/{rank}.npy", np.column_stack([matrix.matrix, matrix.missed]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_add_up_to_the_whole(tmp_path):
    torch.multiprocessing.spawn(_share, (str(tmp_path),), nprocs=2)
    whole = counted(*random_maps(5, (2, 40, 60)), 5)
    for rank in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"{rank}.npy"), np.column_stack([whole.matrix, whole.missed]))
