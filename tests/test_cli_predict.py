"""`vistalib predict`: what it writes, what it takes, what it says; and the ways of looking that it shares with `evaluate`."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import vistalib
from tests.data_helpers import SIZE, pixels, values, write_folder, write_image, write_label
from vistalib.cli import main
from vistalib.data import read_image
from vistalib.evaluate import MULTI_SCALES, Window, predict_labels
from vistalib.files import read_json
from vistalib.labelling import NotAllLabelled
from vistalib.models import create_model, save_pretrained
from vistalib.recipes import open_model
from vistalib.viz import colorize

CLASSES, COLORS = ("sky", "road", "car"), ((0, 0, 90), (40, 0, 90), (120, 0, 90))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with five outputs of which it knows three: the others stand for nothing."""
    torch.manual_seed(0)
    network = create_model("upernet_internimage_nano", num_classes=5)
    torch.nn.init.normal_(network.decode_head.conv_seg.weight)
    return save_pretrained(network, tmp_path_factory.mktemp("model"), classes=CLASSES, colors=COLORS, scale=(64, 64))


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    write_image(tmp_path / "photos" / "street.png", pixels(0))
    return tmp_path / "photos" / "street.png"


def predict(*arguments: str | Path) -> int:
    """The exit status of `vistalib predict`."""
    return main(["predict", *map(str, arguments)])


def read_labels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.array(image)


def written(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_the_label_map_holds_the_labels_and_shows_them_in_the_colors_of_the_classes(
    model: Path, photograph: Path, tmp_path: Path
) -> None:
    assert predict(photograph, "--weights", model, "--out", tmp_path / "out") == 0
    trained = open_model(model)
    labels = predict_labels(trained.model, read_image(photograph), scale=trained.scale)
    assert len(np.unique(labels)) > 2  # or there would be little to see
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "street_labels.png"), labels)
    with Image.open(tmp_path / "out" / "street_labels.png") as stored:
        shown = np.array(stored.convert("RGB"))
    np.testing.assert_array_equal(shown, colorize(labels, np.array(COLORS, np.uint8)))


def test_the_overlay_is_the_photograph_with_a_legend_beneath(model: Path, photograph: Path, tmp_path: Path) -> None:
    assert predict(photograph, "--weights", model, "--out", tmp_path / "out") == 0
    height, width = cv2.imread(str(tmp_path / "out" / "street_overlay.jpg")).shape[:2]
    assert height > SIZE[0]
    assert width >= SIZE[1]


def test_sizes_seconds_and_shares_of_the_classes_go_to_json(model: Path, photograph: Path, tmp_path: Path) -> None:
    assert predict(photograph, "--weights", model, "--out", tmp_path / "out", "--json", tmp_path / "found.json") == 0
    (found,) = read_json(tmp_path / "found.json")["labelled"]
    assert (found["height"], found["width"]) == SIZE
    assert found["seconds"] > 0
    assert list(found["shares"]) == [*CLASSES, "other"]
    labels = read_labels(tmp_path / "out" / "street_labels.png")
    assert found["shares"]["car"] == pytest.approx((labels == 2).mean(), abs=1e-6)  # six digits are kept
    assert found["shares"]["other"] == pytest.approx((labels > 2).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "looking"),
    [
        (["--mode", "slide"], {"window": Window((32, 32), (21, 21))}),
        (["--mode", "slide", "--crop", "30", "48"], {"window": Window((30, 48), (20, 32))}),
        (["--multi-scale"], {"scales": MULTI_SCALES, "flip": True}),
        (["--size", "96", "128"], {"scale": (128, 96)}),
        (["--scale", "128", "96"], {"scale": (128, 96)}),
    ],
    ids=["sliding", "sliding by a crop", "multi-scale", "another size", "the older name in the older order"],
)
def test_an_image_is_shown_as_asked(
    model: Path, photograph: Path, tmp_path: Path, arguments: list[str], looking: dict[str, Any]
) -> None:
    assert predict(photograph, "--weights", model, "--out", tmp_path, *arguments) == 0
    trained = open_model(model)
    expected = predict_labels(trained.model, read_image(photograph), **{"scale": trained.scale} | looking)
    np.testing.assert_array_equal(read_labels(tmp_path / "street_labels.png"), expected)


def test_a_script_does_what_the_command_does(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        write_image(tmp_path / "photos" / f"{i}.png", pixels(i))
    shown = ["--mode", "slide", "--size", "48", "80", "--crop", "30", "48"]
    assert predict(tmp_path / "photos", "--weights", model, "--out", tmp_path / "command", *shown) == 0
    said = capsys.readouterr().out
    done = vistalib.predict(
        tmp_path / "photos", weights=model, out=tmp_path / "script", mode="slide", size=(48, 80), crop=(30, 48)
    )
    assert re.sub(r"\d+\.\d\d s", "", said).startswith(re.sub(r"\d+\.\d\d s", "", capsys.readouterr().out))
    assert written(tmp_path / "command") == written(tmp_path / "script")
    for record in done:
        assert (record.size, record.classes) == (SIZE, (*CLASSES, "other"))
        for path in record.results:
            assert path.read_bytes() == (tmp_path / "command" / path.name).read_bytes()


def test_a_script_may_name_one_photograph_or_several_and_learns_which_could_not_be_read(
    model: Path, photograph: Path, tmp_path: Path
) -> None:
    (record,) = vistalib.predict(str(photograph), weights=model, out=tmp_path / "one")
    assert record.shares["car"] == pytest.approx((read_labels(record.results[0]) == 2).mean(), abs=1e-6)
    with pytest.raises(NotAllLabelled, match=r"1 of 2 could not be labelled, the others are done") as caught:
        vistalib.predict([photograph, tmp_path / "nowhere.jpg"], weights=model, out=tmp_path / "two")
    assert [done.path for done in caught.value.labelled] == [photograph]
    assert list(caught.value.reasons) == [str(tmp_path / "nowhere.jpg")]


def test_photographs_of_one_name_stay_apart(model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a/0.jpg", "b/0.jpg", "b/0.png", "b/deep/1.jpg", ".hidden/2.jpg", "b/._0.jpg"):
        write_image(photos / name, pixels(0))
    assert predict(photos, photos / "a" / "0.jpg", "--weights", model, "--out", tmp_path / "out") == 0
    names = ("a/0", "b/0.jpg", "b/0.png", "b/deep/1")
    assert written(tmp_path / "out") == sorted(name + end for name in names for end in ("_labels.png", "_overlay.jpg"))


def test_results_are_not_labelled_the_next_time(model: Path, photograph: Path) -> None:
    out = photograph.parent / "predictions"
    for _ in range(2):
        assert predict(photograph.parent, "--weights", model, "--out", out) == 0
        assert written(out) == ["street_labels.png", "street_overlay.jpg"]


@pytest.mark.parametrize("kind", ["L", "RGBA", "P", "16-bit", "CMYK"])
def test_every_kind_of_image_is_labelled_at_its_size(model: Path, tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(pixels(0))
    file = tmp_path / ("photo.jpg" if kind == "CMYK" else "photo.png")
    if kind == "16-bit":
        cv2.imwrite(str(file), pixels(0).astype(np.uint16) * 257)
    else:
        image.convert(kind).save(file)
    assert predict(file, "--weights", model, "--out", tmp_path / "out") == 0
    assert read_labels(tmp_path / "out" / "photo_labels.png").shape == SIZE


def test_a_photograph_is_labelled_upright(model: Path, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x112] = 6  # orientation: a quarter turn
    Image.fromarray(pixels(0)).save(tmp_path / "photo.jpg", exif=turned)
    assert predict(tmp_path / "photo.jpg", "--weights", model, "--out", tmp_path / "out") == 0
    assert read_labels(tmp_path / "out" / "photo_labels.png").shape == SIZE[::-1]


def test_what_cannot_be_read_is_named_and_the_rest_is_done(
    model: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [tmp_path / name for name in ("cut.png", "words.txt", "cut.mp4", "nowhere.jpg")]
    for path in bad[:3]:
        path.write_bytes(photograph.read_bytes()[:100])
    out = tmp_path / "out"
    assert predict(*bad, photograph, "--weights", model, "--out", out, "--json", tmp_path / "found.json") == 1
    assert written(out) == ["photos/street_labels.png", "photos/street_overlay.jpg"]
    said = capsys.readouterr().err
    assert "4 of 5" in said
    assert all(path.name in said for path in bad)
    assert set(read_json(tmp_path / "found.json")["failed"]) == set(map(str, bad))


def test_a_video_keeps_its_frames_and_their_rate(model: Path, tmp_path: Path) -> None:
    height, width = SIZE
    video = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (width, height))
    for i in range(7):
        video.write(pixels(i))
    video.release()
    assert predict(tmp_path / "drive.avi", "--weights", model, "--out", tmp_path / "out") == 0
    assert written(tmp_path / "out") == ["drive_overlay.mp4"]
    labelled = cv2.VideoCapture(str(tmp_path / "out" / "drive_overlay.mp4"))
    assert labelled.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert labelled.get(cv2.CAP_PROP_FPS) == 12.5
    assert labelled.get(cv2.CAP_PROP_FRAME_HEIGHT) > height


@pytest.mark.parametrize(
    ("runs", "newest"),
    [
        (["runs/old", "runs/new"], "runs/new"),
        (["runs/old", "demo/runs/finetune", "demo/runs/scratch"], "demo/runs/finetune"),
    ],
    ids=["the newest run", "the demo's finetuned run, not its controls"],
)
def test_without_a_model_the_newest_run_is_taken_and_named(
    model: Path,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: list[str],
    newest: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for when, run in enumerate(runs):
        shutil.copytree(model, Path(run) / "checkpoints" / "iter_1")
        index = Path(run) / "checkpoints" / "index.json"
        index.write_text('{"last": "iter_1"}')
        os.utime(index, (when, when))
    assert predict(photograph) == 0
    assert f"model: {newest}, the newest run here" in capsys.readouterr().out
    assert (tmp_path / "predictions" / "street_labels.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "at least one photograph"),
        (["{photos}/street.png"], "vistalib demo"),
        (["{photos}", "--weights", "{model}", "--out", "{photos}"], "outside"),
        (["{tmp}/run", "--weights", "{model}"], "--weights {tmp}/run"),
        (["{photos}/street.png", "--weights", "{model}", "--crop", "8", "8"], "--mode slide"),
        (["{photos}/street.png", "--weights", "{model}", "--size", "0", "8"], "at least 1 pixel"),
        (["{photos}/a.png", "{photos}/a_labels.png", "--weights", "{model}", "--out", "{photos}"], "replace"),
    ],
    ids=["no photograph", "no model", "only results", "a run", "crop of no window", "size of 0", "a result in its place"],
)
def test_wrong_usage_ends_with_2_and_says_what(
    arguments: list[str],
    said: str,
    model: Path,
    photograph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    places = {"tmp": tmp_path, "photos": photograph.parent, "model": model}
    assert predict(*(argument.format(**places) for argument in arguments)) == 2
    assert said.format(**places) in capsys.readouterr().err
    assert written(photograph.parent) == ["street.png"]


def test_evaluate_shows_images_as_asked(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own")
    write_image(root / "images" / "val" / "0.png", pixels(60))
    write_label(root / "labels" / "val" / "0.png", values(60, range(4)))
    network = create_model("upernet_internimage_nano", num_classes=3)
    saved = save_pretrained(network, tmp_path / "model", classes=CLASSES, scale=(64, 64))
    asked = ["--folder", str(root), "--mode", "slide", "--json", str(tmp_path / "score.json")]
    assert main(["evaluate", str(saved), *asked]) == 0
    assert read_json(tmp_path / "score.json")["mode"] == "single scale + sliding window"
