"""Unpacking: the right place for every file, going on after an interruption, and nothing outside the folder."""

import stat
import zipfile
from pathlib import Path

import pytest
from data_helpers import write_auto, write_cityscapes, write_vistas

from vistalib.data import Cityscapes, Vistas, unpack
from vistalib.files import NotWritten


def pack(folder: Path, archive: Path, *, wrap: str = "", extra: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(archive, "w") as target:
        for name, text in (extra or {}).items():
            target.writestr(name, text)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                target.write(path, wrap + path.relative_to(folder).as_posix())
    return archive


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", ["v1.2", "v2.0", "flat"])
@pytest.mark.parametrize("wrap", ["", "mapillary-vistas-dataset_public_v1.1/"], ids=["bare", "in a folder"])
def test_vistas_is_recognised_by_content(layout, wrap, tmp_path):
    source = write_vistas(tmp_path / "source", layout)
    (done,) = unpack([pack(source, tmp_path / "x.zip", wrap=wrap, extra={f"{wrap}README": "hello"})], tmp_path / "out")
    assert (done.dataset, done.kept) == ("vistas", 0)
    found = contents(tmp_path / "out")
    assert found.pop("x/README") == b"hello"
    assert found == contents(source)
    assert len(Vistas(tmp_path / "out", "training+validation")) == 5


def test_the_parts_of_cityscapes_come_together(tmp_path):
    source = write_auto(write_cityscapes(tmp_path / "source"))
    archives = []
    for name, wrap in (("leftImg8bit", ""), ("gtFine", "some/folder/"), ("refinement_final", "")):
        part = tmp_path / name
        part.mkdir()
        (source / name).rename(part / name)
        archives.append(pack(part, tmp_path / f"{name}.zip", wrap=wrap, extra={"README": name}))
    assert [done.dataset for done in unpack(archives, tmp_path / "out")] == ["cityscapes"] * 3
    assert (tmp_path / "out/gtFine/README").read_text() == "gtFine"
    assert len(Cityscapes(tmp_path / "out", "train+train_extra", labels="auto")) == 6


def test_all_of_cityscapes_may_be_one_archive(tmp_path):
    source = write_auto(write_cityscapes(tmp_path / "source"))
    unpack([pack(source, tmp_path / "all.zip", wrap="cityscapes/")], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)


@pytest.mark.parametrize("wrap", ["", "refinement_final_v0/", "a/refinement_final/"])
def test_automatic_labels_find_their_folder(wrap, tmp_path):
    source = write_auto(tmp_path / "source")
    archive = pack(source / "refinement_final", tmp_path / "auto.zip", wrap=wrap)
    unpack([archive], tmp_path / "out")
    assert contents(tmp_path / "out/refinement_final") == contents(source / "refinement_final")


def test_an_interrupted_call_goes_on(tmp_path):
    source = write_vistas(tmp_path / "source")
    archive = pack(source, tmp_path / "x.zip")
    unpack([archive], tmp_path / "out")
    gone, cut = sorted((tmp_path / "out/training/images").iterdir())[:2]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:10])
    (done,) = unpack([archive], tmp_path / "out")
    assert (done.written, done.kept) == (2, 9)
    assert contents(tmp_path / "out") == contents(source)


def test_a_write_that_fails_leaves_no_part(tmp_path, monkeypatch):
    archive = pack(write_vistas(tmp_path / "source"), tmp_path / "x.zip")
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(NotWritten, match="No space left"):
        unpack([archive], tmp_path / "out")
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "name",
    ["../evil", "training/images/../../../evil", "/evil", "C:/evil", "..\\evil", "training\\..\\..\\evil"],
)
def test_a_path_that_leaves_the_folder_is_refused_before_anything_is_written(name, tmp_path):
    archive = tmp_path / "x.zip"
    pack(write_vistas(tmp_path / "source"), archive)
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr(zipfile.ZipInfo(name), "evil")
    with pytest.raises(
        ValueError, match=r"x\.zip must hold plain files of its own, got .*evil.*, whose path leaves the folder"
    ):
        unpack([archive], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("evil"))


def test_a_link_is_refused(tmp_path):
    archive = pack(write_vistas(tmp_path / "source"), tmp_path / "x.zip")
    link = zipfile.ZipInfo("training/images/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"link\.jpg', a link or a device"):
        unpack([archive], tmp_path / "out")


def test_an_encrypted_file_is_refused(tmp_path):
    archive = pack(write_vistas(tmp_path / "source"), tmp_path / "x.zip")
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the first entry of the central directory
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="which is encrypted"):
        unpack([archive], tmp_path / "out")


def test_a_cut_archive_is_named(tmp_path):
    archive = pack(write_vistas(tmp_path / "source"), tmp_path / "x.zip")
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"x\.zip must be a whole zip archive, got: .*; check the path or download it again"):
        unpack([archive], tmp_path / "out")


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.zip must be a whole zip archive, got: No such file"):
        unpack([tmp_path / "gone.zip"], tmp_path / "out")


def test_a_damaged_file_inside_is_named_and_not_kept(tmp_path):
    archive = pack(write_vistas(tmp_path / "source"), tmp_path / "x.zip")
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo("training/images/photo001.jpg")
    data = bytearray(archive.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + 50] ^= 255
    archive.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.zip cannot be read at 'training/images/photo001\.jpg' .*; download it again"):
        unpack([archive], tmp_path / "out")
    assert not (tmp_path / "out/training/images/photo001.jpg").exists()
    assert not list((tmp_path / "out").rglob("*.part"))


def test_another_archive_is_answered_with_what_is_expected(tmp_path):
    archive = tmp_path / "thesis.zip"
    archive.write_bytes(b"")
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("thesis/chapter.tex", "")
    with pytest.raises(ValueError, match=r"thesis\.zip must be a download of Mapillary Vistas .* or Cityscapes .*, got thesis"):
        unpack([archive], tmp_path / "out")


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    archive = pack(write_vistas(tmp_path / "source"), tmp_path / "x.zip")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(ValueError, match=r"unpacking needs 0\.0 GB, got 0\.0 GB free in .*; make room"):
        unpack([archive], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bytes_behind_the_names_of_a_mac_are_left_out(tmp_path):
    archive = pack(write_vistas(tmp_path / "source"), tmp_path / "x.zip", extra={"__MACOSX/training/._images": "x"})
    unpack([archive], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*_images"))
