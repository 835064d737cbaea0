"""A recipe from folders to a score: what `run` leaves, what it refuses, and that its folder can be opened again."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data_helpers import pixels, values, write_folder, write_image, write_label
from vistalib.data import AugmentationSettings, class_pixels, prepare
from vistalib.evaluate import evaluate_dataset
from vistalib.files import read_json
from vistalib.models import LossSettings, balanced_weights, block
from vistalib.recipes import Machine, OwnData, Recipe, Roots, Runtime, Source, open_model, own_recipe, run

DATA = OwnData(Path("streets"), ("train", "val"), 5, 2, ("sky", "road", "car"), ((24, 40),) * 5)  # as `streets` has it
HERE = Runtime(num_workers=0)


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    root = write_folder(tmp_path_factory.mktemp("streets") / "own")
    for i in range(2):
        write_image(root / "images" / "val" / f"{i}.png", pixels(50 + i))
        write_label(root / "labels" / "val" / f"{i}.png", values(50 + i, range(4)))
    return Roots(folder=root)


def tiny(iterations: int = 2) -> Recipe:
    recipe = own_recipe(DATA, None, Machine("cpu", None))
    return dataclasses.replace(
        recipe,
        batch_size=2,
        evaluation_scale=(64, 64),
        augmentation=AugmentationSettings(scale=(64, 64), ratio_range=(0.5, 1.0), crop=(64, 64)),
        settings=dataclasses.replace(recipe.settings, iterations=iterations, warmup_iters=0, log_every=1, checkpoint_every=1),
    )


def test_a_run_leaves_a_score_over_the_classes_of_its_data(streets: Roots, tmp_path: Path) -> None:
    result = run(tiny(), streets, folder=tmp_path / "run", runtime=HERE)
    assert result.evaluation.classes == ("sky", "road", "car")
    assert read_json(tmp_path / "run" / "evaluation.json")["mean_iou"] == result.evaluation.mean_iou


@pytest.mark.parametrize("how", ["a cache", "colours on the device", "a cache in memory"])
def test_where_samples_come_from_changes_no_bit_of_a_run(how: str, streets: Roots, tmp_path: Path) -> None:
    plain = run(tiny(), streets, folder=tmp_path / "plain", runtime=HERE)
    prepare(streets.open(tiny().train), tmp_path / "cache", "raw")
    chosen: dict[str, Any] = {
        "a cache": {"cache": tmp_path / "cache"},
        "colours on the device": {"device_colors": True},
        "a cache in memory": {"cache": tmp_path / "cache", "in_memory": True, "device_colors": True},
    }[how]
    other = run(tiny(), streets, folder=tmp_path / "other", runtime=dataclasses.replace(HERE, **chosen))
    weights, same = plain.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_run_on_copies_that_differ_says_so(streets: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(streets.open(tiny().train), tmp_path / "cache", "jpeg")
    run(tiny(), streets, folder=tmp_path / "run", runtime=dataclasses.replace(HERE, cache=tmp_path / "cache"))
    assert "jpeg copies that differ from the images a little, and so will the results" in capsys.readouterr().out


def test_rare_classes_are_drawn_when_the_recipe_says_so(
    streets: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    recipes = {"plain": tiny(), "balanced": dataclasses.replace(tiny(), class_temperature=0.001)}
    plain, other = (run(recipe, streets, folder=tmp_path / name, runtime=HERE) for name, recipe in recipes.items())
    weights, others = plain.model.state_dict(), other.model.state_dict()
    assert not all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_temperature_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"class_temperature must be above 0, or None, got 0\.0; try 0\.01"):
        dataclasses.replace(tiny(), class_temperature=0.0)


def test_recomputed_blocks_train_to_the_same_weights(streets: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = run(tiny(3), streets, folder=tmp_path / "kept", runtime=HERE).model.state_dict()
    calls: list[bool] = []
    again = block.checkpoint
    monkeypatch.setattr(block, "checkpoint", lambda *a, **k: calls.append(True) or again(*a, **k))
    recipe = dataclasses.replace(tiny(3), recompute_blocks=True)
    recomputed = run(recipe, streets, folder=tmp_path / "again", runtime=HERE).model.state_dict()
    assert calls
    assert all(torch.equal(value, kept[name]) for name, value in recomputed.items())


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"loss": LossSettings(dice_weight=1.0)}], ids=["batch", "loss"])
def test_a_run_is_not_resumed_with_another_recipe(change: dict[str, Any], streets: Roots, tmp_path: Path) -> None:
    run(tiny(1), streets, folder=tmp_path / "run", runtime=HERE)
    with pytest.raises(ValueError, match=f"must be resumed with its own recipe: {next(iter(change))} was"):
        run(dataclasses.replace(tiny(2), **change), streets, folder=tmp_path / "run", runtime=HERE, resume=True)


def test_a_graph_of_recomputed_blocks_is_refused() -> None:
    settings = dataclasses.replace(tiny().settings, cuda_graphs=True)
    with pytest.raises(ValueError, match="cuda_graphs cannot record recompute_blocks"):
        dataclasses.replace(tiny(), settings=settings, recompute_blocks=True)


def test_an_opened_run_scores_what_the_run_scored(streets: Roots, tmp_path: Path) -> None:
    result = run(tiny(), streets, folder=tmp_path / "run", runtime=HERE)
    opened = open_model(tmp_path / "run")
    again = evaluate_dataset(opened.model, streets.open(Source("folder", "val")), scale=opened.scale, progress=False)
    assert np.array_equal(again.confusion, result.evaluation.confusion)


def test_an_averaged_run_is_scored_and_opened_with_the_average(streets: Roots, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny(3), settings=dataclasses.replace(tiny(3).settings, ema_decay=0.5))
    result = run(recipe, streets, folder=tmp_path / "run", runtime=HERE)
    plain = run(tiny(3), streets, folder=tmp_path / "plain", runtime=HERE)
    averaged, trained = result.model.state_dict(), plain.model.state_dict()
    assert not torch.equal(averaged["decode_head.conv_seg.weight"], trained["decode_head.conv_seg.weight"])
    opened = open_model(tmp_path / "run")
    assert all(torch.equal(value, averaged[name]) for name, value in opened.model.state_dict().items())
    again = evaluate_dataset(opened.model, streets.open(Source("folder", "val")), scale=opened.scale, progress=False)
    assert np.array_equal(again.confusion, result.evaluation.confusion)


def test_a_finished_run_can_be_resumed_and_is_only_evaluated(streets: Roots, tmp_path: Path) -> None:
    first = run(tiny(), streets, folder=tmp_path / "run", runtime=HERE)
    second = run(tiny(), streets, folder=tmp_path / "run", runtime=HERE, resume=True)
    assert np.array_equal(first.evaluation.confusion, second.evaluation.confusion)


def test_the_classifier_of_other_classes_is_left_and_the_report_says_so(streets: Roots, tmp_path: Path) -> None:
    first = run(tiny(), streets, folder=tmp_path / "run", runtime=HERE)
    other = dataclasses.replace(tiny(), num_classes=7)
    second = run(other, streets, folder=tmp_path / "other", weights=tmp_path / "run", runtime=HERE)
    assert first.load_report is None
    assert second.load_report is not None
    assert "decode_head.conv_seg.weight" in second.load_report.skipped


def test_a_checkpoint_of_another_model_is_refused_before_anything_is_written(streets: Roots, tmp_path: Path) -> None:
    run(tiny(), streets, folder=tmp_path / "run", runtime=HERE)
    other = dataclasses.replace(tiny(), model="upernet_internimage_micro")
    with pytest.raises(ValueError, match="upernet_internimage_nano"):
        run(other, streets, folder=tmp_path / "other", weights=tmp_path / "run", runtime=HERE)
    assert not (tmp_path / "other").exists()


def test_a_recipe_that_begins_with_others_weights_says_when_none_are_given(streets: Roots, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="begins with the weights of internimage_l_22k_192to384, and none were given"):
        run(dataclasses.replace(tiny(), starts_from="internimage_l_22k_192to384"), streets, folder=tmp_path, runtime=HERE)


def test_weights_of_another_recipe_are_named(streets: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tiny(), streets, folder=tmp_path / "run", runtime=HERE)
    second = dataclasses.replace(tiny(), starts_from="segformer_internimage_l_512x1024_80k_mapillary")
    run(second, streets, folder=tmp_path / "second", weights=tmp_path / "run", runtime=HERE)
    assert f"begins with {second.starts_from}, and {tmp_path / 'run'} was made by {tiny().name}" in capsys.readouterr().out


def test_a_dataset_that_was_not_given_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--folder DIR"):
        run(tiny(), Roots(), folder=tmp_path / "run")


def test_bare_weights_are_not_taken_for_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run"):
        open_model(tmp_path)


def test_balanced_weights_come_from_the_training_data_and_are_said(
    streets: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    recipe = dataclasses.replace(tiny(), loss=LossSettings(class_weights="balanced"))
    model = run(recipe, streets, folder=tmp_path / "run", runtime=HERE).model
    weights = balanced_weights(class_pixels(streets.open(recipe.train)))
    assert model.loss_settings.class_weights == weights
    assert (
        f"balanced class weights: sky {weights[0]:.2f}, road {weights[1]:.2f}, car {weights[2]:.2f}" in capsys.readouterr().out
    )


def test_weights_for_other_classes_than_those_of_the_data_are_refused(streets: Roots, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny(), loss=LossSettings(class_weights=(1.0, 2.0)))
    with pytest.raises(ValueError, match="each of the 3 classes of the data, got 2; their order is sky, road, car"):
        run(recipe, streets, folder=tmp_path / "run", runtime=HERE)
    assert not (tmp_path / "run").exists()
