"""Event files for TensorBoard: another view of a run's log, written as it grows.

The log is the truth (`vistalib.train.log`): it is cut back when a run is resumed. So the event files are written anew from it
then, which leaves no step twice, and a run that was begun without them has all of them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vistalib.extras import missing
from vistalib.train import read_log

FOLDER = "tensorboard"


@contextmanager
def event_files(folder: str | Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """An `on_log` for the run in `folder`, which keeps event files in `folder/tensorboard` while it is entered.

    Every number of the log is a scalar: `train/loss`, `evaluation/mean_iou`, `evaluation/iou/road`, by finished iterations.
    Raises `ModuleNotFoundError` with the command that installs TensorBoard, before anything is done.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        if error.name != "tensorboard":  # it is installed, and something it needs is not
            raise
        raise missing("tensorboard", "write event files") from error
    place, writers = Path(folder) / FOLDER, list[SummaryWriter]()
    with ExitStack() as held:

        def on_log(line: dict[str, Any]) -> None:
            lines = [line]
            if not writers:  # with the first line, when the run has cut its log
                for old in place.glob("events.out.tfevents.*"):
                    old.unlink()
                # A TensorBoard that is open meanwhile forgets what it has read from step 0 on.
                writers.append(held.enter_context(SummaryWriter(str(place), purge_step=0)))
                lines = read_log(folder)
            for each in lines:
                for name, value in _scalars(each["kind"], each):
                    writers[0].add_scalar(name, value, each["iteration"])
            writers[0].flush()

        yield on_log


def _scalars(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and name != "iteration":
            yield f"{prefix}/{name}", value
