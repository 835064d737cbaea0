"""Label tables of the two street-scene datasets, and the map from one to the other.

Sources: Mapillary Vistas v1.2 (Neuhold et al., ICCV 2017; its `config_v1.2.json` fixes the order: the value of a label pixel
is the position in the table), Cityscapes (Cordts et al., CVPR 2016; its label ids, training ids and colours).
Layout: a label map is uint8 (H, W); a look-up table is uint8 (256,) and is applied as `table[label]`; colours are RGB.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = 255

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Label:
    """One Cityscapes label. `train_id` is `IGNORE_INDEX` for what is not trained, and -1 for the licence plate."""

    name: str
    id: int
    train_id: int
    category: str
    has_instances: bool
    color: Color


@dataclass(frozen=True)
class LabelTable:
    """The Cityscapes labels in their published order; `table["road"]` finds one by name."""

    labels: tuple[Label, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, name: str) -> Label:
        for label in self.labels:
            if label.name == name:
                return label
        raise ValueError(f"a Cityscapes label must be one of {', '.join(self.names)}; got {name!r}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(label.id for label in self.labels)

    @property
    def train_ids(self) -> tuple[int, ...]:
        return tuple(label.train_id for label in self.labels)

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(label.category for label in self.labels)

    @property
    def has_instances(self) -> tuple[bool, ...]:
        return tuple(label.has_instances for label in self.labels)

    @property
    def colors(self) -> NDArray[np.uint8]:
        """(L, 3), in the order of the table."""
        return np.array([label.color for label in self.labels], np.uint8)

    @property
    def trained(self) -> tuple[Label, ...]:
        """The 19 labels that are trained and scored, by rising training id."""
        return tuple(sorted((x for x in self.labels if 0 <= x.train_id < IGNORE_INDEX), key=lambda x: x.train_id))

    def id_to_train_id(self) -> NDArray[np.uint8]:
        """(256,): label id -> training id; every id that is not trained gives `IGNORE_INDEX`."""
        table = np.full(256, IGNORE_INDEX, np.uint8)
        for label in self.trained:
            table[label.id] = label.train_id
        return table

    def train_id_to_id(self) -> NDArray[np.uint8]:
        """(256,): training id -> label id, as the benchmark server wants it; the rest gives 0 (unlabeled)."""
        table = np.zeros(256, np.uint8)
        for label in self.trained:
            table[label.train_id] = label.id
        return table

    def id_colors(self) -> NDArray[np.uint8]:
        """(256, 3): label id -> colour; ids outside the table are black."""
        table = np.zeros((256, 3), np.uint8)
        for label in self.labels:
            if label.id >= 0:
                table[label.id] = label.color
        return table


CITYSCAPES = LabelTable(
    (
        Label("unlabeled", 0, 255, "void", False, (0, 0, 0)),
        Label("ego vehicle", 1, 255, "void", False, (0, 0, 0)),
        Label("rectification border", 2, 255, "void", False, (0, 0, 0)),
        Label("out of roi", 3, 255, "void", False, (0, 0, 0)),
        Label("static", 4, 255, "void", False, (0, 0, 0)),
        Label("dynamic", 5, 255, "void", False, (111, 74, 0)),
        Label("ground", 6, 255, "void", False, (81, 0, 81)),
        Label("road", 7, 0, "flat", False, (128, 64, 128)),
        Label("sidewalk", 8, 1, "flat", False, (244, 35, 232)),
        Label("parking", 9, 255, "flat", False, (250, 170, 160)),
        Label("rail track", 10, 255, "flat", False, (230, 150, 140)),
        Label("building", 11, 2, "construction", False, (70, 70, 70)),
        Label("wall", 12, 3, "construction", False, (102, 102, 156)),
        Label("fence", 13, 4, "construction", False, (190, 153, 153)),
        Label("guard rail", 14, 255, "construction", False, (180, 165, 180)),
        Label("bridge", 15, 255, "construction", False, (150, 100, 100)),
        Label("tunnel", 16, 255, "construction", False, (150, 120, 90)),
        Label("pole", 17, 5, "object", False, (153, 153, 153)),
        Label("polegroup", 18, 255, "object", False, (153, 153, 153)),
        Label("traffic light", 19, 6, "object", False, (250, 170, 30)),
        Label("traffic sign", 20, 7, "object", False, (220, 220, 0)),
        Label("vegetation", 21, 8, "nature", False, (107, 142, 35)),
        Label("terrain", 22, 9, "nature", False, (152, 251, 152)),
        Label("sky", 23, 10, "sky", False, (70, 130, 180)),
        Label("person", 24, 11, "human", True, (220, 20, 60)),
        Label("rider", 25, 12, "human", True, (255, 0, 0)),
        Label("car", 26, 13, "vehicle", True, (0, 0, 142)),
        Label("truck", 27, 14, "vehicle", True, (0, 0, 70)),
        Label("bus", 28, 15, "vehicle", True, (0, 60, 100)),
        Label("caravan", 29, 255, "vehicle", True, (0, 0, 90)),
        Label("trailer", 30, 255, "vehicle", True, (0, 0, 110)),
        Label("train", 31, 16, "vehicle", True, (0, 80, 100)),
        Label("motorcycle", 32, 17, "vehicle", True, (0, 0, 230)),
        Label("bicycle", 33, 18, "vehicle", True, (119, 11, 32)),
        Label("license plate", -1, -1, "vehicle", False, (0, 0, 142)),
    )
)

TRAIN_CLASSES: tuple[str, ...] = tuple(label.name for label in CITYSCAPES.trained)
TRAIN_COLORS: NDArray[np.uint8] = np.array([label.color for label in CITYSCAPES.trained], np.uint8)  # (19, 3)
