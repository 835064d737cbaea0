"""What kernels in tiles and in windows do on average, counted in tiles whose offsets are drawn: for tools/ladder.py."""

import re
from dataclasses import dataclass

import kernel_sass
import torch
from torch.nn import functional as F

from vistalib.bench.workload import Offsets

THREADS, D, POINTS, BYTES = 128, 16, 9, 2  # of a block; channels of a group; points; bytes of a bfloat16
TEAMS = 32 * 16 // (D * BYTES)  # of a warp

# ---- lists ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """What the third phase of a tile of tiles.cuh does, on average over many."""

    units: int
    strips: int  # that a warp goes through, as wide as it has teams
    rows: float  # of all strips and warps, with at least one point
    turns: float  # the longest list of each of them
    pixels: float  # that are added to memory
    far: float  # points that are not in a list


def cells(offsets: Offsets, scale: float, tiles: int) -> tuple[int, int, int, torch.Tensor, torch.Tensor]:
    """Sides of a tile and of its window; the cells that points of some tiles lie in, (tiles, units, points, 2), and whether."""
    source = "".join((kernel_sass.SOURCES / name).read_text() for name in ("dcnv3.h", "tiles.cuh"))
    side, columns, rows = (int(n) for name in ("SIDE", "COLUMNS", "ROWS") for n in re.findall(rf"\b{name} = (\d+)", source))
    units, point = torch.arange(side**2), torch.arange(POINTS)
    pixel, grid = torch.stack((units % side, units // side), -1), torch.stack((point // 3 - 1, point % 3 - 1), -1)
    moves = offsets.draw(tiles, side**2, POINTS, 2, generator=torch.Generator().manual_seed(0))
    before = torch.tensor(((columns - side) // 2, (rows - side) // 2))
    cell = (pixel[:, None] + (grid + moves) * scale).floor().long() + before
    return side, columns, rows, cell, ((cell >= 0) & (cell < torch.tensor((columns - 1, rows)))).all(-1)


def drawn(offsets: Offsets, scale: float = 2.0, tiles: int = 64) -> Lists:
    """Tiles inside an image, with offsets drawn."""
    side, columns, rows, cell, near = cells(offsets, scale, tiles)
    before, chunk = (columns - side) // 2, rows // (THREADS // 32)
    numbers = (torch.arange(tiles)[:, None, None] * rows + cell[..., 1]) * columns + cell[..., 0]
    lengths = torch.bincount(numbers[near], minlength=tiles * rows * columns).view(tiles, rows, columns)
    longest = lengths.roll(-before, -1).unflatten(-1, (-1, TEAMS)).amax(-1)  # (tiles, rows, strips)
    # A cell's row and the one below, the last row of a warp's being one more than it has lists for.
    full = (longest > 0).unflatten(1, (-1, chunk))  # (tiles, warps, rows of a warp, strips)
    gone_through = F.pad(full, (0, 0, 0, 1)) | F.pad(full, (0, 0, 1, 0))
    taken = (lengths > 0).unflatten(1, (-1, chunk))
    pixels = F.pad(taken, (0, 1, 0, 1)) | F.pad(taken, (1, 0, 0, 1)) | F.pad(taken, (0, 1, 1, 0)) | F.pad(taken, (1, 0, 1, 0))
    sums = (gone_through.sum(), longest.sum(), pixels.sum(), (~near).sum())
    return Lists(side**2, columns // TEAMS, *(float(total) / tiles for total in sums))


# ---- strips --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Strips:
    """What the last phase of a tile of products.cuh does, on average over many."""

    units: int
    rows: float  # of all strips, with at least one point
    steps: float  # of sixteen points and fewer
    plain_rows: float  # of these, such that no step reaches the next row's points of the strip
    plain_steps: float
    far: float  # points that are not sorted


def sorted_by_strip(offsets: Offsets, scale: float = 2.0, tiles: int = 64) -> Strips:
    """Tiles inside an image, with offsets drawn."""
    side, columns, rows, cell, near = cells(offsets, scale, tiles)
    strip = int(re.findall(r"\bSTRIP = (\d+)", (kernel_sass.SOURCES / "products.cuh").read_text())[0])
    bins = 2 * columns // strip - 1
    row = torch.arange(tiles)[:, None, None] * rows + cell[..., 1]
    numbers = row * bins + cell[..., 0] // strip + (cell[..., 0] + 1) // strip
    lengths = torch.bincount(numbers[near], minlength=tiles * rows * bins).view(tiles, rows * bins)
    before = F.pad(lengths.cumsum(1), (2, 2))  # one bin more on either side, empty
    before[:, -2:] = before[:, -3:-2]
    # A strip: its own bin and those beside it, at either end of a row another row's.
    strips = torch.arange(rows)[:, None] * bins + torch.arange((bins + 1) // 2) * 2
    begin, end = before[:, strips], before[:, strips + 3]
    following = torch.cat((begin[:, 1:], before[:, -1:, None].expand(-1, 1, begin.shape[2])), 1)
    full, steps = end > begin, ((end - begin) / 16).ceil()
    plain = full & (following - end >= 15)
    sums = (full.sum(), steps.sum(), plain.sum(), steps[plain].sum(), (~near).sum())
    return Strips(side**2, *(float(total) / tiles for total in sums))


# ---- turns of a window ---------------------------------------------------------------------------------------------------


def reaching(offsets: Offsets, scale: float = 2.0, turns: int = 4096) -> tuple[float, float, float]:
    """Shares of a warp's turns in window.cuh whose points all stay within one pixel, within two, and that gather."""
    moves = offsets.draw(turns, 32, POINTS, 2, generator=torch.Generator().manual_seed(0)).abs() * scale
    farthest = moves.flatten(1).amax(1)
    near, wide = float((farthest <= 1).double().mean()), float((farthest <= 2).double().mean())
    return near, wide - near, 1 - wide
