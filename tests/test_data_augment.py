"""The released pipeline, byte for byte: tests/data/pipeline was recorded from it (the versions are in the JSON)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vistalib.data import augment
from vistalib.data.augment import Augmentation, AugmentationSettings

RECORDED = Path(__file__).parent / "data" / "pipeline"
FACTS = json.loads((RECORDED / "pipeline.json").read_text())
PIPELINE = {"scale": (256, 128), "ratio_range": (0.5, 1.0), "crop": (64, 128)}


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(RECORDED / "pipeline.npz") as arrays:
        return dict(arrays)


def rgb(bgr: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bgr[..., ::-1])


@pytest.mark.parametrize("case", FACTS["resize"], ids=lambda case: "x".join(map(str, case["scale"])))
def test_resize_gives_the_released_bytes(case, recorded):
    image = augment.resize(rgb(recorded["img_bgr_uint8"]), tuple(case["scale"]))
    np.testing.assert_array_equal(image, rgb(recorded[f"resize{case['i']}_img"]))


@pytest.mark.parametrize("case", FACTS["resize"], ids=lambda case: "x".join(map(str, case["scale"])))
def test_resize_label_gives_the_released_bytes(case, recorded):
    label = augment.resize_label(recorded["label_uint8"], tuple(case["scale"]))
    np.testing.assert_array_equal(label, recorded[f"resize{case['i']}_label"])


@pytest.mark.parametrize("case", FACTS["sizes"], ids=lambda case: f"{case['w']}x{case['h']} in {case['scale'][0]}")
def test_real_sizes_are_fitted_as_released(case):
    assert augment.fitted_size(case["h"], case["w"], tuple(case["scale"])) == tuple(case["new_w_h"])


@pytest.mark.parametrize("case", FACTS["ratio"], ids=lambda case: f"seed {case['seed']}")
def test_the_scale_is_drawn_as_released(case):
    drawn = augment.draw_scale((2048, 1024), (0.5, 1.0), np.random.RandomState(case["seed"]))
    assert drawn == tuple(case["scale"])


@pytest.mark.parametrize("case", FACTS["crop"], ids=lambda case: f"{case['label']} {case['seed']}")
def test_the_crop_is_drawn_again_as_often_as_released(case, recorded):
    label = recorded[f"crop_label_{case['label']}"]
    rng, plain = np.random.RandomState(case["seed"]), np.random.RandomState(case["seed"])
    rows, columns = augment.draw_crop(label, (40, 64), 0.75, rng)
    assert [rows.start, rows.stop, columns.start, columns.stop] == case["used"]
    for _ in range(case["draws"]):
        plain.randint(0, label.shape[0] - 40 + 1), plain.randint(0, label.shape[1] - 64 + 1)
    assert rng.randint(1 << 30) == plain.randint(1 << 30)


@pytest.mark.parametrize("seed", range(8))
def test_color_distortion_gives_the_released_bytes(seed, recorded):
    image = augment.distort_colors(rgb(recorded["img_bgr_uint8"]), np.random.RandomState(seed))
    np.testing.assert_array_equal(image, rgb(recorded[f"pmd_seed{seed}"]))


@pytest.mark.parametrize("case", FACTS["colors"], ids=lambda case: f"seed {case['seed']}")
def test_color_distortion_makes_the_released_draws(case):
    rng, plain = np.random.RandomState(case["seed"]), np.random.RandomState(case["seed"])
    augment.distort_colors(np.zeros((2, 2, 3), np.uint8), rng)
    for kind, bounds, value in case["draws"]:
        assert getattr(plain, kind)(*bounds) == value
    assert rng.randint(1 << 30) == plain.randint(1 << 30)


def test_normalize_gives_the_released_bytes(recorded):
    normalized = augment.normalize(rgb(recorded["img_bgr_uint8"]))
    np.testing.assert_array_equal(normalized.permute(1, 2, 0), recorded["normalize"])


@pytest.mark.parametrize("seed", range(4))
def test_the_whole_pipeline_gives_the_released_image(seed, recorded):
    label = recorded["mapillary_lut"][recorded["pipe_label"]]
    image, _ = Augmentation(AugmentationSettings(**PIPELINE))(rgb(recorded["pipe_img_bgr"]), label, np.random.RandomState(seed))
    np.testing.assert_array_equal(image, recorded[f"pipe_seed{seed}_img"])


@pytest.mark.parametrize("seed", range(4))
def test_the_whole_pipeline_gives_the_released_label(seed, recorded):
    label = recorded["mapillary_lut"][recorded["pipe_label"]]
    _, target = Augmentation(AugmentationSettings(**PIPELINE))(
        rgb(recorded["pipe_img_bgr"]), label, np.random.RandomState(seed)
    )
    assert target.dtype == torch.int64
    np.testing.assert_array_equal(target[None], recorded[f"pipe_seed{seed}_label"])


def test_the_evaluation_pipeline_gives_the_released_image(recorded):
    image = augment.normalize(augment.resize(rgb(recorded["pipe_img_bgr"]), (256, 128)))
    np.testing.assert_array_equal(image, recorded["test_pipe_img"])


def test_a_small_image_is_padded_with_mean_gray_and_ignored_labels():
    settings = AugmentationSettings(scale=(10, 10), ratio_range=None, crop=(16, 12), flip=0, photometric=False)
    image, label = np.full((10, 10, 3), 255, np.uint8), np.zeros((10, 10), np.uint8)
    padded, target = Augmentation(settings)(image, label, np.random.RandomState(0))
    outside = torch.ones(16, 12, dtype=torch.bool)
    outside[:10, :10] = False
    assert torch.equal(padded.any(0), ~outside)
    assert torch.equal(target == 255, outside)


def test_flip_mirrors_image_and_label_together():
    settings = AugmentationSettings(scale=(8, 8), ratio_range=None, crop=(8, 8), flip=1, photometric=False)
    label = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image, target = Augmentation(settings)(np.repeat(label[..., None], 3, 2), label, np.random.RandomState(0))
    np.testing.assert_array_equal(target, label[:, ::-1])
    np.testing.assert_array_equal(image, augment.normalize(np.repeat(label[:, ::-1, None], 3, 2)))


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"scale": (0, 10)}, "scale and crop must be at least 1 pixel"),
        ({"ratio_range": (2.0, 0.5)}, "ratio_range must be"),
        ({"cat_max_ratio": 0.0}, "cat_max_ratio must lie in"),
        ({"flip": 1.5}, "flip in"),
    ],
    ids=["scale", "ratio_range", "cat_max_ratio", "flip"],
)
def test_settings_out_of_range_are_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        AugmentationSettings(**wrong)


@pytest.mark.parametrize("limit", [0.75, 0.7, 0.1])
@pytest.mark.parametrize("seed", range(40))
def test_a_crop_is_mixed_as_its_histogram_says(seed: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 80, 2)
    shares = rng.dirichlet([0.3] * 5)
    label = rng.choice(np.array([0, 1, 7, 18, 255], np.uint8), (height, width), p=shares)
    label[::16, ::16] = rng.choice([3, 7, 255])  # those that are looked at first need not be like the others
    counts = np.bincount(label.ravel(), minlength=256)[:255]
    expected = counts.sum() > 0 and counts.max() / counts.sum() < limit
    assert augment._is_mixed(label, limit) == expected


@pytest.mark.parametrize("most", [6, 7, 8])
def test_a_class_at_the_limit_is_too_much(most: int) -> None:
    label = np.repeat(np.array([5, 9], np.uint8), [most, 10 - most])[None]
    assert augment._is_mixed(label, 0.7) == (most < 7)
