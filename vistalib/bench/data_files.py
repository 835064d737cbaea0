"""The files that `vistalib bench data` reads: synthetic streets in the sizes, formats and noise of the real datasets.

Cityscapes has PNGs of 2048 x 1024; Vistas has JPEGs of twelve megapixels and more with labels as palette PNGs. Streets of that
size take long to draw, so they are drawn small and enlarged; what takes a decoder its time is the noise, which is put on top.
PNGs are written by Pillow, with the filters that most writers choose.
"""

from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image as PillowImage

from vistalib.data import Cityscapes, StreetDataset, Vistas, synthesize
from vistalib.data.decode import Image, read_image, read_label
from vistalib.progress import progress

Form = Literal["cityscapes", "vistas"]
FORMS: tuple[Form, ...] = get_args(Form)
SIZE, BIG = (1024, 2048), (3000, 4000)  # height, width
NOISE = 4.0  # grey levels


def draw_files(form: Form, folder: Path, *, images: int, seed: int) -> StreetDataset:
    """`images` images and labels of a form in the new `folder`, as the dataset that reads them."""
    if form == "cityscapes":
        synthesize(folder, layout=form, num_images={"train": images, "val": 1}, seed=seed, size=SIZE)
        data: StreetDataset = Cityscapes(folder, "train")
        for i in range(len(data)):
            _rewrite(data.image_path(i), read_image(data.image_path(i)))
        return data
    synthesize(folder, layout=form, num_images={"training": images, "validation": 1}, seed=seed, size=(768, 1024))
    data = Vistas(folder, "training")
    rng = np.random.default_rng(seed)
    for i in progress(range(len(data)), "enlarging"):
        _enlarge(data.image_path(i), data.label_path(i), rng)
    return data


def _rewrite(path: Path, pixels: Image) -> None:
    PillowImage.fromarray(pixels).save(path)


def _enlarge(image: Path, label: Path, rng: np.random.Generator) -> None:
    pixels = cv2.resize(read_image(image), BIG[::-1], interpolation=cv2.INTER_CUBIC)
    noisy = pixels + np.float32(NOISE) * rng.standard_normal(pixels.shape, dtype=np.float32)
    PillowImage.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(image, quality=90)
    with PillowImage.open(label) as small:
        palette = small.getpalette()
    large = PillowImage.fromarray(cv2.resize(read_label(label), BIG[::-1], interpolation=cv2.INTER_NEAREST))
    if palette is not None:
        large.putpalette(palette)
    large.save(label)
