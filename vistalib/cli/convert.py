"""`vistalib convert`: weight files between the released names and ours, and between formats."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vistalib.cli.parts import Chosen, with_weights
from vistalib.files import check_writable, sha256, write_json


def convert(
    places: Annotated[Chosen[tyro.conf.Positional[tuple[str, ...]]], tyro.conf.arg(metavar="[WEIGHTS] TARGET")],
    *,
    weights: Chosen[str | None] = None,
    to: Literal["released", "vistalib"] = "vistalib",
    json: Path | None = None,
) -> None:
    """Rewrite a weight file under other names or in another format; every tensor stays what it is, in the same place.

    Args:
        places: File to write; its suffix, .pth or .safetensors, is its format. The weights may stand before it, too.
        weights: Weight file, run folder, released name, address or place on the Hub (owner/name:file).
        to: Whose names it gets: those of the released checkpoints, or vistalib's.
        json: File for what was done.
    """
    from vistalib.models import locate
    from vistalib.models.convert import convert_weights

    source, name = with_weights(weights, places, "TARGET")
    target = Path(name)
    for path in (target, json):
        if path is not None:
            check_writable(path)
    done = convert_weights(locate(source), target, to=to)
    facts = {"source": source, "target": str(target), "to": to, **asdict(done)}
    facts |= {"bytes": target.stat().st_size, "sha256": sha256(target)}
    print(f"{source}: {done.tensors} tensors under the {done.naming} names, {done.where} of the file")
    print(f"{target}: {done.tensors} tensors under the {to} names, {done.renamed} of them renamed")
    for names, what in ((done.unknown, "kept under their own names"), (done.ignored, "left out, since they are no tensors")):
        if names:
            print(f"  {what}: {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}")
    if done.not_finite:
        print(f"  converted as it is, though no model can use it: {done.not_finite}")
    print(f"  {facts['bytes'] / 1e6:.1f} MB, sha256 {facts['sha256']}")
    if json is not None:
        write_json(json, facts)
