"""Models from and to the Hub: its own client against a small server that answers what the client asks."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import run_python
from web_helpers import Server, serving

from vistalib.files import sha256
from vistalib.models import (
    RELEASED_FILES,
    Segmentor,
    create_model,
    from_pretrained,
    locate,
    push_to_hub,
    save_pretrained,
    to_released,
)
from vistalib.models.released_files import REPOSITORY, ReleasedFile

constants = pytest.importorskip("huggingface_hub.constants")
NANO = "upernet_internimage_nano"
IMAGE = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Hub without repositories, and empty caches."""
    with serving() as server:
        monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
        yield server


@pytest.fixture(scope="module")
def model() -> Segmentor:
    torch.manual_seed(1)
    return create_model(NANO, 3).eval()


@pytest.fixture
def saved(hub: Server, model: Segmentor, tmp_path: Path) -> Server:
    """The Hub with one saved model."""
    folder = save_pretrained(model, tmp_path / "saved", classes=["road", "sky", "car"])
    for path in folder.iterdir():
        hub.put("me/streets", path.name, path.read_bytes())
    return hub


@pytest.mark.parametrize("place", ["me/streets", "hf://me/streets", "me/streets@main", "me/streets:model.safetensors"])
def test_a_saved_model_comes_back_from_its_place(saved: Server, model: Segmentor, place: str) -> None:
    assert torch.equal(from_pretrained(place)(IMAGE), model(IMAGE))


def test_a_broken_download_from_the_hub_goes_on(hub: Server) -> None:
    content = bytes(range(256)) * 4000  # 1 MB
    hub.put("me/streets", "weights.pth", content)
    hub.cuts = [350_000]
    assert locate("me/streets:weights.pth").read_bytes() == content
    assert [asked for method, _, asked in hub.asked if method == "GET"] == [None, "bytes=300000-"]


def test_a_place_with_a_file_gives_the_weights_of_a_model_with_other_classes(saved: Server, model: Segmentor) -> None:
    other = create_model(NANO, 7, pretrained="hf://me/streets/model.safetensors")
    assert torch.equal(other.backbone.stem.conv1.weight, model.backbone.stem.conv1.weight)


def test_without_a_network_the_cache_serves_and_the_rest_is_refused(saved: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = locate("me/streets")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("me/streets") == fetched
    with pytest.raises(ValueError, match=r"hf://me/other@main/x\.pth is not in the cache .* connect once"):
        locate("me/other:x.pth")


def test_a_file_that_changed_after_its_first_download_is_refused(saved: Server) -> None:
    before = sha256(locate("me/streets") / "model.safetensors")
    saved.put("me/streets", "model.safetensors", b"changed")
    for path in Path(constants.HF_HUB_CACHE).glob("models--me--streets/snapshots/*/*"):
        path.unlink()  # the server has one commit, and the client believes that a commit does not change
    with pytest.raises(ValueError, match=rf"sha256 {before}, as when it was first fetched, got \w+; delete .*record\.json"):
        locate("me/streets")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("me/nothing", r"could not be fetched .*check the name"),
        ("me/streets:other.pth", r"does not exist; .*owner/name:file"),
        ("me/weights", r"does not exist; to take one file of a repository, give owner/name:file"),
    ],
    ids=["no repository", "no file", "no saved model"],
)
def test_what_is_not_on_the_hub_is_named(saved: Server, place: str, said: str) -> None:
    saved.put("me/weights", "weights.pth", b"")
    with pytest.raises(ValueError, match=said):
        locate(place)


def test_a_cache_of_the_hub_that_cannot_be_written_is_named(
    saved: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("a file where the cache should be")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "taken"))
    with pytest.raises(OSError, match=r"taken.* could not be written.*HF_HOME moves the cache"):
        locate("me/streets")


def test_a_cache_without_room_for_the_hash_is_named(saved: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("a file where our own cache should be")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "taken"))
    with pytest.raises(OSError, match=r"taken.* could not be written.*VISTALIB_CACHE moves the cache"):
        locate("me/streets")


def released(monkeypatch: pytest.MonkeyPatch, hub: Server, name: str, path: Path, digest: str) -> None:
    """Let the Hub have a small file in the place of the released one called `name`."""
    hub.put(REPOSITORY, f"{name}.pth", path.read_bytes())
    monkeypatch.setitem(RELEASED_FILES, name, ReleasedFile(name, 1, digest))


def test_a_released_name_is_fetched_and_checked_against_its_published_hash(
    hub: Server, model: Segmentor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "upernet_internimage_l_512x1024_80k_mapillary"
    torch.save(to_released(model.state_dict()), tmp_path / "small.pth")
    published = RELEASED_FILES[name].sha256
    released(monkeypatch, hub, name, tmp_path / "small.pth", published)
    with pytest.raises(ValueError, match=rf"sha256 {published}, as published or given, got {sha256(tmp_path / 'small.pth')}"):
        create_model(NANO, 3, pretrained=name)
    released(monkeypatch, hub, name, tmp_path / "small.pth", sha256(tmp_path / "small.pth"))
    assert torch.equal(create_model(NANO, 3, pretrained=name).eval()(IMAGE), model(IMAGE))


def test_pushing_makes_a_repository_that_opens_again(hub: Server, model: Segmentor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    address = push_to_hub(model, "me/new", token="hf_right", licence="cc-by-nc-sa-4.0", datasets=["my streets"])
    assert address.startswith(f"{hub.address}/me/new/commit/")
    card = hub.files["/me/new/resolve/main/README.md"].decode()
    assert 'license: "cc-by-nc-sa-4.0"' in card
    assert 'from_pretrained("me/new")' in card
    assert torch.equal(from_pretrained("me/new")(IMAGE), model(IMAGE))


def test_pushing_without_the_right_token_is_refused_with_the_repair(hub: Server, model: Segmentor) -> None:
    with pytest.raises(ValueError, match=r"me/new could not be written .*hf auth login"):
        push_to_hub(model, "me/new", token="hf_wrong")


@pytest.mark.slow  # a process of its own
def test_the_settings_of_the_hubs_client_count(saved: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", saved.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert run_python("from vistalib.models import from_pretrained; print(from_pretrained('me/streets').config.classes)") == (
        "('road', 'sky', 'car')"
    )
    assert list((tmp_path / "home").rglob("model.safetensors")) != []


def test_without_the_client_of_the_hub_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="pip install huggingface-hub"):
        locate("me/streets")
