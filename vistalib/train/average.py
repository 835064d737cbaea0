"""An exponential moving average of the weights, which is often better than the weights of any one step.

Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; with exponential weights as in
Tarvainen and Valpola, "Mean teachers are better role models", 2017. The average starts with the weights after the first step.

It lives in the optimiser's state, one tensor a parameter beside the moments, and so goes wherever these go. The name there is
`other`: while training it is the average; while the two have changed places (`in_place`) the model has the average and
`other` the trained weights. Checkpoints are written so: their model is for use, and a resumed run changes back.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

OTHER = "other"


class WeightAverage:
    """The average of what `optimizer` trains; without `decay` there is none, and nothing happens. No host waits for a device.

    A step that is skipped, as the loss was not finite, leaves weights that were averaged before: the average stays finite.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, decay: float | None) -> None:
        self._optimizer = optimizer
        self._mix = None if decay is None else get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # of torch

    def update(self) -> None:
        """Take in the weights that a step left. A parameter that never had a gradient has no state, and needs no average."""
        if self._mix is None:
            return
        weights, averages = [], []
        for weight, state in self._optimizer.state.items():
            if OTHER in state:
                weights.append(weight.detach())
                averages.append(state[OTHER])
            elif state:
                state[OTHER] = weight.detach().clone()
        if averages:
            self._mix(averages, weights, None)

    @torch.no_grad()
    def swap(self) -> None:
        """Let model and average change places, tensor by tensor, where they stand in memory."""
        for weight, state in self._optimizer.state.items():
            if OTHER in state:
                before: Tensor = weight.clone()
                weight.copy_(state[OTHER])
                state[OTHER].copy_(before)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While entered, the model has the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
