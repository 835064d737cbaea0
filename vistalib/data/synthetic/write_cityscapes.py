"""Writing renderings in the layout of Cityscapes, with fine labels alone or with all that its publishers offer.

`leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` and `gtFine/SPLIT/CITY/NAME_gtFine_{labelIds,instanceIds,color}.png`, NAME being
CITY_SEQUENCE_FRAME. Label ids are 8-bit, instance ids 16-bit (id * 1000 + instance for classes with instances, the plain id
elsewhere), colours RGBA. The whole layout has `train_extra`, the bad image in it, coarse labels in `gtCoarse/` for every
split, and automatic ones in `refinement_final/train_extra/CITY/`: `NAME_leftImg8bit.png` in label ids, or
`NAME_gtFine_labelTrainIds.png`, with `..._prob.png` beside.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vistalib.data.labels import CITYSCAPES
from vistalib.data.mapping import VISTAS_TO_CITYSCAPES
from vistalib.data.synthetic.render import Rendering
from vistalib.data.synthetic.styles import city
from vistalib.data.synthetic.write_vistas import save
from vistalib.data.vistas_labels import VISTAS_NAMES

SPLITS = ("train", "val", "train_extra")
EXTRA = 2  # the split of train_extra
EXTRA_TOWNS = {"aachen": "augsburg", "bochum": "troisdorf"}  # Cityscapes has other towns there, one with the bad image
FIRST_EXTRA = 100_000  # streets of train_extra: those of train from this number on
COARSE = 9 / 1024  # of the width: what the outlines of coarse labels leave free of their objects
BORDER = 5 / 1024  # share of the width that the rectification leaves empty at the left and right

# What the 19 classes' map leaves out, and what Cityscapes calls it.
OTHERS = {
    "animal--bird": "dynamic", "animal--ground-animal": "dynamic", "construction--barrier--guard-rail": "guard rail",
    "construction--barrier--other-barrier": "wall", "construction--flat--bike-lane": "sidewalk",
    "construction--flat--crosswalk-plain": "road", "construction--flat--curb-cut": "sidewalk",
    "construction--flat--parking": "parking", "construction--flat--pedestrian-area": "sidewalk",
    "construction--flat--rail-track": "rail track", "construction--flat--service-lane": "road",
    "construction--structure--bridge": "bridge", "construction--structure--tunnel": "tunnel",
    "marking--crosswalk-zebra": "road", "nature--mountain": "terrain", "nature--sand": "terrain", "nature--snow": "ground",
    "nature--water": "ground", "object--catch-basin": "road", "object--pothole": "road", "object--street-light": "pole",
    "object--support--traffic-sign-frame": "pole", "object--vehicle--caravan": "caravan",
    "object--vehicle--trailer": "trailer", "object--vehicle--other-vehicle": "dynamic",
    "object--vehicle--wheeled-slow": "dynamic", "object--vehicle--boat": "dynamic", "void--car-mount": "ego vehicle",
    "void--ego-vehicle": "ego vehicle", "void--unlabeled": "unlabeled",
}  # fmt: skip
IDS = np.array([CITYSCAPES[VISTAS_TO_CITYSCAPES.get(name) or OTHERS.get(name, "static")].id for name in VISTAS_NAMES], np.uint8)
HAS_INSTANCES = np.array(
    [any(label.id == value and label.has_instances for label in CITYSCAPES.labels) for value in range(256)]
)


@dataclass(frozen=True)
class CityscapesWriter:
    """Writes fine labels for train and val; with `auto`, the ending of automatic labels, all the rest too."""

    auto: str = ""
    draws = "cityscapes"

    @property
    def splits(self) -> tuple[str, ...]:
        return SPLITS if self.auto else SPLITS[:EXTRA]

    def scene(self, split: int, number: int) -> tuple[int, int]:
        """Which street is drawn for image `number` of a split."""
        return (0, FIRST_EXTRA + number) if split == EXTRA else (split, number)

    def write_image(self, root: Path, rendering: Rendering, *, seed: int, split: int, number: int) -> None:
        """Image and labels of one rendering. Raises `OSError` where a file cannot be written."""
        del seed  # names do not depend on it here
        city, name = stem(split, number)
        image, ids, instances = rendering.image.copy(), IDS[rendering.label], numbered(rendering)
        edge = max(1, round(BORDER * ids.shape[1]))
        border = np.zeros(ids.shape, bool)
        border[:, :edge] = border[:, -edge:] = True
        image[border] = 0
        ids[border] = instances[border] = CITYSCAPES["rectification border"].id
        below = Path(SPLITS[split]) / city
        save(root / "leftImg8bit" / below / f"{name}_leftImg8bit.png", image[..., ::-1])
        if split != EXTRA:
            _write_truth(root / "gtFine" / below / f"{name}_gtFine", ids, instances)
        if self.auto:
            certain = _inside(ids, max(1, round(COARSE * ids.shape[1])))
            _write_truth(root / "gtCoarse" / below / f"{name}_gtCoarse", ids * certain, instances * certain)
        if self.auto and split == EXTRA:
            self._write_automatic(root / "refinement_final" / below, name, ids)

    def finish(self, root: Path) -> None:
        """What lies at the root: nothing."""

    def _write_automatic(self, folder: Path, name: str, ids: np.ndarray) -> None:
        """A label as a network gives it: smooth, wrong in small things, unsure where classes meet."""
        found = cv2.medianBlur(ids, 5)
        depth = np.full(ids.shape, np.inf, np.float32)
        for value in np.unique(found):
            here = found == value
            depth[here] = cv2.distanceTransform(here.astype(np.uint8), cv2.DIST_L2, 3)[here]
        probability = np.rint(255 * (1 - 0.8 * np.exp(-depth / 2)) * np.where(found == ids, 1.0, 0.6)).astype(np.uint8)
        by_train_id = self.auto.endswith("TrainIds")
        save(folder / f"{name}{self.auto}.png", CITYSCAPES.id_to_train_id()[found] if by_train_id else found)
        save(folder / f"{name}{self.auto}_prob.png", probability)


def stem(split: int, number: int) -> tuple[str, str]:
    """City and name of an image: sequences of 20 frames apart, the towns of a split by turns; train_extra has its bad image."""
    town, sequence = city(0 if split == EXTRA else split, number)
    if split == EXTRA:
        town = EXTRA_TOWNS[town]
        return town, f"{town}_000000_{(73 if town == 'troisdorf' else 19) + sequence:06d}"
    return town, f"{town}_{sequence:06d}_{19 if split == 0 else 294 + 20 * number:06d}"


def _write_truth(path: Path, ids: np.ndarray, instances: np.ndarray) -> None:
    """Label ids, instance ids and colours; `path` is what their names begin with."""
    save(path.with_name(f"{path.name}_labelIds.png"), ids)
    save(path.with_name(f"{path.name}_instanceIds.png"), instances)
    color = CITYSCAPES.id_colors()[ids]
    save(path.with_name(f"{path.name}_color.png"), np.dstack((color[..., ::-1], np.full(ids.shape, 255, np.uint8))))


def _inside(ids: np.ndarray, margin: int) -> np.ndarray:  # uint8 (H, W)
    """1 where no other label is within `margin` pixels, else 0."""
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    return np.equal(cv2.dilate(ids, kernel), cv2.erode(ids, kernel)).astype(np.uint8)


def numbered(rendering: Rendering) -> np.ndarray:  # uint16 (H, W)
    """id * 1000 + instance where a class has instances, else the id."""
    ids = IDS[rendering.label]
    result = ids.astype(np.uint16)
    for value in np.unique(ids[HAS_INSTANCES[ids]]):
        here = ids == value
        _, order = np.unique(rendering.instance[here], return_inverse=True)
        result[here] = (int(value) * 1000 + np.minimum(order, 999)).astype(np.uint16)
    return result
