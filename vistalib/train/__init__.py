"""Training: settings, schedule, parameter groups, the loop, and checkpoints that a run can be resumed from to the bit."""

from vistalib.train.checkpoint import Checkpoint, DamagedCheckpoint, load_checkpoint
from vistalib.train.distributed import by_first, process_group, rank, world_size
from vistalib.train.groups import parameter_groups
from vistalib.train.guard import INTERRUPTED, Interrupted, NonFiniteLoss
from vistalib.train.log import read_log
from vistalib.train.loop import FitResult, fit
from vistalib.train.schedule import learning_rate
from vistalib.train.settings import TrainSettings

__all__ = [
    "INTERRUPTED",
    "Checkpoint",
    "DamagedCheckpoint",
    "FitResult",
    "Interrupted",
    "NonFiniteLoss",
    "TrainSettings",
    "by_first",
    "fit",
    "learning_rate",
    "load_checkpoint",
    "parameter_groups",
    "process_group",
    "rank",
    "read_log",
    "world_size",
]
