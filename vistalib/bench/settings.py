"""What `vistalib bench op` measures unless it is told otherwise, and the rules that what it is told must keep."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from vistalib.bench.timing import CACHES, Cache
from vistalib.bench.workload import DIRECTIONS, Direction, Offsets, Workload, sizes, stage_workloads
from vistalib.models.variants import BACKBONES
from vistalib.ops import backend_status
from vistalib.ops.backends import choose_backend
from vistalib.recipes.run import usable_device

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
MODES = ("eager", "compiled", "graph")
RELEASED = tuple(size for size in BACKBONES if size not in ("nano", "micro"))
BY_DEVICE: dict[str, dict[str, Any]] = {  # what differs from the defaults below, which suit a CPU
    "cpu": {},
    "cuda": {
        "models": RELEASED,
        "crops": ("512x1024", "1024x2048"),
        "images": 2,  # a GPU's share of the released batch
        "dtypes": ("float32", "bfloat16", "float16"),
        "modes": MODES,
        "caches": CACHES,
        "repeats": 20,
    },
}
QUICK: dict[str, Any] = {"models": ("t",), "stages": (3,), "crops": ("512x1024",), "offsets": ("normal:0.5",), "repeats": 3}


@dataclass(frozen=True)
class OperatorSettings:
    """What to measure: every combination of workload, dtype, offsets, direction and cache, each by all implementations.

    Workloads are the stages of models on crops (the released training's, and the whole image of the evaluation), `images` at
    a time, or the one `shape` NxHxWxC with `groups`. `backends` are ours, by name; `modes` are eager, compiled (torch.compile)
    and graph (a CUDA graph). Raises `ValueError` for what does not exist or does not fit the device.
    """

    device: str = "cpu"
    models: tuple[str, ...] = ("t",)
    stages: tuple[int, ...] = (1, 2, 3, 4)
    crops: tuple[str, ...] = ("512x1024",)
    images: int = 1
    shape: str | None = None
    groups: int | None = None
    dtypes: tuple[str, ...] = ("float32",)
    backends: tuple[str, ...] = ("torch",)
    offsets: tuple[str, ...] = ("normal:0.5", "uniform:4")
    directions: tuple[Direction, ...] = DIRECTIONS
    modes: tuple[str, ...] = ("eager",)
    caches: tuple[Cache, ...] = ("cold",)
    repeats: int = 5
    threads: int | None = None
    seed: int = 0
    workloads: list[Workload] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what does not exist, and list the workloads."""
        kind = torch.device(usable_device(self.device)).type
        if kind not in BY_DEVICE:
            raise ValueError(f"times can be taken on {' and '.join(BY_DEVICE)} devices, got {self.device!r}; try --device cpu")
        modes = MODES if kind == "cuda" else MODES[:2]
        for name, allowed in (("dtypes", DTYPES), ("directions", DIRECTIONS), ("modes", modes), ("caches", CACHES)):
            _among(name, getattr(self, name), allowed)
        for name in ("models", "stages", "crops", "dtypes", "backends", "offsets", "directions", "modes", "caches"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one, got none")
        for name in ("images", "repeats", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for backend in self.backends:
            choose_backend(backend, kind)
        for distribution in self.offsets:
            Offsets(distribution)
        object.__setattr__(self, "workloads", self._workloads())

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "workloads"}

    def _workloads(self) -> list[Workload]:
        if (self.shape is None) != (self.groups is None):
            raise ValueError(f"shape and groups go together, got shape={self.shape} and groups={self.groups}; give both")
        if self.shape is None or self.groups is None:
            return stage_workloads(self.models, self.stages, self.crops, self.images)
        images, height, width, channels = sizes(self.shape, "NxHxWxC")
        return [Workload(self.shape, None, images, height, width, channels, self.groups)]


def operator_settings(given: Mapping[str, Any], *, device: str | None = None, quick: bool = False) -> OperatorSettings:
    """Settings with what was `given`, None and () aside, and for the rest what suits the device, or a `quick` look.

    On a CPU that is one model at the training's crop, in a few minutes; on a GPU everything there is.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = device.partition(":")[0]
    chosen = BY_DEVICE.get(kind, {}) | {"backends": _usable(kind)} | (QUICK if quick else {})
    return OperatorSettings(device, **(chosen | {name: value for name, value in given.items() if value not in (None, ())}))


def _usable(kind: str) -> tuple[str, ...]:
    """Our backends that run on a device; a broken one raises."""
    best = choose_backend("auto", kind)
    names = [status.name for status in backend_status() if status.usable and status.name != best]
    return (best, *(name for name in names if _fits(name, kind)))


def _fits(backend: str, kind: str) -> bool:
    try:
        choose_backend(backend, kind)
    except ValueError:
        return False
    return True


def _among(name: str, got: Iterable[str], allowed: Iterable[str]) -> None:
    for value in got:
        if value not in allowed:
            raise ValueError(f"{name} must be among {', '.join(allowed)}, got {value!r}")
