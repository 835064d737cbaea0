"""`vistalib reproduce`: a published number on the user's own Cityscapes."""

from pathlib import Path
from typing import Annotated

import tyro

from vistalib.cli.parts import Chosen, UsageError
from vistalib.files import check_writable, read_json, write_json


def reproduce(
    cell: tyro.conf.Positional[str | None] = None,
    *,
    cityscapes: Path | None = None,
    multi_scale: bool = False,
    weights: Annotated[str | None, tyro.conf.arg(aliases=["--checkpoint"])] = None,
    out: Path = Path("reproduced"),
    batch_size: int = 1,
    device: Chosen[str | None] = None,
) -> None:
    """Score a released checkpoint on your Cityscapes and compare it with the published mIoU; without CELL, list what there is.

    No released file was run by the makers of vistalib: the records that this command writes are the evidence. Under torchrun
    the processes share the images.

    Args:
        cell: Name of a released file with a published mIoU.
        cityscapes: Folder of Cityscapes: it holds leftImg8bit/ and gtFine/.
        multi_scale: The number of six scales and their mirror images, instead of a single scale.
        weights: A copy of the released file, instead of fetching it.
        out: Folder for the records, one JSON file a number.
        batch_size: Images that the network sees at a time.
        device: Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one).
    """
    if cell is None:
        print(_list(out))
        return
    from vistalib.data import Cityscapes
    from vistalib.recipes import reproduce as reproduced
    from vistalib.recipes.reproduce import find_cell
    from vistalib.recipes.run import usable_device
    from vistalib.train import process_group, rank

    if batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {batch_size}")
    try:
        chosen = find_cell(cell, multi_scale=multi_scale)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if cityscapes is None:
        raise UsageError("the published numbers are of Cityscapes; add --cityscapes DIR")
    record = out / f"{chosen.label}.json"
    check_writable(record)
    with process_group(device or usable_device()) as own:
        found = reproduced(chosen, Cityscapes(cityscapes, "val"), weights=weights, batch_size=batch_size, device=own)
        if rank() > 0:
            return
        print(f"{chosen.name}, {found.evaluation.mode}: {found.sentence()}\nThe record: {record}")
        write_json(record, found.to_json())


def _list(out: Path) -> str:
    """Every published number, and what the records in `out` say of it."""
    from vistalib.recipes import list_cells

    cells = list_cells()
    width = max(len(cell.name) for cell in cells)
    lines = [f"{'mIoU on Cityscapes val, %':{width}}  published  found"]
    for cell in cells:
        record = out / f"{cell.label}.json"
        found = read_json(record) if record.exists() else None
        line = f"{cell.name:{width}}  {'ms' if cell.multi_scale else 'ss'} {cell.published:.2f}"
        if found is not None:
            kind = "not a test of it" if found["departures"] else "reproduced" if found["within"] else "not reproduced"
            line += f"   {found['found']:.2f}  {kind}"
        lines.append(line)
    return "\n".join([*lines, f"ss: single scale; ms: six scales and mirror images (--multi-scale); found: records in {out}/"])
