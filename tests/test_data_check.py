"""The doctor: a whole dataset is found whole; of the corpus, every damage by its kind and its file, and nothing else."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_files import FORMS, LAYOUTS, make_intact, options_of
from broken_folders import break_folder
from data_helpers import pixels, write_folder, write_image, write_vistas

from vistalib.data import Checkup, check
from vistalib.data.check_names import Found, count_findings
from vistalib.data.disk import disk_speed
from vistalib.data.findings import ERRORS, KINDS
from vistalib.data.layout import Place
from vistalib.data.published import promised

TINY = "unseen-class"  # what is true of a few small streets


@pytest.fixture(scope="session")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The intact dataset of a layout, made when it is first asked for."""
    made: dict[str, Path] = {}

    def of(layout: str) -> Path:
        if layout not in made:
            made[layout] = make_intact(layout, tmp_path_factory.mktemp("intact") / layout)
        return made[layout]

    return of


def told(done: Checkup) -> set[tuple[str, str]]:
    """What was found, as (path below the root, kind)."""
    return {(finding.path.relative_to(done.root).as_posix(), finding.kind) for finding in done.findings}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_wrong_with_a_whole_dataset(layout: str, intact: Callable[[str], Path]) -> None:
    done = check(root=intact(layout), **options_of(layout))
    assert done.errors == 0
    assert {kind for _, kind in told(done)} <= ({TINY} if layout != "folder" else set())


@pytest.mark.parametrize("name", FORMS)
def test_a_damage_is_found_by_its_kind_and_file_and_nothing_else_is(
    name: str, intact: Callable[[str], Path], tmp_path: Path
) -> None:
    if "without permission" in name and (os.name == "nt" or os.geteuid() == 0):
        pytest.skip("this user may read everything")
    broken = FORMS[name]
    manifest = break_folder(name, intact(broken.layout), tmp_path / "broken")
    usual = told(check(root=intact(broken.layout), **broken.options))
    assert told(check(root=tmp_path / "broken", **broken.options)) - usual == set(manifest.items())


def test_the_corpus_has_a_damage_for_every_rule(intact: Callable[[str], Path], tmp_path: Path) -> None:
    manifests = [break_folder(name, intact(form.layout), tmp_path / name) for name, form in FORMS.items()]
    assert {kind for manifest in manifests for kind in manifest.values()} == set(KINDS)


def test_the_same_seed_does_the_same_damage(intact: Callable[[str], Path], tmp_path: Path) -> None:
    name = "folder: cut image"
    manifests = [break_folder(name, intact("folder"), tmp_path / str(i), seed=seed) for i, seed in enumerate((3, 3, 4))]
    cut = [(tmp_path / str(i) / next(iter(manifest))).read_bytes() for i, manifest in enumerate(manifests)]
    assert cut[0] == cut[1] != cut[2]


def test_everything_is_reported_at_once(intact: Callable[[str], Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(intact("folder"), tmp_path / "broken"))
    (root / "classes.json").unlink()
    (root / "images/train/00.jpg").write_bytes(b"")
    (root / "labels/train/01.png").unlink()
    shutil.rmtree(root / "labels/val")
    assert told(check("folder", root)) == {
        ("classes.json", "configuration"),
        ("images/train/00.jpg", "empty"),
        ("images/train/01.png", "missing-label"),
        ("labels/val", "missing-folder"),
    }


def test_errors_come_before_warnings_and_each_says_how_to_repair(tmp_path: Path) -> None:
    root = write_vistas(tmp_path)
    (root / "training/images/notes.txt").write_text("")
    (root / "training/images/photo000.jpg").write_bytes(b"")
    done = check("vistas", root)
    assert [finding.is_error for finding in done.findings] == sorted((f.is_error for f in done.findings), reverse=True)
    assert {"empty", "count", "stray"} <= {finding.kind for finding in done.findings}
    assert all(finding.found and finding.repair for finding in done.findings)


def test_counts_are_compared_with_those_that_were_published(tmp_path: Path) -> None:
    done = check("vistas", write_vistas(tmp_path))
    assert [(row.split, row.images, row.pairs, row.expected) for row in done.splits] == [
        ("training", 3, 3, 18_000),
        ("validation", 2, 2, 2_000),
    ]
    assert ("training/images", "count") in told(done)


@pytest.mark.parametrize("images", [19_997, 19_998], ids=["bad image not counted", "bad image counted"])
def test_sources_may_differ_on_the_bad_image(images: int) -> None:
    place = Place(Path("nowhere"), "leftImg8bit/train_extra", (".png",), "_leftImg8bit")
    found = Found("train_extra", place, place, {str(i): [Path(str(i))] for i in range(images)}, {})
    expected, _ = promised("cityscapes", Path("nowhere"))
    assert list(count_findings(found, expected["train_extra"])) == []


def test_images_of_the_benchmark_need_no_labels(tmp_path: Path) -> None:
    root = write_vistas(tmp_path)
    write_image(root / "testing/images/photo200.jpg", pixels(200))
    (root / "testing/images/photo201.jpg").write_bytes(b"")
    done = check("vistas", root)
    assert [(row.images, row.labels, row.expected) for row in done.splits if row.split == "testing"] == [(2, None, 5_000)]
    assert [path for path, kind in told(done) if kind in ERRORS] == ["testing/images/photo201.jpg"]


def test_a_quick_check_reads_no_file(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    (root / "images/train/00.jpg").write_bytes(b"")
    (root / "labels/train/01.png").unlink()
    done = check("folder", root, quick=True)
    assert told(done) == {("images/train/01.png", "missing-label")}
    assert (done.files, done.disk) == (0, None)


def test_only_the_split_that_is_asked_for_is_checked(tmp_path: Path) -> None:
    root = write_vistas(tmp_path)
    (root / "training/images/photo000.jpg").write_bytes(b"")
    assert check("vistas", root, "validation").errors == 0


def test_a_map_that_does_not_exist_is_no_fault_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a map must be"):
        check("vistas", write_vistas(tmp_path), map="relesed")


def test_a_root_one_level_off_is_one_finding_that_proposes_the_right_one(tmp_path: Path) -> None:
    right = write_vistas(tmp_path / "vistas")
    done = check("vistas", tmp_path)
    assert [finding.kind for finding in done.findings] == ["missing-folder"]
    assert f"perhaps {right}" in done.findings[0].repair


def test_the_disk_is_measured_by_whole_files(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(3)]
    for path in paths[:2]:
        path.write_bytes(bytes(5000))
    disk = disk_speed(paths)  # the third cannot be read
    assert (disk.files, disk.bytes) == (2, 10_000)
    assert disk.seconds > 0
