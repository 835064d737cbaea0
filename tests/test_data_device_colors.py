"""Colours changed on a device: the bytes of the CPU's path, for every colour, draw and padding."""

import cv2
import numpy as np
import pytest
import torch
from data_helpers import write_folder

from vistalib.data import Augmentation, AugmentationSettings, Folder, TrainLoader
from vistalib.data.augment import Crop
from vistalib.data.colors import HUES, distort, draw_distortion, normalize
from vistalib.data.device_colors import DeviceColors, _everything, _last_few, _place, conversions, packed


def assert_same_bytes(seed: int, device: str) -> None:
    rng = np.random.RandomState(seed)
    height, width = rng.randint(1, 140, 2)
    image = rng.randint(0, 256, (height, width, 3), np.uint8)
    distortion = draw_distortion(rng)
    crop = {key: value[None] for key, value in packed(Crop(image, image[..., 0] % 19, distortion), (height, width)).items()}
    found = DeviceColors(device)(crop | {"sample": torch.tensor([0])})
    assert torch.equal(found["image"][0].cpu(), normalize(distort(image, distortion)))
    assert found["image"].is_contiguous()


@pytest.mark.parametrize("seed", range(24))
def test_every_draw_gives_the_bytes_of_the_workers_path(seed):
    assert_same_bytes(seed, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_bytes_of_the_workers_path():
    for seed in range(24):
        assert_same_bytes(seed, "cuda")


@pytest.mark.parametrize("scale", [(80, 48), (14, 10)], ids=["cropped", "padded"])
def test_batches_have_the_bytes_of_the_workers_path(scale, tmp_path):
    data = Folder(write_folder(tmp_path), "train")
    augmentation = Augmentation(AugmentationSettings(scale=scale, crop=(20, 28)))
    plain = TrainLoader(data, augmentation, batch_size=4).batches()
    other = TrainLoader(data, augmentation, batch_size=4, colors_on="cpu").batches()
    for _, one, two in zip(range(10), plain, other):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) and one[key].dtype == two[key].dtype for key in one)


def test_without_distortion_colours_are_normalised_alone(tmp_path):
    data = Folder(write_folder(tmp_path), "train")
    augmentation = Augmentation(AugmentationSettings(scale=(80, 48), crop=(20, 28), photometric=False))
    plain, other = (next(TrainLoader(data, augmentation, batch_size=4, colors_on=on).batches()) for on in (None, "cpu"))
    assert torch.equal(plain["image"], other["image"])


def test_what_workers_hand_out_is_a_fifth_of_the_bytes(tmp_path):
    data = Folder(write_folder(tmp_path), "train")
    augmentation = Augmentation(AugmentationSettings(scale=(400, 240), crop=(128, 256)))
    whole, crops = (
        sum(value.nbytes for value in next(TrainLoader(data, augmentation, batch_size=4, colors_on=on).handed_out()).values())
        for on in (None, "cpu")
    )
    assert crops < whole / 4.8  # 4 bytes a pixel and two kB for 20 bytes a pixel


@pytest.mark.parametrize("width", [1, 7, 16, 31, 33, 100, 1000, 1024, 1 << 16])
def test_colors_are_converted_as_opencv_does_in_images_of_any_width(width):
    rng = np.random.RandomState(width)
    rgb, hsv = (rng.randint(0, [first, 256, 256], ((1 << 18) // width, width, 3)).astype(np.uint8) for first in (256, HUES))
    to_hsv, to_rgb = conversions(torch.device("cpu"))
    np.testing.assert_array_equal(to_hsv[_place(torch.from_numpy(rgb))], cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV))
    place = _place(torch.from_numpy(hsv))
    place[:, _last_few(width) :] += HUES << 16
    np.testing.assert_array_equal(to_rgb[place], cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1024, 1000, 3])
def test_all_colors_are_converted_as_opencv_does(width):
    to_hsv, to_rgb = conversions(torch.device("cpu"))
    for first, code in ((256, cv2.COLOR_RGB2HSV), (HUES, cv2.COLOR_HSV2RGB)):
        colors = _everything(first)
        colors = np.concatenate([colors, colors[: -len(colors) % width]]).reshape(-1, width, 3)
        place = _place(torch.from_numpy(colors))
        if first == HUES:
            place[:, _last_few(width) :] += HUES << 16
        np.testing.assert_array_equal((to_rgb if first == HUES else to_hsv)[place], cv2.cvtColor(colors, code))
