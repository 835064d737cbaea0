"""The command: exit status 0, 1 and 2, one message with the repair, and no traceback for a user's mistake."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path

import psutil
import pytest

from tests.data_helpers import pixels, values, write_folder, write_image, write_label
from tests.helpers import ROOT, run_python
from vistalib.cli import main
from vistalib.data import synthesize
from vistalib.files import read_json
from vistalib.recipes.demo import DemoSettings

T = "upernet_internimage_t_512x1024_160k_cityscapes"
SMALL = "upernet_internimage_nano_64x128_300_cityscapes"
TINY = [
    *("--batch-size", "2", "--evaluation-size", "64", "64", "--workers", "0"),
    *("--settings.iterations", "2", "--settings.warmup-iters", "0"),
    *("--augmentation.size", "64", "64", "--augmentation.crop", "64", "64"),
]
pytestmark = pytest.mark.filterwarnings("ignore:without a checkpoint")  # --data: as tests/test_recipes_own.py expects it


def status(*arguments: str | Path) -> int:
    """The exit status of one command, however it ends."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(str(stop.code))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_folder(tmp_path_factory.mktemp("own") / "streets")
    write_image(root / "images" / "val" / "0.png", pixels(60))
    write_label(root / "labels" / "val" / "0.png", values(60, range(4)))
    return root


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streets")
    synthesize(root, layout="cityscapes", num_images={"train": 1, "val": 1}, seed=4, size=(32, 64), workers=1)
    return root


@pytest.fixture(scope="module")
def trained(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "own"
    assert status("train", "--data", own, "--out", out, *TINY) == 0
    return out


@pytest.fixture(scope="module")
def wrong(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that went wrong: one whose JPEGs are `cut` far behind their sizes, one of `other` classes."""
    root = tmp_path_factory.mktemp("wrong")
    for image in (shutil.copytree(own, root / "cut") / "images" / "train").glob("*.jpg"):
        image.write_bytes(image.read_bytes()[:-40])
    classes = shutil.copytree(own, root / "other") / "classes.json"
    classes.write_text(classes.read_text().replace("car", "bus"))
    return root


def test_help_comes_without_torch() -> None:
    code = "import sys, vistalib.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    assert run_python(code).splitlines()[-1] == "False"


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--version") == 0
    assert capsys.readouterr().out == f"vistalib {version('vistalib')}\n"


def test_the_help_of_the_demo_shows_the_defaults_it_runs_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("demo", "--help") == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, value in dataclasses.asdict(DemoSettings()).items():
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        assert re.search(rf"--{name} .*?\(default: {shown}\)", said)


def test_training_on_own_data_then_evaluating_gives_the_same_score(trained: Path, own: Path, tmp_path: Path) -> None:
    assert status("evaluate", "--weights", trained, "--folder", own, "--json", tmp_path / "score.json") == 0
    assert read_json(tmp_path / "score.json")["mean_iou"] == read_json(trained / "evaluation.json")["mean_iou"]


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--data", "{own}", "--{weights}", "{tmp}/nowhere"],
        ["predict", "{own}/images/val/0.png", "--{weights}", "{tmp}/nowhere"],
        ["evaluate", "--{weights}", "{tmp}/nowhere", "--folder", "{own}"],
        ["export", "--{weights}", "{tmp}/nowhere", "{tmp}/model.onnx"],
        ["convert", "--{weights}", "{tmp}/nowhere", "{tmp}/model.pth"],
        ["reproduce", T, "--{weights}", "{tmp}/nowhere", "--cityscapes", "{streets}"],
    ],
    ids=itemgetter(0),
)
def test_weights_are_the_same_option_everywhere_and_its_older_names_still_work(
    command: list[str], own: Path, streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = {"train": ("from", "start-from"), "predict": ("model",), "reproduce": ("checkpoint",)}.get(command[0], ())
    for weights in ("weights", *older):
        assert status(*(word.format(weights=weights, own=own, streets=streets, tmp=tmp_path) for word in command)) == 1
        assert str(tmp_path / "nowhere") in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "export", "convert"])
def test_weights_may_stand_where_they_stood_before_there_was_the_option(
    command: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ["--folder", own] if command == "evaluate" else [tmp_path / "model.onnx" if command == "export" else "model.pth"]
    assert status(command, tmp_path / "nowhere", *rest) == 1
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_known_before_the_evaluation(
    trained: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("evaluate", trained, "--folder", own, "--json", own) == 1
    printed = capsys.readouterr()
    assert "could not be written" in printed.err
    assert "evaluating" not in printed.out + printed.err


def test_a_second_training_into_the_same_folder_is_refused(
    trained: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("train", "--data", own, "--out", trained, *TINY) == 1
    assert "resume" in capsys.readouterr().err


@pytest.mark.slow
def test_zoo_counts_the_released_parameters_and_flops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("zoo", "--json", tmp_path / "zoo.json") == 0
    row = read_json(tmp_path / "zoo.json")["models"]["upernet_internimage_l"]
    assert row["parameters"] == 255_600_606
    assert sum(row["released_flops"].values()) == 3_233_601_315_840
    assert re.search(r"upernet_internimage_l +255,600,606 +256M +1024x2048 +3233.60G +3234G +3230.67G", capsys.readouterr().out)


def test_doctor_names_a_usable_backend(tmp_path: Path) -> None:
    assert status("doctor", "--json", tmp_path / "doctor.json") == 0
    assert any(backend["usable"] for backend in read_json(tmp_path / "doctor.json")["backends"])


@pytest.mark.parametrize(
    ("age", "said"),
    [(0, "being built, 3 of 7 files compiled"), (600, "its build in the background was interrupted; the next `make demo`")],
    ids=["running", "broken off"],
)
def test_doctor_tells_how_far_torch_scatter_is(
    age: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "torch-scatter.json"
    state.write_text('{"line": "being built, 3 of 7 files compiled", "running": true}')
    os.utime(state, (time.time() - age,) * 2)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr("vistalib.provenance._version", lambda package: None)
    assert status("doctor") == 0
    assert f"torch-scatter           {said}" in capsys.readouterr().out


def test_index_counts_every_labelled_pixel(own: Path, tmp_path: Path) -> None:
    assert status("data", "index", "--folder", own, "--json", tmp_path / "index.json") == 0
    expected = dict.fromkeys(("sky", "road", "car"), 0)
    for i in range(5):
        label = values(i, range(4))
        for name, value in (("sky", 0), ("road", 1), ("car", 3)):
            expected[name] += int((label == value).sum())
    assert read_json(tmp_path / "index.json")["pixels"] == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "frobnicate"),
        (["train", "upernet_internimage_l_512x1024_80k_mapilary"], "mapillary"),
        (["train"], "--data FOLDER"),
        (["train", T, "--settings.iteration", "3"], "iterations"),
        (["train", T, "--settings.iterations", "many"], "many"),
        (["evaluate", "somewhere"], "--cityscapes DIR"),
        (["evaluate", "--cityscapes", "a"], "one --weights WEIGHTS must be given, got nothing"),
        (["evaluate", "a", "--weights", "b", "--cityscapes", "a"], "got b, a"),
        (["export", "model.onnx"], "one --weights WEIGHTS and TARGET must be given, got model.onnx"),
        (["convert", "a", "b", "c"], "got a, b, c"),
        (["evaluate", "somewhere", "--vistas", "a", "--folder", "b"], "got 2"),
        (["data", "make", "somewhere", "--layout", "kitti"], "kitti"),
    ],
    ids=[
        *("command", "recipe", "no recipe", "option", "value", "no dataset", "evaluate: no weights", "evaluate: weights twice"),
        *("export: no weights", "convert: too many", "two datasets", "layout"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*arguments) == 2
    assert said in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", SMALL], "--cityscapes DIR"),
        (["train", SMALL, "--cityscapes", "{tmp}/nowhere"], "nowhere"),
        (["train", SMALL, "--cityscapes", "{streets}", "--weights", "{tmp}/nowhere"], "nowhere"),
        (["train", SMALL, "--cityscapes", "{streets}", "--model", "upernet_internimage_q"], "upernet_internimage_"),
        (["evaluate", "--weights", "{tmp}/nowhere", "--folder", "{own}"], "nowhere"),
        (["predict", "{tmp}/nowhere.jpg", "--weights", "{trained}"], "nowhere.jpg"),
        (["predict", "{own}/images/val/0.png", "--weights", "{tmp}/nowhere"], "nowhere"),
        (
            ["predict", "{own}/images/val/0.png", "--weights", "{trained}", "--out", "{own}/classes.json/out"],
            "could not be written",
        ),
        (["train", SMALL, "--cityscapes", "{streets}", "--device", "gpu"], "cpu, cuda"),
        (["train", "--data", "{own}", "--workers", "-1"], "num_workers must be at least 0"),
        (["train", "--data", "{own}", "--num-classes", "2"], "at least the 3 classes"),
        (["train", "--data", "{own}", "--evaluation-size", "0", "0"], "evaluation_scale must be at least 1"),
        (["train", "--data", "{cut}", *TINY], "bytes that end early or do not decode"),
        (["evaluate", "{trained}", "--folder", "{cut}", "--device", "gpu"], "cpu, cuda"),
        (["evaluate", "--weights", "{trained}", "--folder", "{other}"], "classes it was trained on"),
        (["evaluate", "{trained}", "--folder", "{own}", "--json", "{own}/classes.json/x"], "or choose another place"),
        (["data", "make", "{tmp}/out", "--seed", "-1"], "seed must be"),
        (["demo", "--iterations", "0", "2"], "iterations must be at least 1"),
        (["demo", "--cityscapes", "3", "0"], "cityscapes=(3, 0)"),
        (["demo", "--out", "{own}/classes.json"], "a file; give another folder"),
    ],
    ids=[
        *("data not given", "no such data", "no such checkpoint", "no such model", "no such run", "no such image"),
        *("predict: no such model", "predict below a file", "no such device", "workers below 0", "too few classes"),
        *("scale of 0", "cut image"),
        *("evaluate: no such device", "model of other classes", "json below a file", "seed below 0", "no iterations"),
        *("no image to score on", "demo onto a file"),
    ],
)
def test_a_failure_ends_with_1_one_message_and_nothing_written(
    arguments: list[str],
    said: str,
    own: Path,
    streets: Path,
    wrong: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"tmp": tmp_path, "own": own, "streets": streets, "trained": trained}
    places |= {"cut": wrong / "cut", "other": wrong / "other"}
    filled = [argument.format(**places) for argument in arguments]
    out = ["--out", str(tmp_path / "out")] if filled[0] in ("train", "predict", "demo") and "--out" not in filled else []
    assert status(*filled, *out) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_an_interrupted_training_says_where_it_is_saved_and_ends_with_75(own: Path, tmp_path: Path) -> None:
    """Its workers are told, too, as `timeout` and batch systems do, and its iterations are not lost."""
    options = [*TINY, "--workers", "2", "--settings.iterations", "100000", "--settings.log-every", "1"]
    command = [sys.executable, "-m", "vistalib", "train", "--data", str(own), "--out", str(tmp_path / "run"), *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    assert list((tmp_path / "run" / "checkpoints").glob("iter_*"))
    assert f"{tmp_path / 'run'}" in error
    assert "resume" in error


@pytest.mark.slow
def test_a_killed_drawing_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vistalib", "data", "make", str(tmp_path / "streets"), "--num-images", "400", "8"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parent = psutil.Process(process.pid)
    while process.poll() is None and not list(tmp_path.rglob("*.jpg")):
        time.sleep(0.2)
    children = parent.children(recursive=True)
    process.kill()
    process.wait()
    assert children
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
