"""Writing renderings in the layout of Cityscapes.

`leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` and `gtFine/SPLIT/CITY/NAME_gtFine_{labelIds,instanceIds,color}.png`, NAME being
CITY_SEQUENCE_FRAME. Label ids are 8-bit, instance ids 16-bit (id * 1000 + instance for classes with instances, the plain id
elsewhere), colours RGBA.
"""

from pathlib import Path

import numpy as np

from vistalib.data.labels import CITYSCAPES
from vistalib.data.maps import VISTAS_TO_CITYSCAPES
from vistalib.data.synthetic.render import Rendering
from vistalib.data.synthetic.styles import city
from vistalib.data.synthetic.write_vistas import save
from vistalib.data.vistas_labels import VISTAS_NAMES

SPLITS = ("train", "val")
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


def stem(split: int, number: int) -> tuple[str, str]:
    """City and name of an image: sequences of 20 frames apart, the towns of a split by turns."""
    town, sequence = city(split, number)
    return town, f"{town}_{sequence:06d}_{19 if split == 0 else 294 + 20 * number:06d}"


def write_image(root: Path, rendering: Rendering, *, seed: int, split: int, number: int) -> None:
    """Image, label ids, instance ids and colours of one rendering. Raises `OSError` where a file cannot be written."""
    del seed  # names do not depend on it here
    city, name = stem(split, number)
    image, ids, instances = rendering.image.copy(), IDS[rendering.label], numbered(rendering)
    edge = max(1, round(BORDER * ids.shape[1]))
    border = np.zeros(ids.shape, bool)
    border[:, :edge] = border[:, -edge:] = True
    image[border] = 0
    ids[border] = instances[border] = CITYSCAPES["rectification border"].id
    save(root / "leftImg8bit" / SPLITS[split] / city / f"{name}_leftImg8bit.png", image[..., ::-1])
    truth = root / "gtFine" / SPLITS[split] / city
    save(truth / f"{name}_gtFine_labelIds.png", ids)
    save(truth / f"{name}_gtFine_instanceIds.png", instances)
    color = CITYSCAPES.id_colors()[ids]
    save(truth / f"{name}_gtFine_color.png", np.dstack((color[..., ::-1], np.full(ids.shape, 255, np.uint8))))


def numbered(rendering: Rendering) -> np.ndarray:  # uint16 (H, W)
    """id * 1000 + instance where a class has instances, else the id."""
    ids = IDS[rendering.label]
    result = ids.astype(np.uint16)
    for value in np.unique(ids[HAS_INSTANCES[ids]]):
        here = ids == value
        _, order = np.unique(rendering.instance[here], return_inverse=True)
        result[here] = (int(value) * 1000 + np.minimum(order, 999)).astype(np.uint16)
    return result
