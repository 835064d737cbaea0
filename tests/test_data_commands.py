"""`vistalib data ...`: the commands do what the functions behind them do, and say so."""

import json
import re
import zipfile

import pytest
from data_helpers import pixels, values, write_folder, write_image, write_vistas

from vistalib.cli import main
from vistalib.data import Folder, Vistas, class_pixels


def test_index_counts_what_it_is_asked_for(tmp_path, capsys):
    datasets = pytest.importorskip("datasets")
    root = write_vistas(tmp_path / "vistas", "v2.0")
    arguments = ["--vistas", str(root), "--map", "native", "--json", str(tmp_path / "x.json"), "--out", str(tmp_path / "index")]
    assert main(["data", "index", *arguments]) == 0
    native = Vistas(root, "training", map="native")
    assert json.loads((tmp_path / "x.json").read_text())["pixels"] == dict(
        zip(native.classes, class_pixels(native), strict=True)
    )
    assert capsys.readouterr().out.startswith("3 images")
    assert datasets.load_from_disk(tmp_path / "index").num_rows == 3


def test_index_draws_what_it_counted(tmp_path):
    pytest.importorskip("datasets")
    root = write_folder(tmp_path / "own")
    assert main(["data", "index", "--folder", str(root), "--figures", str(tmp_path / "figures")]) == 0
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"balance.png", "map.png", "places.png", "sizes.png"}


def test_an_index_is_not_written_over_other_files(tmp_path, capsys):
    pytest.importorskip("datasets")
    root = write_folder(tmp_path / "own")
    assert main(["data", "index", "--folder", str(root), "--out", str(root)]) == 2
    assert "--out must be a new or empty folder" in capsys.readouterr().err


def test_a_choice_of_another_dataset_is_refused(tmp_path, capsys):
    root = write_folder(tmp_path / "own")
    assert main(["data", "index", "--folder", str(root), "--version", "v2.0"]) == 1
    assert "version is a choice of vistas, got 'v2.0' for folder" in capsys.readouterr().err


def test_maps_are_listed_and_shown(capsys):
    assert main(["data", "maps"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("released", "cvrn", "ocr", "vistalib", "native"))
    assert main(["data", "maps", "released"]) == 0
    shown = capsys.readouterr().out
    assert "rider           human--rider--bicyclist, human--rider--motorcyclist, human--rider--other-rider" in shown


def test_unpack_says_how_to_go_on(tmp_path, capsys):
    source, archive = write_vistas(tmp_path / "source"), tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in (path for path in source.rglob("*") if path.is_file()):
            target.write(path, path.relative_to(source))
    assert main(["data", "unpack", str(archive), "--to", str(tmp_path / "out")]) == 0
    assert f"11 files written, 0 were there; use --vistas {tmp_path / 'out'}" in capsys.readouterr().out


def test_import_makes_a_folder(tmp_path):
    classes = [{"name": name, "color": [90 * i, 0, 0]} for i, name in enumerate(("sky", "road", "car"))]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes}))
    write_image(tmp_path / "images" / "a.png", pixels(0))
    write_image(tmp_path / "colors" / "a.png", (values(0, range(3))[..., None] * [90, 0, 0]).astype("uint8"))
    given = [f"--{name}={tmp_path / name}" for name in ("images", "colors")]
    assert main(["data", "import", str(tmp_path / "own"), *given, f"--classes={tmp_path / 'classes.json'}"]) == 0
    assert Folder(tmp_path / "own", "train").read_label(0).tolist() == values(0, range(3)).tolist()


def test_check_ends_with_0_where_training_would_run(tmp_path, capsys):
    root = write_folder(tmp_path / "own")
    assert main(["data", "check", "--folder", str(root)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"train +5 +5 +5 +-\n", said)
    assert said.rstrip().endswith("no errors, no warnings")


def test_check_ends_with_1_names_files_and_says_what_to_do(tmp_path, capsys):
    root = write_folder(tmp_path / "own")
    (root / "labels/train/03.png").unlink()
    (root / "images/train/notes.txt").write_text("")
    assert main(["data", "check", "--folder", str(root)]) == 1
    said, failed = capsys.readouterr()
    assert (
        "images without a label: 1 (missing-label)\n  images/train/03.png has no label\n  -> put the label into labels/train"
        in said
    )
    assert said.index("ERRORS") < said.index("WARNINGS") < said.index("images/train/notes.txt is not read")
    assert f"vistalib: {root} has 1 error; mend" in failed


def test_check_shows_a_handful_of_many_and_writes_all(tmp_path, capsys):
    root = write_folder(tmp_path / "own", count=12)
    for path in (root / "labels/train").iterdir():
        path.write_bytes(b"")
    assert main(["data", "check", "--folder", str(root), "--json", str(tmp_path / "all.json")]) == 1
    assert f"and 7 more (all in {tmp_path / 'all.json'})" in capsys.readouterr().out
    written = json.loads((tmp_path / "all.json").read_text())
    assert [finding["path"] for finding in written["findings"]] == [str(root / f"labels/train/{i:02}.png") for i in range(12)]
    assert {finding["severity"] for finding in written["findings"]} == {"error"}


def test_a_quick_check_says_that_it_read_no_file(tmp_path, capsys):
    assert main(["data", "check", "--folder", str(write_folder(tmp_path / "own")), "--quick"]) == 0
    assert "names checked" in capsys.readouterr().out


@pytest.mark.slow
def test_check_says_whether_the_loader_keeps_a_gpu_busy(tmp_path, capsys):
    loading = ["data", "check", "--folder", str(write_folder(tmp_path / "own")), "--workers", "0", "--images-per-second"]
    assert main([*loading, "1e-3"]) == 0
    assert "a GPU that trains 0.001 is kept busy" in capsys.readouterr().out
    written = tmp_path / "speed.json"
    assert main([*loading, "1e9", "--json", str(written)]) == 0
    assert "would wait 100% of the time" in capsys.readouterr().out
    assert json.loads(written.read_text())["loader_images_per_second"] > 0


def test_check_wants_one_dataset(capsys):
    assert main(["data", "check"]) == 2
    assert "one dataset is needed" in capsys.readouterr().err


def test_make_asks_for_numbers_that_fit_the_layout(tmp_path, capsys):
    assert main(["data", "make", str(tmp_path / "x"), "--layout", "vistas", "--num-images", "1", "1", "1"]) == 2
    assert "--num-images of vistas must be 2 to 2 numbers (training, validation)" in capsys.readouterr().err
