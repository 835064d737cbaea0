"""Weights from where they lie to this machine: addresses, hashes, broken downloads, no network; from a real server here."""

import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from helpers import ROOT
from web_helpers import Server, serving

from vistalib.files import NotWritten, sha256
from vistalib.models import locate

pytest.importorskip("huggingface_hub")
CONTENT = bytes(range(256)) * 4000  # 1 MB
HASH = hashlib.sha256(CONTENT).hexdigest()
OTHER = "0" * 64
CHUNK = 100_000


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with one file, and an empty cache."""
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)  # what is written at a time: 10 MB else
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # a second before every new attempt
    with serving() as server:
        server.files["/weights.pth"] = CONTENT
        yield server


def test_an_address_is_fetched_once_and_kept(web: Server) -> None:
    first = locate(f"{web.address}/weights.pth")
    asked = len(web.asked)
    assert (first.name, first.read_bytes()) == ("weights.pth", CONTENT)
    assert locate(f"{web.address}/weights.pth") == first
    assert len(web.asked) == asked


def test_many_at_once_fetch_once(web: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(locate, [f"{web.address}/weights.pth"] * 4))
    assert {path.read_bytes() for path in found} == {CONTENT}
    assert [entry[0] for entry in web.asked].count("GET") == 1


@pytest.mark.parametrize(
    "path",
    ["/?id=3", "/" + 300 * "w" + ".pth?key=" + 300 * "k", "/a%2F..%2F..%2Fb.pth", "/%2e%2e", "/straße%20%5C.pth"],
    ids=["no name", "long", "slashes", "dots", "odd characters"],
)
def test_an_address_may_end_in_anything(path: str, web: Server, tmp_path: Path) -> None:
    address = f"{web.address}{path}"
    web.files[quote(path, safe="/?=%&")] = CONTENT
    found = locate(address)
    assert found.read_bytes() == CONTENT
    assert found.parent.parent == tmp_path / "cache" / "weights"


def test_a_broken_connection_is_taken_up_where_it_broke(web: Server) -> None:
    web.cuts = [350_000]
    assert sha256(locate(f"{web.address}/weights.pth")) == HASH
    assert [entry[2] for entry in web.asked if entry[0] == "GET"] == [None, "bytes=300000-"]


@pytest.mark.slow  # a process of its own
def test_a_killed_download_goes_on_in_the_next_process(web: Server, tmp_path: Path) -> None:
    address = f"{web.address}/weights.pth"
    web.cuts, web.hold = [450_000], True
    code = (
        f"import huggingface_hub.constants as c; c.DOWNLOAD_CHUNK_SIZE = {CHUNK}\n"
        f"from vistalib.models import locate; locate({address!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while process.poll() is None and not any(path.stat().st_size == 400_000 for path in tmp_path.rglob("*.part")):
        threading.Event().wait(0.05)
    process.kill()
    process.wait()
    web.asked.clear()
    web.hold = False
    assert sha256(locate(address)) == HASH
    assert [entry[2] for entry in web.asked if entry[0] == "GET"] == ["bytes=400000-"]


def test_what_is_left_of_another_version_is_not_gone_on_with(web: Server) -> None:
    address = f"{web.address}/weights.pth"
    web.cuts = [400_000] + [0] * 5
    with pytest.raises(ValueError, match="could not be fetched"):
        locate(address)
    web.files["/weights.pth"] = changed = CONTENT[::-1]
    assert locate(address).read_bytes() == changed


def test_without_a_tag_a_download_starts_anew(web: Server) -> None:
    web.tags = False
    web.cuts = [400_000] + [0] * 5
    with pytest.raises(ValueError, match="could not be fetched"):
        locate(f"{web.address}/weights.pth")
    web.asked.clear()
    assert sha256(locate(f"{web.address}/weights.pth")) == HASH
    assert [entry[2] for entry in web.asked if entry[0] == "GET"] == [None]


def test_a_given_hash_is_checked_and_the_error_names_both(web: Server) -> None:
    assert locate(f"{web.address}/weights.pth", sha256=HASH.upper()).read_bytes() == CONTENT
    with pytest.raises(
        ValueError, match=rf"must have the sha256 {OTHER}, .*got {HASH}; delete .*weights\.pth and fetch it again"
    ):
        locate(f"{web.address}/weights.pth", sha256=OTHER)


def test_a_download_with_the_wrong_hash_is_not_kept(web: Server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"must have the sha256 {OTHER}, got {HASH}; nothing was kept"):
        locate(f"{web.address}/weights.pth", sha256=OTHER)
    assert [path.name for path in tmp_path.rglob("*weights.pth*")] == []


def test_the_hash_of_the_first_download_is_asked_for_ever_after(web: Server) -> None:
    path = locate(f"{web.address}/weights.pth")
    damaged = bytearray(CONTENT)
    damaged[500_000] ^= 1
    path.write_bytes(damaged)
    expected = rf"sha256 {HASH}, as when it was first fetched, got {sha256(path)}; delete .*weights\.pth and fetch it again"
    with pytest.raises(ValueError, match=expected):
        locate(f"{web.address}/weights.pth")
    path.unlink()
    assert locate(f"{web.address}/weights.pth").read_bytes() == CONTENT


def test_a_file_that_its_publisher_changed_is_refused_until_its_record_is_deleted(web: Server) -> None:
    path = locate(f"{web.address}/weights.pth")
    path.unlink()
    web.files["/weights.pth"] = changed = CONTENT[::-1]
    with pytest.raises(ValueError, match="if its publisher has changed it") as refused:
        locate(f"{web.address}/weights.pth")
    (record,) = re.findall(r"\S+record\.json", str(refused.value))
    Path(record).unlink()
    assert locate(f"{web.address}/weights.pth").read_bytes() == changed


@pytest.mark.parametrize(
    ("path", "said"), [("/nowhere.pth", "404"), ("", "could not be fetched")], ids=["no such file", "nobody answers"]
)
def test_an_address_that_does_not_answer_is_named(web: Server, path: str, said: str) -> None:
    address = f"{web.address}{path}" if path else "http://127.0.0.1:9/weights.pth"
    with pytest.raises(ValueError, match=rf"{re.escape(address)} .*{said}.*; check the"):
        locate(address)


def test_without_a_network_what_is_in_the_cache_serves(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = locate(f"{web.address}/weights.pth")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate(f"{web.address}/weights.pth") == path
    with pytest.raises(ValueError, match=r"other\.pth is not in the cache and cannot be fetched .* HF_HUB_OFFLINE"):
        locate(f"{web.address}/other.pth")


def test_a_cache_that_cannot_be_written_is_named(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("a file where the cache should be")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "taken"))
    with pytest.raises(NotWritten, match=r"taken.*VISTALIB_CACHE moves the cache"):
        locate(f"{web.address}/weights.pth")


def test_a_file_that_exists_comes_first_and_its_hash_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "upernet_internimage_l_512x1024_80k_mapillary.pth").write_bytes(CONTENT)
    name = "upernet_internimage_l_512x1024_80k_mapillary.pth"
    assert locate(name, sha256=HASH) == Path(name)
    with pytest.raises(ValueError, match=f"{OTHER}, as sha256 says, got {HASH}"):
        locate(name, sha256=OTHER)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("upernet_internimage_l_512x1024_80k_mapilary", "did you mean upernet_internimage_l_512x1024_80k_mapillary"),
        ("nowhere.pth", "which is none"),
        ("runs/nowhere.pth", "which is none"),
        (Path("runs/nowhere"), "a file or a folder that exists"),
    ],
    ids=["a misspelled name", "no file", "no file in a folder", "no path"],
)
def test_what_is_nothing_is_refused(source: str | Path, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        locate(source)


@pytest.mark.parametrize("given", ["abc", "g" * 64, "sha256:" + OTHER], ids=["short", "no digits", "with a prefix"])
def test_a_hash_that_is_none_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        locate(tmp_path, sha256=given)
