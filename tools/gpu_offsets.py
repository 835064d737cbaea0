"""How far a trained network looks, for tools/gpu.py and by itself: histograms of its offsets, layer by layer.

    python tools/gpu_offsets.py book/results/streets streets/cityscapes book/results/offsets.json

What a stencil (a kernel that reads a window of fixed size) can do depends on them: on how many tiles of pixels all offsets of
a group stay small. Sizes are in pixels of the layer's input: `after` is offset * offset_scale, which is how far a point is
moved from the regular grid (itself stretched by offset_scale), `before` is the offset alone.
Letters: N images, P x Q pixels of a map, G groups, K points.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from gpu_part import Record
from numpy.typing import NDArray
from torch import Tensor, nn

from vistalib.data import Cityscapes, normalize, resize
from vistalib.files import write_json
from vistalib.ops import DCNv3, sampling_locations
from vistalib.provenance import provenance
from vistalib.recipes import open_model

EDGES = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0)  # pixels
REACHES = (1.0, 2.0, 3.0, 4.0)  # pixels that a stencil might reach
TILE = 8  # pixels on each side


class _Layer:
    """What the maps of one layer add up to."""

    def __init__(self) -> None:
        self.counts = {when: torch.zeros(len(EDGES) + 1, dtype=torch.int64) for when in ("before", "after")}
        self.tiles = torch.zeros(len(REACHES) + 1, dtype=torch.int64)  # the last one counts all
        self.largest = 0.0
        self.offset_scale = 1.0

    def add(self, layer: DCNv3, x: Tensor) -> None:
        """Count the offsets for input `x` (N, H, W, C)."""
        there = layer.locations(x)  # (N, P, Q, G, K, 2)
        none = torch.zeros(1, *there.shape[1:3], there.shape[3:].numel(), device=x.device)
        sizes = {name: getattr(layer, name) for name in ("groups", "kernel_size", "stride", "padding", "dilation")}
        after = (there - sampling_locations(none, **sizes, offset_scale=layer.offset_scale)).abs()  # (N, P, Q, G, K, 2)
        self.offset_scale = layer.offset_scale
        for when, moved in {"before": after / layer.offset_scale, "after": after}.items():
            self.counts[when] += histogram(moved, EDGES)
        most = tile_maxima(after.amax((4, 5)))  # (N, p, q, G)
        self.tiles += torch.tensor([int((most < reach).sum()) for reach in REACHES] + [most.numel()])
        self.largest = max(self.largest, float(after.max()))

    def row(self) -> Record:
        """Shares of all offsets between EDGES, and of all tiles and groups that stay within REACHES."""
        shares = {when: (counts / counts.sum()).tolist() for when, counts in self.counts.items()}
        within = (self.tiles[:-1] / self.tiles[-1]).tolist()
        return shares | {
            "offset_scale": self.offset_scale,
            "tiles_within": dict(zip(map(str, REACHES), within, strict=True)),
            "largest_after": self.largest,
        }


def histogram(sizes: Tensor, edges: Sequence[float]) -> Tensor:
    """How many of `sizes` are below the first edge, from there to below the second, ..., from the last edge on."""
    which = torch.bucketize(sizes.flatten(), torch.tensor(edges, dtype=sizes.dtype, device=sizes.device), right=True)
    return torch.bincount(which, minlength=len(edges) + 1).cpu()


def tile_maxima(sizes: Tensor) -> Tensor:
    """The largest of `sizes` (N, P, Q, G) in each tile of 8 x 8 pixels, or of what there is: (N, p, q, G)."""
    maps = sizes.permute(0, 3, 1, 2)  # (N, G, P, Q)
    return nn.functional.max_pool2d(maps, TILE, ceil_mode=True).permute(0, 2, 3, 1)


@torch.no_grad()
def offset_histograms(
    model: nn.Module, images: Sequence[NDArray[np.uint8]], *, scale: tuple[int, int], device: torch.device
) -> Record:
    """Edges, and a row for each DCNv3 layer of `model` by its name, over all `images` (H, W, 3) fitted into `scale`."""
    model.to(device).eval()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, DCNv3)}
    found = {name: _Layer() for name in layers}

    def count(name: str) -> Any:
        return lambda layer, inputs: found[name].add(layer, inputs[0].float())

    hooks = [layer.register_forward_pre_hook(count(name)) for name, layer in layers.items()]
    try:
        for image in images:
            model(normalize(resize(image, scale))[None].to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return {"edges": list(EDGES), "tile": TILE, "layers": {name: layer.row() for name, layer in found.items()}}


def main() -> None:
    """Write the record of one model over some images of a validation split, evenly chosen."""
    parser = argparse.ArgumentParser(description="How far a trained network looks.")
    parser.add_argument("model", help="as `vistalib predict --weights` takes it")
    parser.add_argument("cityscapes", type=Path, help="folder of Cityscapes, real or drawn")
    parser.add_argument("out", type=Path, help="the record to write")
    parser.add_argument("--images", type=int, default=8)
    given = parser.parse_args()
    trained, data = open_model(given.model, device="cpu"), Cityscapes(given.cityscapes, "val")
    images = [data.read(int(i))[0] for i in np.linspace(0, len(data) - 1, min(given.images, len(data))).round()]
    found = offset_histograms(trained.model, images, scale=trained.scale, device=torch.device(trained.device))
    about = {"facts": provenance(), "model": Path(given.model).name, "scale": list(trained.scale), "images": len(images)}
    write_json(given.out, about | found)


if __name__ == "__main__":
    main()
