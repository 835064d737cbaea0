"""Checkpoints: what they hold, how they are found, and what is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import run_with_torch
from safetensors.torch import save_file
from train_helpers import Noise, flip_a_bit, score, settings, tiny

from vistalib.train import DamagedCheckpoint, fit, load_checkpoint
from vistalib.train.checkpoint import keep_only, save_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(tiny(), Noise(), settings(), folder=folder, evaluate=score, about={"model": "tiny", "classes": ["a", "b", "c"]})
    return folder


def save(parent: Path, iteration: int) -> Path:
    tensors = {"weight": torch.full((3,), float(iteration))}
    return save_checkpoint(parent, iteration, model=tensors, optimizer=tensors, state={})


def test_run_folder_gives_its_last_checkpoint(run: Path) -> None:
    assert load_checkpoint(run).state["iteration"] == 12


def test_checkpoint_folder_gives_itself(run: Path) -> None:
    folder = next(path for path in sorted((run / "checkpoints").glob("iter_*")) if path.name != "iter_000012")
    assert load_checkpoint(folder).state["iteration"] == int(folder.name[5:])


def test_safetensors_file_gives_its_tensors(run: Path) -> None:
    found, whole = load_checkpoint(run / "checkpoints/iter_000012/model.safetensors"), load_checkpoint(run)
    assert found.state == {}
    assert all(torch.equal(value, whole.model[name]) for name, value in found.model.items())


def test_state_tells_settings_versions_and_what_the_caller_said(run: Path) -> None:
    state = load_checkpoint(run).state
    assert state["settings"]["learning_rate"] == 1e-2
    assert state["versions"]["torch"] == torch.__version__
    assert state["about"] == {"model": "tiny", "classes": ["a", "b", "c"]}


def test_weights_load_into_a_new_model(run: Path) -> None:
    model = tiny(seed=5)
    model.load_state_dict(load_checkpoint(run).model)
    saved = json.loads((run / "checkpoints/index.json").read_text())
    assert saved["last"] == "iter_000012"


def test_manifest_has_every_file(run: Path) -> None:
    folder = run / "checkpoints/iter_000012"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {path.name for path in folder.iterdir()} == {*manifest, "manifest.json"}


def test_damaged_checkpoint_that_was_named_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoints", 1)
    flip_a_bit(folder / "model.safetensors")
    with pytest.raises(DamagedCheckpoint, match=r"model.safetensors is not what was written .*sha256"):
        load_checkpoint(folder)


def test_damaged_last_checkpoint_of_a_run_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 1)
    flip_a_bit(save(tmp_path / "checkpoints", 2) / "model.safetensors")
    with pytest.warns(UserWarning, match="iter_000002.*going back to the one before it"):
        assert load_checkpoint(tmp_path).state["iteration"] == 1
    assert (tmp_path / "checkpoints/iter_000002").is_dir()  # reading changes nothing


def test_checkpoints_are_ordered_by_number(tmp_path: Path) -> None:
    for iteration in (999_999, 1_000_000, 2):
        save(tmp_path / "checkpoints", iteration)
    assert load_checkpoint(tmp_path).state["iteration"] == 1_000_000


def test_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    folders = [save(tmp_path, iteration) for iteration in range(1, 6)]
    keep_only(tmp_path, 2, best=folders[1], best_mean_iou=0.5)
    assert sorted(path.name for path in tmp_path.glob("iter_*")) == ["iter_000002", "iter_000004", "iter_000005"]


def test_checkpoint_written_twice_is_the_second(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 1)
    save_checkpoint(tmp_path / "checkpoints", 1, model={"weight": torch.zeros(2)}, optimizer={}, state={})
    assert load_checkpoint(tmp_path).model["weight"].tolist() == [0, 0]


@pytest.mark.parametrize("content", [b"", b"not tensors at all", b"\xff" * 64], ids=["empty", "text", "noise"])
def test_file_without_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights.safetensors must be a readable safetensors file"):
        load_checkpoint(tmp_path / "weights.safetensors")


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="must be a readable safetensors file"):
        load_checkpoint(path)


def test_pickled_file_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="nothing pickled is ever loaded"):
        load_checkpoint(tmp_path / "weights.pth")


def test_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no checkpoint; give a run's folder"):
        load_checkpoint(tmp_path)


def test_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist"):
        load_checkpoint(tmp_path / "nowhere")


def test_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(OSError, match=r"iter_000001 could not be written: .*make room or mend the folder"):
        save(tmp_path / "checkpoints", 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file to stand in for a full disk")
def test_full_disk_leaves_the_checkpoint_before_and_nothing_half_written(tmp_path: Path) -> None:
    script = (
        "import resource, signal, torch\n"
        "from pathlib import Path\n"
        "from vistalib.train.checkpoint import save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "small, large = {'w': torch.zeros(10)}, {'w': torch.zeros(100_000)}\n"
        f"parent = Path({str(tmp_path / 'checkpoints')!r})\n"
        "save_checkpoint(parent, 1, model=small, optimizer=small, state={})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    save_checkpoint(parent, 2, model=small, optimizer=large, state={})\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    assert "iter_000002 could not be written" in run_with_torch(script)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["iter_000001"]
    assert load_checkpoint(tmp_path).state["iteration"] == 1
