"""The settings of one training run, checked when they are made. Defaults are those of the released configurations."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides how the weights move, and how often the run is written down.

    Weights and optimiser are float32 always. A checkpoint is also written before each evaluation and at the end. Raises
    `ValueError` naming the field, the value and a value that would do.
    """

    iterations: int
    """Steps, of a batch each."""
    learning_rate: float
    """The peak rate of the heads."""
    layer_decay: float = 1.0
    """Multiplies the rate once for each layer below the heads."""
    weight_decay: float = 0.05
    """AdamW's decay of the weights of convolutions and linear layers; others have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay of its two moments."""
    warmup_iters: int = 1500
    """Iterations over which the rate rises linearly."""
    warmup_ratio: float = 1e-6
    """The share of the rate that this begins with."""
    power: float = 1.0
    """The rate falls to min-lr as (1 - i / iterations) ** power."""
    min_lr: float = 0.0
    """The rate in the end, of the heads."""
    clip_norm: float | None = None
    """Bound of the global gradient norm (None: no bound)."""
    precision: Precision = "fp32"
    """The forward pass under autocast in bf16, or in fp16 with a loss scale that adapts; without it in tf32 or fp32; auto
    is bf16 on GPUs that have it (compute capability 8.0), fp16 on older ones, fp32 on a CPU."""
    accumulate: int = 1
    """Pieces into which each rank cuts its share of a batch, one after the other in memory, whose gradients are averaged:
    the same step where the loss is a mean over images, but for batch norm, whose statistics are then those of a piece and
    move so many times a step."""
    frozen_statistics: bool = False
    """Keep batch norm at the running statistics the run began with."""
    frozen: tuple[str, ...] = ()
    """Parts of the model that are not trained, such as backbone."""
    compile: bool = False
    """Run the model through torch.compile."""
    cuda_graphs: bool = False
    """Record forward and backward pass once as a CUDA graph and replay it; for one process with a CUDA device, and not yet
    run on one (see `vistalib.train.graph`)."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the trained weights: after each step it is this much of itself and the rest of
    the new weights, so that it looks about 1 / (1 - ema-decay) steps back (usual: 0.999 or more). It is what is evaluated,
    what a checkpoint's model holds, and what the model holds in the end; batch norm keeps its own running averages."""
    shard: bool = False
    """Let each of several ranks keep a part of the weights, gradients and moments (see `vistalib.train.sharding`), for
    models that fill a GPU; steps and checkpoints are those of a run without it, and one process alone has nothing to share
    out."""
    log_every: int = 50
    """Iterations from one line of the log to the next."""
    checkpoint_every: int = 1000
    """Iterations from one checkpoint to the next."""
    evaluate_every: int = 8000
    """Iterations from one evaluation to the next."""
    keep: int = 3
    """Checkpoints that are kept, the last ones, beside the best."""
    seed: int = 0
    """Seed of the weights and of every draw."""

    def __post_init__(self) -> None:
        for name in ("iterations", "accumulate", "log_every", "checkpoint_every", "evaluate_every", "keep"):
            self._require(name, _whole(getattr(self, name), 1), "a whole number of at least 1", "1")
        for name in ("warmup_iters", "seed"):
            self._require(name, _whole(getattr(self, name), 0), "a whole number of at least 0", "0")
        self._require(
            "learning_rate", _within(self.learning_rate, 0.0, math.inf, open_low=True), "a finite number above 0", "6e-5"
        )
        self._require("layer_decay", _within(self.layer_decay, 0.0, 1.0, open_low=True), "above 0 and at most 1", "0.94")
        self._require("weight_decay", _within(self.weight_decay, 0.0, math.inf), "a finite number of at least 0", "0.05")
        self._require("warmup_ratio", _within(self.warmup_ratio, 0.0, 1.0), "between 0 and 1", "1e-6")
        self._require("power", _within(self.power, 0.0, math.inf), "a finite number of at least 0", "1.0")
        self._require("min_lr", _within(self.min_lr, 0.0, self.learning_rate), "between 0 and learning_rate", "0.0")
        self._require(
            "betas",
            len(self.betas) == 2 and all(_within(beta, 0.0, 1.0) and beta < 1.0 for beta in self.betas),
            "two numbers from 0 up to, not including, 1",
            "(0.9, 0.999)",
        )
        self._require(
            "clip_norm",
            self.clip_norm is None or _within(self.clip_norm, 0.0, math.inf, open_low=True),
            "None or a finite number above 0",
            "0.1",
        )
        self._require(
            "ema_decay",
            self.ema_decay is None or (_within(self.ema_decay, 0.0, 1.0, open_low=True) and self.ema_decay < 1.0),
            "None or between 0 and 1",
            "0.999",
        )
        self._require("compile", not (self.compile and self.shard), "False where weights are sharded", "False")
        self._require("precision", self.precision in get_args(Precision), f"one of {', '.join(get_args(Precision))}", "fp32")

    def _require(self, name: str, holds: bool, rule: str, example: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {rule}, got {getattr(self, name)!r}; try {name}={example}")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _within(value: object, low: float, high: float, *, open_low: bool = False) -> bool:
    """Whether `value` is a finite number in [low, high], or in (low, high] with `open_low`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return (low < value if open_low else low <= value) and value <= high
