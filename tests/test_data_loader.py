"""Sampler and loader: sample n is the same whatever the workers, the ranks and the step that one starts from."""

import multiprocessing
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from data_helpers import write_folder

from vistalib.data import Augmentation, AugmentationSettings, Folder, Sampler, TrainLoader

AUGMENTATION = Augmentation(AugmentationSettings(scale=(40, 24), crop=(16, 20)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(write_folder(tmp_path_factory.mktemp("own")), "train")


def take(loader: TrainLoader, steps: int, start: int = 0) -> list[dict[str, torch.Tensor]]:
    return list(islice(loader.batches(start), steps))


def assert_same(batches: list[dict[str, torch.Tensor]], others: list[dict[str, torch.Tensor]]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[key], other[key]) for key in batch)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_each_epoch_shows_every_image_once(epoch):
    sampler = Sampler(11, seed=3)
    assert sorted(sampler[n][0] for n in range(epoch * 11, epoch * 11 + 11)) == list(range(11))


def test_epochs_have_orders_of_their_own():
    sampler = Sampler(50, seed=0)
    assert [sampler[n][0] for n in range(50)] != [sampler[n][0] for n in range(50, 100)]


def test_seeds_have_orders_of_their_own():
    assert [Sampler(50, 0)[n][0] for n in range(50)] != [Sampler(50, 1)[n][0] for n in range(50)]


def test_augmentation_seeds_do_not_repeat():
    sampler = Sampler(5, seed=0)
    assert len({sampler[n][1] for n in range(2000)}) == 2000


def test_the_order_is_the_one_of_every_earlier_version():
    sampler = Sampler(8, seed=0)
    frozen = [(7, 3964924996), (3, 901243215), (4, 253989330), (2, 1236819798), (1, 930799805)]
    assert [sampler[n] for n in (0, 1, 7, 8, 10**12)] == frozen


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_take_consecutive_slices_of_each_batch(world_size):
    sampler = Sampler(100, seed=0)
    parts = [sampler.step(4, batch_size=6, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [n for part in parts for n in part] == list(range(24, 30))


def test_batches_have_the_promised_shapes(dataset):
    batch = take(TrainLoader(dataset, AUGMENTATION, batch_size=3), 1)[0]
    assert (batch["image"].shape, batch["image"].dtype) == ((3, 3, 16, 20), torch.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((3, 16, 20), torch.int64)
    assert batch["sample"].tolist() == [0, 1, 2]


def test_a_batch_holds_the_samples_its_numbers_name(dataset):
    loader = TrainLoader(dataset, AUGMENTATION, batch_size=2, seed=5)
    batch = take(loader, 1, start=9)[0]
    for place, n in enumerate(batch["sample"].tolist()):
        index, seed = Sampler(len(dataset), 5)[n]
        image, label = AUGMENTATION(*dataset.read(index), np.random.RandomState(seed))
        assert torch.equal(batch["image"][place], image)
        assert torch.equal(batch["label"][place], label)


def test_batches_cross_epochs(dataset):
    numbers = [n for batch in take(TrainLoader(dataset, AUGMENTATION, batch_size=3), 4) for n in batch["sample"].tolist()]
    assert numbers == list(range(12))  # 5 images: the second batch crosses into the second epoch


def test_starting_at_a_step_gives_what_an_uncut_run_gives_there(dataset):
    loader = TrainLoader(dataset, AUGMENTATION, batch_size=2, seed=1)
    assert_same(take(loader, 3, start=4), take(loader, 7)[4:])


@pytest.mark.parametrize("colors_on", [None, "cpu"], ids=["colours in workers", "colours on a device"])
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_change_nothing(method, colors_on, dataset):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    plain = take(TrainLoader(dataset, AUGMENTATION, batch_size=2), 5)
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        assert_same(plain, take(TrainLoader(dataset, AUGMENTATION, batch_size=2, num_workers=2, colors_on=colors_on), 5))
    finally:
        multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_threads_of_opencv_in_the_parent_change_nothing(method, dataset):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    plain, threads = take(TrainLoader(dataset, AUGMENTATION, batch_size=2), 3), cv2.getNumThreads()
    cv2.setNumThreads(4)
    large = np.zeros((2000, 2000, 3), np.uint8)
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        cv2.resize(large, (3000, 3000))  # its threads are there when the workers start
        assert_same(plain, take(TrainLoader(dataset, AUGMENTATION, batch_size=2, num_workers=2), 3))
    finally:
        multiprocessing.set_start_method(before, force=True)
        cv2.setNumThreads(threads)


def test_two_ranks_see_together_what_one_sees(dataset):
    whole = take(TrainLoader(dataset, AUGMENTATION, batch_size=4), 3)
    ranks = [take(TrainLoader(dataset, AUGMENTATION, batch_size=4, rank=rank, world_size=2), 3) for rank in range(2)]
    assert_same(whole, [{key: torch.cat([first[key], second[key]]) for key in first} for first, second in zip(*ranks)])


def test_the_loader_leaves_the_global_random_streams_alone(dataset):
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    take(TrainLoader(dataset, AUGMENTATION, batch_size=2), 2)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_file_is_named_without_a_workers_traceback(num_workers, tmp_path):
    root = write_folder(tmp_path)
    (root / "images" / "train" / "02.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"^[^\n]*02\.jpg must be a whole JPEG[^\n]*$"):
        take(TrainLoader(Folder(root, "train"), AUGMENTATION, batch_size=5, num_workers=num_workers), 1)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"batch_size": 3, "world_size": 2}, "try batch_size=4"),
        ({"batch_size": 0}, "try batch_size=1"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, r"rank must lie in 0\.\.1, got 2"),
        ({"batch_size": 2, "seed": -1}, "seed of at least 0"),
    ],
    ids=["uneven", "empty", "rank", "seed"],
)
def test_impossible_loaders_are_refused(wrong, rule, dataset):
    with pytest.raises(ValueError, match=rule):
        TrainLoader(dataset, AUGMENTATION, **wrong)
