"""The description of a scene: camera, light, sensor, street and the things on it; everything a renderer needs and no pixel.

A scene is a function of its generator and of the classes that must occur in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from vistalib.data.synthetic.camera import Camera
from vistalib.data.synthetic.light import Light
from vistalib.data.synthetic.sensor import Sensor
from vistalib.data.synthetic.street import Street

# Training classes that few streets show: each is scheduled for four images of eleven, all in another order.
SCHEDULED = (
    "train",
    "bus",
    "truck",
    "motorcycle",
    "rider",
    "bicycle",
    "wall",
    "fence",
    "traffic light",
    "terrain",
    "traffic sign",
)


def schedule(number: int) -> frozenset[str]:
    """The classes that image `number` of a split must show."""
    return frozenset(name for k, name in enumerate(SCHEDULED) if (number * 5 + 7 * k) % 11 < 4)


@dataclass(frozen=True)
class Item:
    """A thing at (t, z) of the street, `up` above it, turned by `turn` from its direction; looks come from `seed`."""

    kind: str
    t: float
    z: float
    seed: int
    turn: float = 0.0
    up: float = 0.0
    length: float = 0.0
    width: float = 0.0
    height: float = 0.0
    variant: str = ""

    @property
    def far(self) -> float:
        """The depth it reaches to, by which things are ordered."""
        return self.z + self.length * (1.0 if self.kind in ("building", "wall", "fence", "hedge") else 0.5)


@dataclass
class Scene:
    """All of one picture. `mirrored` swaps left and right in the end (left-hand traffic)."""

    camera: Camera
    light: Light
    sensor: Sensor
    street: Street
    season: str
    hills: bool
    hood: str  # "", "hood" or "dashboard": what shows of the car that carries the camera
    mirrored: bool
    seed: int
    items: list[Item] = field(default_factory=list)


def ordered(items: Iterable[Item], street: Street) -> list[Item]:
    """Items far to near. What is farther out than a long thing, and not before its near end, counts as behind it."""
    far = {id(item): item.far for item in items}
    listed = list(items)
    longs = sorted(
        (i for i in listed if i.length > 3 and i.kind not in ("building", "wall", "fence", "hedge")),
        key=lambda i: abs(street.x(i.t, i.z)),
    )
    for long in longs:
        x = street.x(long.t, long.z)
        for item in listed:
            reach = max(long.length, long.width) / 2
            beside = item.z > long.z - reach and item is not long
            ox = street.x(item.t, item.z)
            if beside and ox * x > 0 and abs(ox) > abs(x) + 0.6 and item.length < 12:
                far[id(item)] = max(far[id(item)], far[id(long)] + 0.01 + 1e-4 * item.z)
    return sorted(listed, key=lambda item: -far[id(item)])
