"""`vistalib train ... --estimate`: what is foretold holds, and nothing is left behind."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data_helpers import pixels, values, write_folder, write_image, write_label
from vistalib.cli import main
from vistalib.data import AugmentationSettings
from vistalib.files import read_json
from vistalib.recipes import Estimate, Machine, OwnData, Recipe, Roots, Runtime, estimate, own_recipe, run
from vistalib.recipes.probe import bytes_below

DATA = OwnData(Path("streets"), ("train", "val"), 5, 3, ("sky", "road", "car"), ((24, 40),) * 5)  # as `streets` has it
CPU = Runtime("cpu", num_workers=0)


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    root = write_folder(tmp_path_factory.mktemp("streets") / "own")
    for i in range(3):
        write_image(root / "images" / "val" / f"{i}.png", pixels(50 + i))
        write_label(root / "labels" / "val" / f"{i}.png", values(50 + i, range(4)))
    return Roots(folder=root)


def tiny(**settings: int) -> Recipe:
    recipe = own_recipe(DATA, None, Machine("cpu", None))
    schedule = {"iterations": 7, "warmup_iters": 0, "log_every": 2, "checkpoint_every": 2, "evaluate_every": 100, "keep": 2}
    return replace(
        recipe,
        batch_size=2,
        evaluation_scale=(64, 64),
        augmentation=AugmentationSettings(scale=(64, 64), ratio_range=(0.5, 1.0), crop=(64, 64)),
        settings=replace(recipe.settings, **(schedule | settings)),
    )


def foretell(recipe: Recipe, roots: Roots, folder: Path, *, resume: bool = False) -> Estimate:
    return estimate(recipe, roots, folder=folder, resume=resume, runtime=CPU, seconds=1.0)


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def foretold(streets: Roots, tmp_path_factory: pytest.TempPathFactory) -> Estimate:
    return foretell(tiny(), streets, tmp_path_factory.mktemp("foretold") / "run")


def test_a_run_leaves_as_many_bytes_as_foretold(foretold: Estimate, streets: Roots, tmp_path: Path) -> None:
    run(tiny(), streets, folder=tmp_path / "run", runtime=CPU)
    assert foretold.checkpoints_left == 2
    assert foretold.disk_left == pytest.approx(bytes_below(tmp_path / "run"), rel=1e-3)  # seen: 9e-7, the digits of numbers


def test_nothing_is_left_behind_and_no_folder_is_made(streets: Roots, tmp_path: Path) -> None:
    foretell(tiny(), streets, tmp_path / "runs" / "mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "evaluations", "left", "at_most"),
    [
        ({}, 1, 2, 3),  # saved after 2, 4, 6, 7; 6 and 7 are kept, and 7 is the only one that can be the best
        ({"evaluate_every": 3}, 3, 3, 4),  # saved after 3, too, which may be the best
        pytest.param({"keep": 9}, 1, 4, 4, marks=pytest.mark.slow),
        pytest.param({"checkpoint_every": 100}, 1, 1, 1, marks=pytest.mark.slow),
    ],
    ids=["the best is the last", "the best may be older", "all are kept", "one is written"],
)
def test_what_is_written_is_counted(
    settings: dict[str, int], evaluations: int, left: int, at_most: int, streets: Roots, tmp_path: Path
) -> None:
    found = foretell(tiny(**settings), streets, tmp_path / "run")
    assert (found.evaluations, found.checkpoints_left, found.checkpoints_at_most) == (evaluations, left, at_most)


def test_times_are_positive_and_add_up(foretold: Estimate) -> None:
    assert min(*foretold.step_seconds, *foretold.image_seconds) > 0
    assert 0 <= foretold.data_seconds <= max(foretold.step_seconds)
    for low, mean, high in (foretold.training_hours, foretold.evaluation_hours):
        assert 0 < low <= mean <= high
    assert foretold.training_hours[1] == pytest.approx(7 * sum(foretold.step_seconds) / len(foretold.step_seconds) / 3600)
    assert foretold.memory_bytes is not None
    assert foretold.memory_bytes > 0


def test_a_run_that_goes_on_has_the_rest_to_do_and_is_not_touched(streets: Roots, tmp_path: Path) -> None:
    run(tiny(iterations=4), streets, folder=tmp_path / "run", runtime=CPU)
    before = contents(tmp_path)
    found = foretell(tiny(iterations=10), streets, tmp_path / "run", resume=True)
    assert (found.done, found.iterations) == (4, 10)
    assert found.training_hours[1] == pytest.approx(6 * sum(found.step_seconds) / len(found.step_seconds) / 3600)
    assert found.there_bytes == bytes_below(tmp_path / "run")
    assert found.checkpoints_left == 3  # the last two, and the one that is the best so far
    assert contents(tmp_path) == before
    with pytest.raises(ValueError, match="must hold a run that is not finished, got one of 4 iterations"):
        foretell(tiny(iterations=4), streets, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"free_bytes": 10}, "--settings.keep"),
        ({"memory_there": 10}, "--accumulate"),
        ({"data_seconds": 1e3}, "--workers"),
    ],
    ids=["disk", "memory", "data"],
)
def test_what_will_not_do_is_said_with_the_option_that_helps(changes: dict[str, float], said: str, foretold: Estimate) -> None:
    fine = replace(foretold, free_bytes=10**15, memory_there=10**15, data_seconds=0.0)
    assert fine.warnings() == []
    (warning,) = replace(fine, **changes).warnings()  # type: ignore[arg-type]  # each is of its field's type
    assert said in warning


def test_the_command_prints_a_table_and_trains_nothing(
    streets: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option for pair in tiny().options() for option in [pair[0], *pair[1].split()]]
    command = ["train", "--data", str(streets.folder), "--out", str(tmp_path / "runs" / "mine"), *options]
    places = ["--device", "cpu", "--workers", "0", "--estimate", "--json", str(tmp_path / "found.json")]
    with pytest.warns(UserWarning, match="without a checkpoint"):
        assert main([*command, *places]) == 0
    found, said = read_json(tmp_path / "found.json"), capsys.readouterr().out
    assert f"{found['checkpoints_left']} checkpoints" in said
    assert "7 steps of" in said
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_data_that_was_not_given_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--folder DIR"):
        foretell(tiny(), Roots(), tmp_path / "run")
