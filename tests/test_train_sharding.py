"""Two ranks that share out the weights, gradients and moments take the steps of two that copy them, and of one process."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from train_helpers import bits, differences, flip_a_bit, plain, settings, start_ranks, steady
from train_ranks import Power, Slices, fail
from train_sharding import parts, score_five

from vistalib.models import FCNHead, InternImage, Segmentor, UPerHead
from vistalib.train import fit, load_checkpoint, read_log
from vistalib.train.checkpoint import read_checkpoint
from vistalib.train.sharding import read_parts

SCRIPT = str(Path(__file__).with_name("train_sharding.py"))
Ends = list[dict[str, Any]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharding")
    with pytest.raises(Power):
        fit(parts(), Slices(7, fail), settings(), folder=folder / "alone_first", evaluate=score_five)
    fit(parts(), Slices(), settings(), folder=folder / "alone", evaluate=score_five)
    start_ranks([SCRIPT, str(folder)])
    fit(parts(), Slices(), settings(shard=True), folder=folder / "to_one", evaluate=score_five, resume=True)
    return folder


@pytest.fixture(scope="module")
def ends(root: Path) -> Ends:
    """How the attempts ended, of rank 0 and of rank 1."""
    return [json.loads((root / f"rank_{rank}.json").read_text()) for rank in range(2)]


def apart(folder: Path, other: Path, *, without: tuple[str, ...] = ()) -> float:
    """The largest difference of two runs' weights and buffers."""
    first, second = (load_checkpoint(path).model for path in (folder, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first if name not in without)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "_accumulated", "_frozen", "_bf16", "_fp16", "_averaged"])
def test_shared_weights_take_the_steps_of_copied_ones(root: Path, kind: str) -> None:
    found = differences(root / f"copied{kind}", root / f"sharded{kind}")
    assert found["loss"] < 1e-6  # measured: 0
    assert found["grad_norm"] < 1e-6  # measured: 2e-8
    assert found["lr"] == found["mean_iou"] == found["pixels"] == 0
    assert apart(root / f"copied{kind}", root / f"sharded{kind}") < 1e-6  # measured: 2e-8, accumulated 2e-7


@pytest.mark.slow
def test_in_float64_they_are_the_same(root: Path) -> None:
    assert differences(root / "copied_double", root / "sharded_double")["grad_norm"] < 1e-15  # measured: 3e-17
    assert apart(root / "copied_double", root / "sharded_double") < 1e-15  # measured: 0


@pytest.mark.slow
def test_two_ranks_that_share_log_what_one_process_logs(root: Path) -> None:
    found = differences(root / "sharded", root / "alone")
    assert found["loss"] < 1e-5  # measured: 2e-7
    assert found["grad_norm"] < 1e-5  # measured: 2e-8
    assert found["mean_iou"] == 0
    assert apart(root / "sharded", root / "alone") < 1e-5  # measured: 3e-8


@pytest.mark.slow
def test_dropout_and_running_statistics_are_those_of_copies(root: Path) -> None:
    found = differences(root / "copied_norms", root / "sharded_norms")
    assert found["loss"] < 1e-6  # measured: 2e-7
    assert found["mean_iou"] < 1e-3  # measured: 0
    # A bias before a batch norm has no gradient but rounding, which AdamW makes large, and the running mean follows it.
    moved = ("stem.bias", "norm.running_mean")
    assert apart(root / "copied_norms", root / "sharded_norms", without=moved) < 1e-5  # measured: 2e-8


@pytest.mark.slow
def test_each_rank_keeps_half_of_the_weights_and_moments(ends: Ends) -> None:
    for held in (end["held"] for end in ends):
        assert held["weights"] == pytest.approx(held["numbers"] / 2, abs=10)
        assert held["memory"] == pytest.approx(held["numbers"] / 2, abs=10)  # rows are padded to the same number
        assert held["moments"] == 2 * held["weights"]
    assert sum(end["held"]["weights"] for end in ends) == ends[0]["held"]["numbers"]


@pytest.mark.slow
def test_the_model_is_whole_in_an_evaluation_and_in_the_end_alone(ends: Ends) -> None:
    for end in ends:
        assert (end["held"]["left"], end["held"]["lent"], end["held"]["left_again"]) == (0, end["held"]["numbers"], 0)
        assert re.fullmatch(r"finished with (0\.\d+), then \1", end["sharded"])
        assert end["sharded"] == end["copied"]


@pytest.mark.slow
def test_a_step_that_is_not_finite_on_one_rank_changes_no_weight_of_any(ends: Ends) -> None:
    for end in ends:
        assert end["held"]["changed"] == 0
        assert "not finite in iteration 4 (0-based), samples [16, 17, 18, 19]" in end["spoiled"]


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_in_the_same_bits(root: Path, ends: Ends) -> None:
    assert [end["killed"] for end in ends] == ["Power: "] * 2
    assert bits(root / "killed") == bits(root / "sharded_norms")
    assert steady(read_log(root / "killed")) == steady(read_log(root / "sharded_norms"))


@pytest.mark.slow
def test_an_average_of_shared_weights_is_resumed_to_the_bit(root: Path, ends: Ends) -> None:
    assert [end["killed_averaged"] for end in ends] == ["Power: "] * 2
    assert bits(root / "killed_averaged") == bits(root / "sharded_averaged")
    assert apart(root / "sharded_averaged", root / "sharded_accumulated") > 1e-3  # which takes the same steps


@pytest.mark.slow
@pytest.mark.parametrize("resumed", ["to_one", "to_copies", "alone_first"], ids=["by one", "by copies", "after one"])
def test_any_number_of_ranks_goes_on_from_a_checkpoint(root: Path, resumed: str) -> None:
    assert differences(root / resumed, root / "sharded")["loss"] < 1e-5  # measured: 3e-7
    assert apart(root / resumed, root / "sharded") < 1e-5  # measured: 3e-8


@pytest.mark.slow
def test_checkpoints_have_the_files_and_tensors_of_any_other(root: Path) -> None:
    first, second = (root / name / "checkpoints/iter_000012" for name in ("copied", "sharded"))
    assert sorted(path.name for path in first.iterdir()) == sorted(path.name for path in second.iterdir())
    assert [path.name for path in (root / "sharded/checkpoints").glob(".*")] == []
    first, second = (read_checkpoint(folder, optimizer=True) for folder in (first, second))
    for copied, shared in ((first.model, second.model), (first.optimizer, second.optimizer)):
        assert {name: (tensor.shape, tensor.dtype) for name, tensor in copied.items()} == {
            name: (tensor.shape, tensor.dtype) for name, tensor in shared.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_flipped_bit_is_found_and_the_checkpoint_before_is_used(root: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(root / "sharded", tmp_path / "run")
    flip_a_bit(tmp_path / "run/checkpoints/iter_000012" / name)
    with pytest.warns(UserWarning, match="iter_000012.*going back to the one before it"):
        fit(parts(), Slices(), settings(), folder=tmp_path / "run", evaluate=score_five, resume=True)
    assert apart(tmp_path / "run", root / "sharded") < 1e-5  # measured: 3e-8


def test_what_a_rank_wrote_is_joined_by_rows_and_missed_where_it_is_not_there(tmp_path: Path) -> None:
    rows = torch.arange(10.0).reshape(5, 2)
    for name, first, last in (("b", 0, 3), ("a", 3, 5)):  # in another order than that of the names
        places = {"weight": {"saved_offsets": [first, 0]}}
        save_file({"weight": rows[first:last]}, tmp_path / f"{name}.safetensors", {"DCP_SHARDING_INFO": json.dumps(places)})
    assert torch.equal(read_parts(tmp_path, {"weight": rows.shape})["weight"], rows)
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(OSError, match=r"holds \(3, 2\) of weight, not all of \(5, 2\)"):
        read_parts(tmp_path, {"weight": rows.shape})


@pytest.mark.slow
def test_a_rank_that_cannot_write_stops_all_and_leaves_nothing(root: Path, ends: Ends) -> None:
    for end in ends:
        assert f"could not be written in {root / 'in_the_way/checkpoints'}: File exists; make room or mend" in end["in_the_way"]
        assert f"could not be written in {root / 'full/checkpoints'}: rank 1: " in end["full"]
    assert list((root / "full/checkpoints").iterdir()) == []


@pytest.mark.slow
def test_torchrun_restarts_a_run_of_which_a_rank_was_killed(root: Path) -> None:
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    place = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, SCRIPT, str(root)],
        env=place,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "SIGKILL" in done.stderr or "exitcode: -9" in done.stderr
    assert bits(root / "restarted") == bits(root / "sharded_norms")
    assert steady(read_log(root / "restarted")) == steady(read_log(root / "sharded_norms"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trial forks")
def test_either_rank_killed_at_any_touch_of_the_folder(tmp_path: Path) -> None:
    script = Path(__file__).with_name("train_sharding_kills.py")
    done = subprocess.run([sys.executable, script, tmp_path, "13"], capture_output=True, text=True, check=True)
    kills, different = map(int, done.stdout.split())
    assert kills >= 9
    assert different == 0, done.stderr


def test_one_process_has_nothing_to_share_and_trains_as_without(tmp_path: Path) -> None:
    for name, shared in (("with", True), ("without", False)):
        fit(plain(), Slices(), settings(shard=shared), folder=tmp_path / name)
    assert bits(tmp_path / "with") == bits(tmp_path / "without")


def test_shared_weights_are_not_compiled() -> None:
    with pytest.raises(ValueError, match="compile must be False where weights are sharded, got True; try compile=False"):
        settings(shard=True, compile=True)


def test_a_segmentor_is_gathered_block_by_block_and_head_by_head() -> None:
    backbone = InternImage(8, (1, 2, 1, 1), (1, 2, 4, 8))
    head = UPerHead(backbone.out_channels, channels=8, num_classes=5)
    model = Segmentor(backbone, head, FCNHead(32, channels=8, num_classes=5))
    names = {module: name for name, module in model.named_modules()}
    assert [names[unit] for unit in model.units()] == [
        *("backbone.stages.0.blocks.0", "backbone.stages.1.blocks.0", "backbone.stages.1.blocks.1"),
        *("backbone.stages.2.blocks.0", "backbone.stages.3.blocks.0", "decode_head", "auxiliary_head"),
    ]
