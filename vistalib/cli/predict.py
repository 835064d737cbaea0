"""`vistalib predict`: photographs and videos, labelled by a trained model."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vistalib.cli.parts import Chosen, UsageError, Viewed
from vistalib.files import check_writable, write_json

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.labelling import Labelled


def predict(
    photographs: Chosen[tyro.conf.Positional[tuple[Path, ...]]],
    viewing: Viewed,
    *,
    weights: Annotated[Chosen[str | None], tyro.conf.arg(aliases=["--model"])] = None,
    out: Path = Path("predictions"),
    device: Chosen[str | None] = None,
    json: Path | None = None,
) -> None:
    """Label photographs and videos: the class of every pixel, and a picture with the classes drawn over it.

    Args:
        photographs: Photographs, videos, and folders of them.
        viewing: How an image is shown to the network.
        weights: A run's folder, weight file, released name, address or Hub id (default: the newest run in ./runs and ./demo).
        out: Folder for the results: of a photograph NAME_labels.png, class indices with the classes' colours as palette, and
            NAME_overlay.jpg with a legend; of a video NAME_overlay.mp4, without sound.
        device: Where to run: cpu, cuda, cuda:1, ... (default: the GPU where there is one).
        json: File for sizes, seconds and shares of the classes.
    """
    if not photographs:
        raise UsageError("predict needs at least one photograph, video or folder of them, got none; name them")
    if json is not None:
        check_writable(json)
    from vistalib import labelling

    try:
        source = weights or labelling.newest_run()
        labelled, failed = labelling.predict(photographs, weights=weights, out=out, device=device, **asdict(viewing)), None
    except labelling.CannotLabel as error:
        raise UsageError(str(error)) from None
    except labelling.NotAllLabelled as error:
        labelled, failed = error.labelled, error
    if labelled:
        print(f"\n{_table(labelled)}\n\nThe results lie in {out.resolve()}")
    if json is not None:
        reasons = failed.reasons if failed else {}
        records = [record.to_json() for record in labelled]
        write_json(json, {"model": str(source), "viewing": asdict(viewing), "labelled": records, "failed": reasons})
    if failed:
        raise failed


def _table(done: "list[Labelled]") -> str:
    """The share of each class in all pixels, and the number of files it occurs in."""
    names = done[0].classes
    total = sum(labelled.pixels.sum() for labelled in done)
    width = max(map(len, names))
    lines = [f"{'':{width}}   share of pixels" + ("   in files" if len(done) > 1 else "")]
    for c, name in enumerate(names):
        pixels, files = sum(labelled.pixels[c] for labelled in done), sum(labelled.pixels[c] > 0 for labelled in done)
        if files:
            lines.append(f"{name:{width}}{100 * pixels / total:17.1f}%" + (f"{files:11}" if len(done) > 1 else ""))
    return "\n".join(lines)
