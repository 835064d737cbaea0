"""Training: settings, schedule, parameter groups, the loop, and checkpoints that a run can be resumed from to the bit."""

from vistalib.train.checkpoint import Checkpoint, DamagedCheckpoint, load_checkpoint
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
    "fit",
    "learning_rate",
    "load_checkpoint",
    "parameter_groups",
    "read_log",
]
