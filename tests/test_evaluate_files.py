"""Matrices of single images: what is kept of them, and that scores and matrices come back from files as they were."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vistalib.evaluate import ConfusionMatrix, Evaluation, PerImage, read_evaluation
from vistalib.evaluate.per_image import cells_of

CLASSES = ("road", "car", "sky")


def counted(seed: int, *, num_classes: int = 3) -> ConfusionMatrix:
    """An image with few classes, some pixels ignored and some taken for a class outside the table."""
    rng = np.random.default_rng(seed)
    counts = ConfusionMatrix(num_classes)
    target = rng.choice([0, seed % num_classes, 255], (20, 30))
    counts.update(np.where(rng.random((20, 30)) < 0.7, target % 256, rng.integers(0, num_classes + 1, (20, 30))), target)
    return counts


def scored(**changes: Any) -> Evaluation:
    images = [counted(seed) for seed in range(4)]
    per_image = PerImage.of([cells_of(image) for image in images], [f"street_{i}" for i in range(4)], 3)
    total = per_image.total()
    values = {"classes": CLASSES, "images": 4, "seconds": 1.5, "mode": "single scale", "per_image": per_image}
    return Evaluation(**(values | {"confusion": total[:, :-1], "missed": total[:, -1]} | changes))


def test_each_image_keeps_its_own_matrix() -> None:
    for i in range(4):
        counts = counted(i)
        np.testing.assert_array_equal(
            scored().per_image.matrix(i), np.column_stack([counts.matrix.numpy(), counts.missed.numpy()])
        )


def test_an_image_without_labels_has_a_matrix_of_zeros() -> None:
    empty, full = ConfusionMatrix(3), counted(1)
    kept = PerImage.of([cells_of(image) for image in (empty, full, empty)], ["a", "b", "c"], 3)
    assert [int(kept.matrix(i).sum()) for i in range(3)] == [0, int(full.matrix.sum() + full.missed.sum()), 0]


@pytest.mark.parametrize("which", ["hits", "targets", "predictions"])
def test_pixels_by_image_and_class_are_those_of_the_matrices(which: str) -> None:
    of = {
        "hits": lambda whole: whole[:, :-1].diagonal(),
        "targets": lambda whole: whole.sum(1),
        "predictions": lambda whole: whole[:, :-1].sum(0),
    }[which]
    kept = scored().per_image
    np.testing.assert_array_equal(getattr(kept, which)(), [of(kept.matrix(i)) for i in range(4)])


def test_images_in_another_order_keep_their_matrices() -> None:
    kept = scored().per_image
    other = kept.ordered(np.array([2, 0, 3, 1]))
    assert other.names == ("street_2", "street_0", "street_3", "street_1")
    np.testing.assert_array_equal(other.matrix(3), kept.matrix(1))


def test_124_classes_of_an_image_take_no_more_than_the_cells_that_are_used() -> None:
    cell, count = cells_of(counted(3, num_classes=124))
    assert cell.nbytes + count.nbytes < 0.05 * 8 * 124 * 124


def test_an_evaluation_comes_back_from_its_files(tmp_path: Path) -> None:
    scored().save(tmp_path / "scores.json")
    found = read_evaluation(tmp_path / "scores.json")
    assert (found.to_json(), found.per_image.names) == (scored().to_json(), scored().per_image.names)
    np.testing.assert_array_equal(found.per_image.matrix(2), scored().per_image.matrix(2))


def test_a_run_is_read_by_its_folder(tmp_path: Path) -> None:
    scored().save(tmp_path / "evaluation.json")
    assert read_evaluation(tmp_path).per_image is not None


def test_scores_alone_can_be_read_without_their_images(tmp_path: Path) -> None:
    scored(per_image=None).save(tmp_path / "scores.json")
    assert (sorted(path.name for path in tmp_path.iterdir()), read_evaluation(tmp_path / "scores.json").per_image) == (
        ["scores.json"],
        None,
    )


def test_images_of_another_evaluation_are_noticed(tmp_path: Path) -> None:
    scored().save(tmp_path / "scores.json")
    written = json.loads((tmp_path / "scores.json").read_text())
    written["confusion"][0][1] += 1
    (tmp_path / "scores.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"scores\.npz must hold the images of .*scores\.json"):
        read_evaluation(tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("scores.json", "{}", "must hold an evaluation"),
        ("scores.json", "[1]", "must hold an evaluation"),
        ("scores.npz", "no archive", r"scores\.npz must be a readable"),
    ],
    ids=["without scores", "a list", "damaged matrices"],
)
def test_files_that_are_no_evaluation_are_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    scored().save(tmp_path / "scores.json")
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        read_evaluation(tmp_path / "scores.json")


def test_scores_are_not_written_over_their_matrices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as \.json"):
        scored().save(tmp_path / "scores.npz")
