"""The whole story at the size of a stamp: streets, four runs, scores, the outside check, the report."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vistalib.files import read_json
from vistalib.recipes.demo import DemoSettings, demo_stages, run_demo
from vistalib.viz import write_report

SETTINGS = DemoSettings(vistas=(3, 1), cityscapes=(2, 2), iterations=(2, 2), enlarge=2)


def test_recipes_of_another_size_are_named_by_it() -> None:
    stages = demo_stages(DemoSettings(iterations=(1800, 600), enlarge=2, seed=5))
    pretrained = stages[0].recipe
    assert pretrained.name == stages[1].recipe.starts_from == "upernet_internimage_nano_128x256_1800_mapillary"
    assert [stage.recipe.settings.iterations for stage in stages] == [1800, 600, 600, 2400]
    shapes = {(stage.recipe.augmentation.crop, stage.recipe.evaluation_scale, stage.recipe.settings.seed) for stage in stages}
    assert shapes == {((128, 256), (512, 256), 5)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder, SETTINGS)


@pytest.mark.slow
def test_the_record_has_four_runs_each_scored_on_the_same_streets(demo: tuple[Path, dict[str, Any]]) -> None:
    _, record = demo
    assert [run["name"] for run in record["runs"]] == ["pretrain", "finetune", "scratch", "scratch_total"]
    assert {(scored["images"], run["dataset"]) for run in record["runs"] for scored in run["evaluations"]} == {
        (2, "cityscapes")
    }


@pytest.mark.slow
def test_the_controls_have_the_finetuning_and_the_total_budget(demo: tuple[Path, dict[str, Any]]) -> None:
    iterations = {run["name"]: run["iterations"] for run in demo[1]["runs"]}
    assert iterations["scratch"] == iterations["finetune"]
    assert iterations["scratch_total"] == iterations["pretrain"] + iterations["finetune"]


@pytest.mark.slow
def test_cityscapes_scripts_agree_with_our_score(demo: tuple[Path, dict[str, Any]]) -> None:
    assert demo[1]["scripts_check"]["agree"]


@pytest.mark.slow
def test_multi_scale_scores_stand_beside_single_scale_ones(demo: tuple[Path, dict[str, Any]]) -> None:
    modes = {run["name"]: [scored["mode"] for scored in run["evaluations"]] for run in demo[1]["runs"]}
    assert modes["finetune"] == modes["scratch_total"] == ["single scale", "multi-scale + flip"]


@pytest.mark.slow
def test_the_sampling_locations_of_an_image_lie_around_their_query(demo: tuple[Path, dict[str, Any]]) -> None:
    arrays = np.load(demo[0] / "sampling.npz")
    first = arrays["location_stage_1"]  # (q, G*K, 2)
    distance = np.abs(first - arrays["query"][:, None]).max()
    assert distance < 16  # the network has hardly moved its offsets: a 3x3 window at stride 4, about 6 pixels each way
    assert np.allclose(arrays["weight_stage_1"].reshape(len(first), -1, 9).sum(-1), 1, atol=1e-6)


@pytest.mark.slow
def test_a_demo_whose_end_was_lost_trains_nothing_again_and_finds_the_same_scores(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, record = demo
    logs = {path: path.read_text() for path in folder.glob("runs/*/log.jsonl")}
    (folder / "demo.json").unlink()
    again = run_demo(folder, SETTINGS)
    assert {path: path.read_text() for path in folder.glob("runs/*/log.jsonl")} == logs
    scores = [[scored["mean_iou"] for run in each["runs"] for scored in run["evaluations"]] for each in (record, again)]
    assert scores[0] == scores[1]
    assert (record["resumed"], again["resumed"]) == (False, True)


@pytest.mark.slow
def test_a_finished_demo_is_only_read(demo: tuple[Path, dict[str, Any]]) -> None:
    assert run_demo(demo[0], SETTINGS) == read_json(demo[0] / "demo.json")


@pytest.mark.slow
def test_the_report_of_a_demo_can_be_written(demo: tuple[Path, dict[str, Any]]) -> None:
    assert write_report(demo[0]).stat().st_size > 100_000


def test_a_folder_with_a_demo_of_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="other settings"):
        run_demo(tmp_path, SETTINGS)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        run_demo(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
