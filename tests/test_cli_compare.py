"""`vistalib evaluate`, `compare` and `reproduce`: what they print and write, and their refusals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import ROOT
from vistalib.cli import main
from vistalib.data import Cityscapes, synthesize
from vistalib.files import read_json, write_json
from vistalib.models import create_model, save_pretrained
from vistalib.recipes import Cell, reproduce

T = "upernet_internimage_t_512x1024_160k_cityscapes"


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streets")
    synthesize(root, layout="cityscapes", num_images={"train": 1, "val": 3}, seed=4, size=(128, 256), workers=1)
    return root


def saved(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    model = create_model("upernet_internimage_nano", num_classes=19)
    for parameter in model.decode_head.conv_seg.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return save_pretrained(model, folder, scale=(128, 64))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [saved(root / str(seed), seed) for seed in range(2)]


@pytest.fixture(scope="module")
def scores(models: list[Path], streets: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scores")
    for i, model in enumerate(models):
        options = ["--cityscapes", str(streets), "--batch-size", "2", "--json", str(folder / f"{i}.json")]
        assert main(["evaluate", str(model), *options]) == 0
    return [folder / f"{i}.json" for i in range(2)]


def test_evaluate_prints_categories_and_instances(
    models: list[Path], streets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(models[0]), "--cityscapes", str(streets)]) == 0
    printed = capsys.readouterr().out
    assert {"person", "construction", "vehicle", "human"} <= {line.split()[0] for line in printed.splitlines() if line}
    assert printed.splitlines()[0].split() == ["IoU", "iIoU"]
    assert "categories" in printed.splitlines()[-1]


def test_compare_prints_a_table_and_a_verdict_and_keeps_both(
    scores: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--resamples", "200", "--json", str(tmp_path / "c.json"), "--figure", str(tmp_path / "c.png")]
    assert main(["compare", *map(str, scores), *options]) == 0
    printed, found = capsys.readouterr().out, read_json(tmp_path / "c.json")
    difference = read_json(scores[1])["mean_iou"] - read_json(scores[0])["mean_iou"]
    assert found["mean_iou"]["difference"]["value"] == pytest.approx(difference, abs=1e-15)
    assert f"by {abs(100 * difference):.2f} points" in " ".join(printed.split())
    assert " ".join(printed.split()).endswith(found["verdict"])
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_compare_takes_several_seeds_a_side(scores: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = map(str, scores)
    assert main(["compare", "--a", a, b, "--b", b, a, b, "--resamples", "100"]) == 0
    assert "Over seeds, A goes from" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["compare", "{0}"], 2, "give two runs"),
        (["compare", "{0}", "{1}", "--a", "{0}"], 2, "give two runs"),
        (["compare", "--a", "{0}"], 2, "two sides are needed"),
        (["compare", "{0}", "{1}", "--figure", "a.txt"], 2, ".svg, .png or .pdf"),
        (["compare", "{0}", "{tmp}/nowhere.json"], 1, "nowhere.json does not exist"),
        (["compare", "{0}", "{tmp}/alone.json"], 1, "alone.json must have the matrices of its images beside it"),
        (["evaluate", "{model}", "--cityscapes", "x", "--batch-size", "0"], 2, "--batch-size must be at least 1"),
        (["reproduce", "nothing"], 2, "`vistalib reproduce` lists them all"),
        (["reproduce", T], 2, "add --cityscapes DIR"),
        (["reproduce", T, "--cityscapes", "{streets}", "--weights", "{model}", "--out", "{tmp}"], 1, f"weights of {T[:21]}"),
    ],
    ids=[
        *("one run", "runs and a side", "one side", "figure", "no file", "no matrices", "batch"),
        *("no cell", "no dataset", "another model"),
    ],
)
def test_refusals(
    scores: list[Path],
    models: list[Path],
    streets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    write_json(tmp_path / "alone.json", read_json(scores[0]))
    places = {"tmp": tmp_path, "model": models[0], "streets": streets}
    assert main([argument.format(*scores, **places) for argument in arguments]) == status
    assert said in capsys.readouterr().err


def test_reproduce_lists_the_published_numbers_and_what_records_say(
    models: list[Path], streets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = reproduce(
        Cell(T, "upernet_internimage_nano", False, 82.58), Cityscapes(streets, "val"), weights=models[0], scale=(128, 64)
    )
    write_json(tmp_path / f"{found.cell.label}.json", found.to_json())
    capsys.readouterr()
    assert main(["reproduce", "--out", str(tmp_path)]) == 0
    lines = {tuple(line.split()[:3]): line for line in capsys.readouterr().out.splitlines()}
    assert lines[T, "ss", "82.58"].endswith(f"{found.found:.2f}  not a test of it")
    assert lines[T, "ms", "83.40"].endswith("83.40")


@pytest.mark.slow
def test_evaluate_under_torchrun_counts_every_image_once(
    models: list[Path], scores: list[Path], streets: Path, tmp_path: Path
) -> None:
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vistalib"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    command = ["evaluate", str(models[0]), "--cityscapes", str(streets), "--json", str(tmp_path / "two.json")]
    out = ["--out", str(tmp_path / "labels")]
    done = subprocess.run([sys.executable, *run, *command, *out], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mIoU") == 1
    one, two = (read_json(path) | {"seconds": 0} for path in (scores[0], tmp_path / "two.json"))
    assert one == two
    assert len(list((tmp_path / "labels").iterdir())) == 3
