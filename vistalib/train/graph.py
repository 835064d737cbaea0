"""Forward and backward pass as one CUDA graph: recorded once, then started by a single call instead of thousands.

This saves the time in which the host launches kernels, so it helps where these are short: small models, small crops. **It was
written without a GPU at hand and has not been run on one**; `tests/test_gpu.py` waits to compare it with a run without. What it
relies on:

- Every batch has the size of the first. Its tensors are copied to where the graph reads.
- Gradients and losses lie where the graph wrote them, so that nobody may take the gradients away between steps.
- A graph takes its random numbers from the seed that torch's generator has when it is started (torch's
  `CUDAGeneratorState::replay_prologue`): seeding each iteration acts inside it, and draws what a run without a graph draws.
- Autocast begins and ends inside, so the copies of the weights that it makes are made anew each time; the scale of the loss is
  a tensor that `GradScaler` changes in place.
- Nothing inside asks the device for a number. `recompute_blocks` does, for the random state, and cannot be recorded.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

WARM_UP = 3  # passes before recording, in which libraries choose their kernels and take their memory
Parts = list[dict[str, Tensor]]


class GraphedPass:
    """`work(image, label)`, which leaves gradients in the parameters of `model`, as a graph; what it returns is overwritten."""

    def __init__(self, work: Callable[[Tensor, Tensor], Parts], model: nn.Module) -> None:
        self._work, self._model = work, model
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, image: Tensor, label: Tensor) -> Parts:
        """Raises `ValueError` for a batch of another size than the first."""
        if self._graph is None:
            self._graph = self._record(image, label)
        for given, read in zip((image, label), self._read, strict=True):
            if given.shape != read.shape:
                raise ValueError(
                    f"cuda_graphs needs batches of one size, got {tuple(given.shape)} after {tuple(read.shape)}; "
                    "leave cuda_graphs out"
                )
            read.copy_(given)
        self._graph.replay()
        return self._parts

    def _record(self, image: Tensor, label: Tensor) -> torch.cuda.CUDAGraph:
        """Record the work; neither running statistics nor the random state know of it afterwards."""
        self._read = image.clone(), label.clone()
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        with torch.cuda.device(image.device):
            random_state = torch.cuda.get_rng_state(image.device)
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # of torch
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # what is recorded must have run on another stream than the default one
                for _ in range(WARM_UP):
                    self._model.zero_grad()
                    self._work(*self._read)
            torch.cuda.current_stream().wait_stream(side)
            for buffer, before in buffers:
                buffer.copy_(before)
            torch.cuda.set_rng_state(random_state, image.device)
            self._model.zero_grad()  # to None: so the graph writes gradients instead of adding to them
            graph = torch.cuda.CUDAGraph()
            # Other threads, such as those that pin the batches to come, go on meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._parts = self._work(*self._read)
        return graph
