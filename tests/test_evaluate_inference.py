from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vistalib.data import normalize, resize
from vistalib.evaluate import MULTI_SCALES, Window, inference, predict_labels, predict_probabilities
from vistalib.evaluate.inference import network_probabilities

RELEASED = np.load(Path(__file__).parent / "data" / "evaluate_released.npz")
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
SAME_SIZE = (64, 32)


class Pointwise(nn.Module):
    """Each pixel's logits from that pixel alone, at the size of the image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)
        draw = torch.Generator().manual_seed(0)
        nn.init.normal_(self.conv.weight, generator=draw)
        nn.init.zeros_(self.conv.bias)

    def forward(self, image):
        return self.conv(image)


class Quarter(Pointwise):
    """As a real model: logits at a quarter of the image, from blocks that mirroring maps onto each other."""

    def forward(self, image):
        return self.conv(nn.functional.avg_pool2d(image, 4))


class Ramp(nn.Module):
    """Blind to the image: class 1 grows likelier to the right."""

    def forward(self, image):
        columns = torch.linspace(-3, 3, image.shape[3] // 4).expand(1, 1, image.shape[2] // 4, -1)
        return torch.cat([-columns, columns], dim=1)


class Fixed(nn.Module):
    """The released network's recorded logits, whatever the image."""

    def forward(self, image):
        return torch.from_numpy(RELEASED["logits"]).unsqueeze(0)


class Recorder(Pointwise):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, image):
        self.seen.append(image.clone())
        return super().forward(image)


def test_the_network_sees_the_released_pixels():
    model = Recorder()
    predict_labels(model, RELEASED["image"], scale=(256, 128))
    mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    expected = (RELEASED["input_seen"] - mean) / std  # (128, 238, 3)
    # worst error measured: 0; the bound is one rounding of the formula
    torch.testing.assert_close(model.seen[0][0].permute(1, 2, 0), torch.from_numpy(expected), rtol=0, atol=2.5e-7)


def test_logits_become_the_released_probabilities():
    probabilities = network_probabilities(Fixed(), torch.zeros(1, 3, 64, 128), (50, 101))
    # worst error measured: 4e-9 with vector instructions, 7e-7 without (ATEN_CPU_CAPABILITY=default)
    torch.testing.assert_close(probabilities[0], torch.from_numpy(RELEASED["probabilities"]), rtol=0, atol=1e-6)


def test_logits_become_the_released_label_map():
    probabilities = network_probabilities(Fixed(), torch.zeros(1, 3, 64, 128), (50, 101))
    np.testing.assert_array_equal(probabilities[0].argmax(0), RELEASED["label"])


@pytest.mark.parametrize("size", [(32, 64), (37, 53), (64, 32)], ids=str)
def test_probabilities_have_the_size_of_the_image_and_sum_to_one(size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    total = predict_probabilities(Quarter(), image, scale=SAME_SIZE, scales=(0.5, 1.3), flip=True).sum(0)
    # worst error measured: 1.2e-7, one rounding
    torch.testing.assert_close(total, torch.ones(size), rtol=0, atol=5e-7)


def test_labels_are_the_most_probable_classes():
    labels = predict_labels(Quarter(), IMAGE, scale=SAME_SIZE)
    expected = predict_probabilities(Quarter(), IMAGE, scale=SAME_SIZE).argmax(0)
    np.testing.assert_array_equal(labels, expected)


def test_the_scales_multiply_the_box_that_the_image_fits():
    model = Recorder()
    predict_labels(model, IMAGE, scale=(128, 64), scales=MULTI_SCALES)
    assert [tuple(seen.shape[2:]) for seen in model.seen] == [(32, 64), (48, 96), (64, 128), (80, 160), (96, 192), (112, 224)]


def test_several_scales_average_their_probabilities():
    several = predict_probabilities(Quarter(), IMAGE, scale=SAME_SIZE, scales=(0.5, 1.0, 1.5))
    each = [predict_probabilities(Quarter(), IMAGE, scale=SAME_SIZE, scales=(ratio,)) for ratio in (0.5, 1.0, 1.5)]
    # worst error measured: 0; three terms may be summed in another order
    torch.testing.assert_close(several, torch.stack(each).mean(0), rtol=0, atol=2.5e-7)


def test_flip_changes_nothing_for_a_model_that_mirrors_with_its_image():
    once = predict_probabilities(Quarter(), IMAGE, scale=SAME_SIZE)
    both = predict_probabilities(Quarter(), IMAGE, scale=SAME_SIZE, flip=True)
    # worst error measured: 6e-8, sums taken in another order
    torch.testing.assert_close(both, once, rtol=0, atol=5e-7)


def test_flip_shows_the_mirrored_image():
    model = Recorder()
    predict_labels(model, IMAGE, scale=SAME_SIZE, flip=True)
    assert torch.equal(model.seen[1], model.seen[0].flip(3))


def test_flip_turns_the_mirrored_probabilities_back():
    both = predict_probabilities(Ramp(), IMAGE, scale=SAME_SIZE, flip=True)
    # left and right of a ramp average out; worst error measured: 0
    torch.testing.assert_close(both, both.flip(2), rtol=0, atol=2.5e-7)


@pytest.mark.parametrize(
    "window",
    [Window((16, 32), (16, 32)), Window((16, 32), (11, 21)), Window((20, 64), (7, 64)), Window((99, 99), (66, 66))],
    ids=["side by side", "overlapping", "whole width", "larger than the image"],
)
def test_sliding_equals_whole_for_a_pointwise_model(window):
    whole = predict_probabilities(Pointwise(), IMAGE, scale=SAME_SIZE)
    slid = predict_probabilities(Pointwise(), IMAGE, scale=SAME_SIZE, window=window)
    # worst error measured: 1.2e-7, the average of equal logits
    torch.testing.assert_close(slid, whole, rtol=0, atol=5e-7)


def test_the_last_window_is_moved_back_to_end_at_the_edge():
    places = [(rows.start, columns.start) for rows, columns in Window((16, 32), (11, 21)).places(32, 64)]
    assert places == [(0, 0), (0, 21), (0, 32), (11, 0), (11, 21), (11, 32), (16, 0), (16, 21), (16, 32)]


@pytest.mark.parametrize("size", [(50, 101), (200, 331), (64, 77)], ids=["smaller", "larger", "as high"])
@pytest.mark.parametrize("window", [None, Window((40, 50), (27, 33))], ids=["whole", "sliding"])
def test_bands_of_rows_make_the_same_probabilities_as_resizing_everything_at_once(monkeypatch, size, window):
    image = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    monkeypatch.setitem(inference.BANDS, "cpu", 5 * size[1] * 7)  # seven rows
    model = Quarter()
    banded = predict_probabilities(model, image, scale=(128, 64), scales=(0.7, 1.0), flip=True, window=window)
    expected = torch.stack(
        [at_once(model, image, ratio, mirrored, window) for ratio in (0.7, 1.0) for mirrored in (0, 1)]
    ).mean(0)
    # worst error measured: 8.9e-8, resizing rounds positions and sums otherwise
    torch.testing.assert_close(banded, expected, rtol=0, atol=1e-6)


def at_once(model, image, ratio, mirrored, window):
    """The definition, with tensors of the whole size and `interpolate` for both ways."""

    def to(size, maps):
        return nn.functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)

    pixels = normalize(resize(image, (int(128 * ratio), int(64 * ratio)))).unsqueeze(0)
    pixels = pixels.flip(3) if mirrored else pixels
    places = list(window.places(*pixels.shape[2:])) if window else [(slice(None), slice(None))]
    total, count = torch.zeros(1, 5, *pixels.shape[2:]), torch.zeros(pixels.shape[2:])
    for rows, columns in places:
        part = pixels[:, :, rows, columns]
        total[:, :, rows, columns] += to(part.shape[2:], model(part))
        count[rows, columns] += 1
    probabilities = to(image.shape[:2], total / count).softmax(1)[0].detach()
    return probabilities.flip(2) if mirrored else probabilities


@pytest.mark.parametrize("window", [None, Window((40, 50), (27, 33))], ids=["whole", "sliding"])
def test_no_tensor_on_the_way_to_the_labels_grows_with_the_photograph(monkeypatch, window):
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            nonlocal largest
            made = function(*arguments, **(named or {}))
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                largest = max(largest, made.numel())
            return made

    monkeypatch.setitem(inference.BANDS, "cpu", 2**14)
    with Largest():
        predict_labels(
            Quarter(), np.zeros((600, 800, 3), np.uint8), scale=(128, 64), scales=(0.5, 1.0), flip=True, window=window
        )
    assert largest < 2**15 < 5 * 600 * 800


def test_each_module_is_left_in_the_mode_it_was_in():
    model = nn.Sequential(Quarter(), nn.BatchNorm2d(5), nn.Dropout(0.5)).train()
    model[1].eval()
    predict_labels(model, IMAGE, scale=SAME_SIZE)
    assert [module.training for module in (model, *model)] == [True, True, False, True]


def test_dropout_is_off():
    model = nn.Sequential(Quarter(), nn.Dropout(0.5)).train()
    once, again = (predict_probabilities(model, IMAGE, scale=SAME_SIZE) for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize(
    "image",
    [IMAGE.astype(np.float32), IMAGE[..., 0], np.zeros((4, 4, 4), np.uint8)],
    ids=["float", "grey", "with alpha"],
)
def test_an_image_that_is_not_rgb_uint8_is_refused(image):
    with pytest.raises(ValueError, match="image must be RGB uint8"):
        predict_labels(Pointwise(), image)


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)], ids=["none", "zero", "negative"])
def test_scales_that_are_not_positive_are_refused(scales):
    with pytest.raises(ValueError, match="positive numbers"):
        predict_labels(Pointwise(), IMAGE, scales=scales)


@pytest.mark.parametrize("stride", [(0, 8), (8, 17)], ids=["zero", "wider than the crop"])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    with pytest.raises(ValueError, match="stride must lie between 1 and crop"):
        Window((16, 16), stride)
