"""`synthesize`: a whole dataset of drawn streets, rendered by several processes, complete or not there at all."""

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2

from vistalib.data.synthetic.render import render_number
from vistalib.data.synthetic.write_cityscapes import CityscapesWriter
from vistalib.data.synthetic.write_vistas import FLAT, V1_2, V2_0, VistasWriter
from vistalib.files import read_json, write_json, writing
from vistalib.progress import progress
from vistalib.threads import end_with_parent

GENERATOR = 2  # rises whenever the same request would give other pixels
MANIFEST = "synthetic.json"
Layout = Literal["vistas", "vistas-2.0", "vistas-flat", "cityscapes", "cityscapes-extra", "cityscapes-extra-train-ids"]
WRITERS: dict[str, VistasWriter | CityscapesWriter] = {
    "vistas": VistasWriter((V1_2,)),
    "vistas-2.0": VistasWriter((V1_2, V2_0)),
    "vistas-flat": VistasWriter((FLAT,)),
    "cityscapes": CityscapesWriter(),
    "cityscapes-extra": CityscapesWriter("_leftImg8bit"),
    "cityscapes-extra-train-ids": CityscapesWriter("_gtFine_labelTrainIds"),
}


def synthesize(
    root: str | Path,
    layout: Layout = "vistas",
    *,
    num_images: int | dict[str, int] = 16,
    seed: int = 0,
    size: tuple[int, int] = (512, 1024),
    workers: int | None = None,
) -> Path:
    """Draw a dataset of synthetic streets into the new folder `root`, and return it.

    The layouts are "vistas" (v1.2), "vistas-2.0" (v2.0 with v1.2 beside it), "vistas-flat" (before v1.2), "cityscapes" (fine
    labels), "cityscapes-extra" (train_extra, coarse and automatic labels too), and "cityscapes-extra-train-ids" (automatic
    labels as the released InternImage configuration names them).
    `num_images` is the number of each split ("training" and "validation", or "train", "val" and "train_extra"), or a number for
    every split; `size` is
    (height, width) in pixels (Vistas images vary around it). Every image is a function of seed, layout, split and number, so
    `workers` (processes; None takes two, or one where there is one core or little to draw) changes nothing but the time. Call
    it below `if __name__ == "__main__":` in a script, as workers start by importing that script.

    A folder that holds exactly this request is used again, any other non-empty one is refused. Raises `ValueError` for a bad
    request or folder, `OSError` where the disk cannot take the files; then nothing is left behind.
    """
    if layout not in WRITERS:
        raise ValueError(f"layout must be one of {', '.join(WRITERS)}; got {layout!r}")
    writer, counts = WRITERS[layout], _counts(num_images, splits(layout))
    if min(size) < 32 or max(size) > 4096:
        raise ValueError(f"size must be (height, width) with both in 32..4096 pixels, got {size}; try (512, 1024)")
    if seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, got {seed}; try seed=0")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1 or None, got {workers}")
    root = Path(root)
    request = {"generator": GENERATOR, "layout": layout, "seed": seed, "num_images": counts, "size": list(size)}
    if _holds(root, request):
        print(f"{root} already holds these {sum(counts.values())} synthetic images; using them")
        return root
    jobs = [(split, number) for split, count in enumerate(counts.values()) for number in range(count)]
    with _appearing(root) as folder:
        for _ in progress(
            _drawn(partial(_draw, folder, layout, seed, size), jobs, workers), f"drawing {layout}", total=len(jobs)
        ):
            pass
        writer.finish(folder)
        write_json(folder / MANIFEST, request)
    return root


def splits(layout: str) -> tuple[str, ...]:
    """The names of the splits that a layout has."""
    return WRITERS[layout].splits


@contextmanager
def _appearing(root: Path) -> Iterator[Path]:
    """A folder to fill that becomes `root` at the end, or vanishes on any error."""
    with writing(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        try:
            folder = beside / root.name
            folder.mkdir()
            yield folder
            if root.exists():
                root.rmdir()
            folder.rename(root)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _counts(num_images: int | dict[str, int], splits: tuple[str, ...]) -> dict[str, int]:
    counts = dict.fromkeys(splits, num_images) if isinstance(num_images, int) else {s: num_images.get(s, 0) for s in splits}
    unknown = set(num_images) - set(splits) if isinstance(num_images, dict) else set()
    if unknown or min(counts.values()) < 0 or sum(counts.values()) == 0:
        raise ValueError(
            f"num_images must be a positive number, or numbers for the splits {', '.join(splits)}; got {num_images}"
        )
    return counts


def _holds(root: Path, request: dict[str, Any]) -> bool:
    """Whether `root` holds this very request; a `ValueError` where it holds anything else."""
    if root.exists() and not root.is_dir():
        raise ValueError(f"root must be a folder, got the file {root}; choose another path")
    if not root.exists() or not any(root.iterdir()):
        return False
    found = read_json(root / MANIFEST) if (root / MANIFEST).exists() else None
    if found == request:
        return True
    what = f"another synthetic dataset ({found})" if found else "other files"
    raise ValueError(
        f"root must be a new or empty folder, or hold exactly this request; {root} holds {what}; choose another or remove it"
    )


def _drawn(draw: "partial[None]", jobs: list[tuple[int, int]], workers: int | None) -> Iterator[None]:
    if workers is None:
        workers = min(2, os.cpu_count() or 1) if len(jobs) > 8 else 1
    if workers == 1:
        yield from map(draw, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from pool.map(draw, jobs)
        except BrokenProcessPool as error:
            raise RuntimeError(
                'a drawing process ended early; call synthesize below `if __name__ == "__main__":`, or with workers=1'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One OpenCV thread a process, and a watch on the parent: no drawing process outlives one that was killed."""
    cv2.setNumThreads(1)
    end_with_parent()


def _draw(folder: Path, layout: str, seed: int, size: tuple[int, int], job: tuple[int, int]) -> None:
    (split, number), writer = job, WRITERS[layout]
    drawn_split, drawn_number = writer.scene(split, number)
    rendering = render_number(writer.draws, seed=seed, split=drawn_split, number=drawn_number, size=size)
    writer.write_image(folder, rendering, seed=seed, split=split, number=number)
