"""What the makers of the datasets say is in them: images of each split, classes of each version, towns, sizes.

Sources: Neuhold et al., ICCV 2017 (Mapillary Vistas); Cordts et al., CVPR 2016, and the dataset's own pages (Cityscapes).
"""

from collections.abc import Mapping
from pathlib import Path

from vistalib.data.cityscapes import BAD_IMAGES
from vistalib.data.layout import Kind
from vistalib.data.licences import DRAWN
from vistalib.files import read_json

IMAGES: dict[str, Mapping[str, int]] = {
    "vistas": {"training": 18_000, "validation": 2_000, "testing": 5_000},
    "cityscapes": {"train": 2_975, "val": 500, "test": 1_525, "train_extra": 19_998},  # the bad image among the last
    "folder": {},
}
SIZES: dict[str, tuple[int, int]] = {"cityscapes": (1024, 2048)}  # height, width; the photographs of Vistas have every size
CLASSES = {"v1.2": 66, "v2.0": 124}
UNLABELLED = {"vistas": ("testing", "testing/images"), "cityscapes": ("test", "leftImg8bit/test")}
TOWNS = {
    "train": (
        "aachen bochum bremen cologne darmstadt dusseldorf erfurt hamburg hanover jena krefeld monchengladbach strasbourg "
        "stuttgart tubingen ulm weimar zurich"
    ),
    "val": "frankfurt lindau munster",
    "test": "berlin bielefeld bonn leverkusen mainz munich",
}
SPLIT_OF = {town: split for split, towns in TOWNS.items() for town in towns.split()}  # those of train_extra are all the others


def promised(kind: Kind, root: Path) -> tuple[Mapping[str, int], tuple[int, int] | None]:
    """How many images each split should have, the bad one not counted, and their size (height, width) where all have the same.

    For streets that this code has drawn, that is what was asked for, as the file beside them says.
    """
    images, size = IMAGES[kind], SIZES.get(kind)
    try:
        drawn = read_json(root / DRAWN)
    except ValueError:  # not there, or not ours
        drawn = None
    match drawn:
        case {"num_images": dict(counts), "size": [int(height), int(width)]}:
            images, size = counts, (height, width) if kind in SIZES else None
    return {split: number - len(BAD_IMAGES) * (split == "train_extra") for split, number in images.items()}, size
