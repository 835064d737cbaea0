"""Weight files: what is read without running anything, what is refused, and that what is written comes back."""

import argparse
import io
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vistalib.files import NotWritten, sha256, write_json
from vistalib.models import read_weights
from vistalib.models.weight_files import write_weights

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.arange(4), "c.weight": torch.rand(3, 2).half()}
SUFFIXES = [".pth", ".safetensors"]


def same(found: dict[str, Any], expected: dict[str, torch.Tensor]) -> bool:
    """The same names in the same order, and the same tensors to the bit and the type."""
    return list(found) == list(expected) and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_comes_back_in_order(tmp_path: Path, suffix: str) -> None:
    write_weights(tmp_path / f"w{suffix}", TENSORS)
    assert same(read_weights(tmp_path / f"w{suffix}"), TENSORS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_of_a_large_tensor_is_written_without_the_rest(tmp_path: Path, suffix: str) -> None:
    large = torch.rand(1000, 1000)
    tensors = {"part": large[:2], "column": large[:3, 5], "again": large[:2]}
    write_weights(tmp_path / f"w{suffix}", tensors)
    assert same(read_weights(tmp_path / f"w{suffix}"), tensors)
    assert (tmp_path / f"w{suffix}").stat().st_size < 30_000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_names_of_one_tensor_are_two_tensors_in_the_file(tmp_path: Path, suffix: str) -> None:
    tensor = torch.rand(3)
    write_weights(tmp_path / f"w{suffix}", {"one": tensor, "two": tensor})
    assert same(read_weights(tmp_path / f"w{suffix}"), {"one": tensor, "two": tensor})


def test_a_safetensors_file_of_another_program_is_read_by_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"), {name: TENSORS[name] for name in sorted(TENSORS)})


def test_an_unknown_suffix_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.safetensors or \.pth files, got .*w\.ckpt"):
        write_weights(tmp_path / "w.ckpt", TENSORS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotWritten, match="could not be written"):
        write_weights(tmp_path / "taken" / f"w{suffix}", TENSORS)


def foreign(module: str, name: str, monkeypatch: pytest.MonkeyPatch, base: type = object) -> Any:
    """A class that a pickle knows under the name of a package that is not installed here."""
    kind = type(name, (base,), {"__module__": module})
    parts = module.split(".")
    for i in range(len(parts)):
        path = ".".join(parts[: i + 1])
        monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    setattr(sys.modules[module], name, kind)
    return kind


def test_numpy_values_beside_the_weights_are_read(tmp_path: Path) -> None:
    meta = {"epoch": np.int64(3), "mIoU": np.float64(0.86), "best": np.float32(1), "palette": np.eye(3, dtype=np.uint8)}
    torch.save({"meta": meta, "state_dict": TENSORS}, tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth")
    assert same(found["state_dict"], TENSORS)
    assert found["meta"]["mIoU"] == 0.86
    assert np.array_equal(found["meta"]["palette"], np.eye(3))


def test_an_optimizer_and_arguments_beside_the_weights_are_read(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.rand(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    content = {"model": OrderedDict(TENSORS), "optimizer": optimizer.state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth")
    assert same(found["model"], TENSORS)
    assert found["args"].lr == 0.1


@pytest.mark.parametrize(
    ("module", "name"),
    [("yacs.config", "CfgNode"), ("mmcv.utils.config", "ConfigDict"), ("addict.addict", "Dict")],
)
def test_a_configuration_beside_the_weights_is_read_as_a_dictionary(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The released classification trainer saves its yacs configuration, with sets in its attributes, into every checkpoint.
    kind = foreign(module, name, monkeypatch, dict)
    config = kind(MODEL=kind(DEPTHS=[1, 2]))
    config.__dict__["__deprecated_keys__"] = {"old"}
    torch.save({"model": TENSORS, "config": config}, tmp_path / "w.pth")
    monkeypatch.undo()
    found = read_weights(tmp_path / "w.pth")
    assert same(found["model"], TENSORS)
    assert (type(found["config"]), found["config"]["MODEL"]) == (OrderedDict, {"DEPTHS": [1, 2]})


def test_the_log_of_a_newer_trainer_beside_the_weights_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = foreign("mmengine.logging.history_buffer", "HistoryBuffer", monkeypatch)()
    log.__dict__.update(_log_history=np.arange(3.0), _count_history=np.ones(3, dtype=np.int64), max_length=1000)
    torch.save({"state_dict": TENSORS, "message_hub": {"loss": log}}, tmp_path / "w.pth")
    monkeypatch.undo()
    found = read_weights(tmp_path / "w.pth")
    assert same(found["state_dict"], TENSORS)
    assert found["message_hub"]["loss"].max_length == 1000


def test_what_is_not_known_to_be_harmless_is_named_with_the_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"model": TENSORS, "hooks": foreign("somewhere.deep", "Hook", monkeypatch)()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth .*also holds somewhere\.deep\.Hook, which could run code.*weights alone"):
        read_weights(tmp_path / "w.pth")


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "it ran"))


@pytest.mark.parametrize("place", ["in a checkpoint", "bare"])
def test_nothing_in_a_pickle_runs(place: str, tmp_path: Path) -> None:
    if place == "bare":
        (tmp_path / "w.pth").write_bytes(pickle.dumps({"state_dict": Trap(tmp_path / "ran")}, protocol=2))
    else:
        torch.save({"state_dict": TENSORS, "hook": Trap(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth must be a checkpoint of tensors"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_a_file_of_an_old_torch_is_read(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert same(read_weights(tmp_path / "w.pth")["state_dict"], TENSORS)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), torch.nn.Linear(1, 1)], ids=["list", "tensor", "module"])
def test_a_file_that_is_no_dictionary_of_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth must (hold a dictionary|be a checkpoint) of tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_a_suffix_is_told_by_its_content(suffix: str, tmp_path: Path) -> None:
    write_weights(tmp_path / f"w{suffix}", TENSORS)
    (tmp_path / f"w{suffix}").rename(tmp_path / "download")
    assert same(read_weights(tmp_path / "download"), TENSORS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_pointer_of_git_lfs_is_named(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"w{suffix}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ValueError, match="run `git lfs pull`"):
        read_weights(tmp_path / f"w{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99], ids=["empty", "a tenth", "half", "all but the end"])
def test_a_file_that_was_cut_is_refused_by_name(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    write_weights(path, {"weight": torch.rand(100, 100)})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"w\{suffix} must be a .*; copy or download it again"):
        read_weights(path)


def test_a_flipped_bit_in_a_pth_file_is_seen(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(10_000)}, buffer)
    content = bytearray(buffer.getvalue())
    content[len(content) // 2] ^= 4  # in the middle of the zeros
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth must be a checkpoint of tensors, .*copy or download it again"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("beside", ["manifest.json", "config.json"])
def test_a_flipped_bit_in_a_model_file_is_seen_by_the_hash_beside_it(beside: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, TENSORS)
    promise = {"sha256": sha256(path)}
    write_json(tmp_path / beside, {"model.safetensors": promise} if beside == "manifest.json" else promise)
    assert same(read_weights(tmp_path), TENSORS)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"its sha256 must be {promise['sha256']}, got {sha256(path)}; use another"):
        read_weights(tmp_path)
