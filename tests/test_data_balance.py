"""Class-balanced sampling: a pure function of seed and number, with the frequencies that were asked for."""

import numpy as np
import pytest
import torch
from data_helpers import write_folder

from vistalib.data import Augmentation, AugmentationSettings, ClassBalance, Folder, Sampler, TrainLoader, class_balance
from vistalib.recipes import get_recipe

# Images x classes: the first class is everywhere, the second in two images, the third in one, the fourth nowhere.
COUNTS = np.array([[900, 90, 0, 0], [980, 0, 0, 0], [900, 60, 10, 0], [1000, 0, 0, 0]])


def drawn(balance: ClassBalance, number: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    images, classes = zip(*(balance.draw(seed) for seed in np.random.SeedSequence(0).generate_state(number)))
    return np.array(images), np.array(classes)


@pytest.mark.parametrize("temperature", [0.3, *(pytest.param(t, marks=pytest.mark.slow) for t in (1.0, 100.0))])
def test_classes_come_as_often_as_the_softmax_says(temperature):
    share = COUNTS.sum(0)[:3] / COUNTS.sum()
    expected = np.exp((1 - share) / temperature)
    expected /= expected.sum()
    balance = ClassBalance(COUNTS, temperature)
    np.testing.assert_allclose(balance.probabilities, [*expected, 0])
    found = np.bincount(drawn(balance)[1], minlength=4) / 5000
    np.testing.assert_allclose(found, balance.probabilities, atol=0.025)  # 3.7 standard deviations; measured 0.015


def test_an_image_is_any_of_those_that_show_the_class():
    images, classes = drawn(ClassBalance(COUNTS, 1.0))
    shown = {c: np.bincount(images[classes == c], minlength=4) / (classes == c).sum() for c in range(3)}
    np.testing.assert_allclose(shown[0], [0.25] * 4, atol=0.04)  # measured 0.015
    np.testing.assert_allclose(shown[1], [0.5, 0, 0.5, 0], atol=0.04)  # measured 0.003
    np.testing.assert_array_equal(shown[2], [0, 0, 1, 0])


def test_a_low_temperature_draws_the_rarest_class_alone():
    assert set(drawn(ClassBalance(COUNTS, 0.001), 500)[1]) == {2}


def test_sample_n_is_a_function_of_seed_and_n():
    sampler, other = (Sampler(4, 7, ClassBalance(COUNTS, 1.0)) for _ in range(2))
    backwards = {n: other[n] for n in reversed(range(200))}
    assert [sampler[n] for n in range(200)] == [backwards[n] for n in range(200)]
    assert [sampler[n] for n in range(200)] != [Sampler(4, 8, ClassBalance(COUNTS, 1.0))[n] for n in range(200)]


def test_the_drawn_images_are_those_of_every_earlier_version():
    sampler = Sampler(4, 0, ClassBalance(COUNTS, 1.0))
    assert [sampler[n][0] for n in (0, 1, 2, 3, 4, 5, 6, 7, 10**12)] == [0, 2, 2, 3, 0, 2, 0, 0, 2]


def test_the_augmentation_of_a_sample_is_the_same_with_and_without():
    plain, balanced = Sampler(4, 3), Sampler(4, 3, ClassBalance(COUNTS, 1.0))
    assert [plain[n][1] for n in range(50)] == [balanced[n][1] for n in range(50)]


@pytest.mark.parametrize(("workers", "ranks"), [(2, 1), (0, 2)], ids=["workers", "ranks"])
def test_neither_workers_nor_ranks_nor_the_start_change_the_samples(workers, ranks, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    data = Folder(write_folder(tmp_path / "own"), "train")
    augmentation = Augmentation(AugmentationSettings(scale=(40, 24), crop=(16, 20)))
    balance = class_balance(data, 0.1)
    plain = TrainLoader(data, augmentation, batch_size=4, balance=balance).batches()
    parts = [
        TrainLoader(
            data, augmentation, batch_size=4, balance=balance, num_workers=workers, rank=rank, world_size=ranks
        ).batches(2)
        for rank in range(ranks)
    ]
    expected = [batch for _, batch in zip(range(4), plain)][2:]
    for batch, *found in zip(expected, *parts):
        assert all(torch.equal(batch[key], torch.cat([part[key] for part in found])) for key in batch)


def test_counts_come_from_the_index(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("VISTALIB_CACHE", str(tmp_path / "cache"))
    data = Folder(write_folder(tmp_path / "own"), "train")
    counts = np.array([np.bincount(data.read_label(i).ravel(), minlength=256)[: len(data.classes)] for i in range(len(data))])
    np.testing.assert_allclose(class_balance(data, 0.2).probabilities, ClassBalance(counts, 0.2).probabilities)


def test_recipes_take_each_image_once_an_epoch_unless_they_are_told():
    assert get_recipe("upernet_internimage_t_512x1024_160k_cityscapes").class_temperature is None


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match=r"must be above 0, got .*; try 0\.01"):
        ClassBalance(COUNTS, temperature)


def test_a_dataset_without_labelled_pixels_is_refused():
    with pytest.raises(ValueError, match="needs labelled pixels, got none"):
        ClassBalance(np.zeros((3, 2), np.int64), 0.01)
