"""Two ranks are one run: the same log, the same weights, stopped together, and resumed by any number of ranks."""

import json
from pathlib import Path

import pytest
from train_helpers import bits, differences, plain, settings, start_ranks, steady
from train_ranks import Power, Slices, fail, shared_score

from vistalib.train import fit, load_checkpoint, read_log

pytestmark = pytest.mark.slow
Ends = list[dict[str, str]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.raises(Power):
        fit(plain(), Slices(7, fail), settings(), folder=folder / "alone_first", evaluate=shared_score)
    fit(plain(), Slices(), settings(), folder=folder / "alone", evaluate=shared_score)
    start_ranks([str(Path(__file__).with_name("train_ranks.py")), str(folder)])
    fit(plain(), Slices(), settings(), folder=folder / "to_one", evaluate=shared_score, resume=True)
    return folder


@pytest.fixture(scope="module")
def ends(root: Path) -> Ends:
    """How the attempts ended, of rank 0 and of rank 1."""
    return [json.loads((root / f"rank_{rank}.json").read_text()) for rank in range(2)]


def test_two_ranks_log_what_one_process_logs(root: Path) -> None:
    found = differences(root / "whole", root / "alone")
    assert found["loss"] < 1e-5  # measured: 1e-7
    assert found["grad_norm"] < 1e-5  # measured: 3e-8
    assert found["lr"] == found["mean_iou"] == found["pixels"] == 0


def test_only_the_first_rank_hears_the_log(ends: Ends) -> None:
    # six lines of training, three of evaluation
    assert [end["whole"] for end in ends] == ["finished, 9 lines heard", "finished, 0 lines heard"]


def test_a_run_of_two_ranks_that_was_killed_and_resumed_ends_in_the_same_bits(root: Path, ends: Ends) -> None:
    assert [end["killed"] for end in ends] == ["Power: "] * 2
    assert bits(root / "killed") == bits(root / "whole")
    assert steady(read_log(root / "killed")) == steady(read_log(root / "whole"))


@pytest.mark.parametrize("resumed", ["to_one", "alone_first"], ids=["two ranks, then one", "one, then two ranks"])
def test_resuming_with_another_number_of_ranks_goes_on_with_the_same_samples(root: Path, resumed: str) -> None:
    assert differences(root / resumed, root / "whole")["loss"] < 1e-5  # measured: 1e-7
    first, second = (load_checkpoint(root / name).model for name in (resumed, "whole"))
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5  # measured: 2e-8


def test_what_one_rank_refuses_all_refuse(root: Path, ends: Ends) -> None:
    for end in ends:
        assert end["second"].startswith(f"ValueError: {root / 'whole'} already holds a run")


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_with_the_samples_of_all(ends: Ends) -> None:
    for end in ends:
        assert "not finite in iteration 4 (0-based), samples [16, 17, 18, 19]" in end["spoiled"]


def test_a_signal_to_one_rank_writes_a_checkpoint_and_stops_all(root: Path, ends: Ends) -> None:
    for end in ends:
        assert end["told"].startswith(f"Interrupted: interrupted; {root / 'told/checkpoints/iter_000006'} holds the run so far")
    assert bits(root / "told") == bits(root / "whole")


def test_accumulating_takes_the_same_steps(root: Path) -> None:
    assert differences(root / "accumulated", root / "whole")["loss"] < 1e-5  # measured: 1e-7
