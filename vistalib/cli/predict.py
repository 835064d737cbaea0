"""`vistalib predict`: photographs and videos, labelled by a trained model."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vistalib.cli.parts import Chosen, UsageError, Viewed
from vistalib.cli.photographs import find_photographs
from vistalib.files import check_writable, write_json

if TYPE_CHECKING:  # the rooms bring torch along; `vistalib --help` does without
    from vistalib.cli.labelling import Labelled


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
    found = find_photographs(photographs, out)
    source = weights or newest_run()

    from vistalib.cli.labelling import Labeller
    from vistalib.recipes import open_model

    trained = open_model(source, device=device)
    labeller = Labeller(trained, viewing.arguments(trained))
    print(f"model: {source}{'' if weights else ', the newest run here'}; {len(trained.classes)} classes, {labeller.mode()}")
    done, failed = list["Labelled"](), dict[str, str]()
    for number, photograph in enumerate(found, 1):
        # Said before, since a large photograph takes a while; a video shows its own progress.
        print(f"[{number}/{len(found)}] {photograph.path}: ", end="\n" if photograph.is_video else "", flush=True)
        try:
            done.append(labeller.label(photograph))
        except ValueError as error:
            failed[str(photograph.path)] = str(error)
            print("cannot be labelled", flush=True)
        else:
            print(_facts(done[-1]), flush=True)
    if done:
        print(f"\n{_table(done, labeller.names)}\n\nThe results lie in {out.resolve()}")
    if json is not None:
        labelled = [record.to_json(labeller.names) for record in done]
        write_json(json, {"model": str(source), "viewing": asdict(viewing), "labelled": labelled, "failed": failed})
    if failed:
        reasons = "\n".join(f"  {reason}" for reason in failed.values())
        raise ValueError(f"{len(failed)} of {len(found)} could not be labelled, the others are done:\n{reasons}")


def newest_run() -> Path:
    """The run in ./runs, or the finetuned one in ./demo, that was written last; `UsageError` where there is none."""
    written = [*Path("runs").glob("*/checkpoints/index.json"), *Path("demo/runs").glob("finetune/checkpoints/index.json")]
    if not written:
        raise UsageError(
            "predict needs a trained model, and there is none in ./runs or ./demo; name one with --weights, "
            "or make one in ten minutes: vistalib demo"
        )
    return max(written, key=lambda index: index.stat().st_mtime).parent.parent


def _facts(labelled: "Labelled") -> str:
    height, width = labelled.size
    if labelled.frames == 1:
        return f"{width}x{height}, {labelled.seconds:.2f} s"
    return f"{width}x{height}, {labelled.frames} frames, {labelled.seconds / labelled.frames:.2f} s each"


def _table(done: "list[Labelled]", names: tuple[str, ...]) -> str:
    """The share of each class in all pixels, and the number of files it occurs in."""
    total = sum(labelled.pixels.sum() for labelled in done)
    width = max(map(len, names))
    lines = [f"{'':{width}}   share of pixels" + ("   in files" if len(done) > 1 else "")]
    for c, name in enumerate(names):
        pixels, files = sum(labelled.pixels[c] for labelled in done), sum(labelled.pixels[c] > 0 for labelled in done)
        if files:
            lines.append(f"{name:{width}}{100 * pixels / total:17.1f}%" + (f"{files:11}" if len(done) > 1 else ""))
    return "\n".join(lines)
