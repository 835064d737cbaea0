"""Which sample comes when: pure functions of a seed and the sample's number, so that nothing has to be remembered.

Sample n of a run is image `permutation(epoch)[place]` with epoch, place = divmod(n, length), augmented under a seed of its own.
Step s takes the samples s*B .. (s+1)*B - 1 of the global batch B (it may cross from one epoch to the next); rank r of R takes
the r-th of R equal slices. The state of the sampler is the number of steps done. Both draws use generators that numpy keeps
frozen (`SeedSequence`, `RandomState`), so a run can be repeated under another version.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_ORDER, _AUGMENTATION = 0, 1  # what a draw is for


@dataclass(frozen=True)
class Sampler:
    """The endless sequence of samples of a dataset of `length` under `seed`."""

    length: int
    seed: int

    def __post_init__(self) -> None:
        if self.length < 1 or self.seed < 0:
            raise ValueError(
                f"a sampler needs a length of at least 1 and a seed of at least 0, got {self.length} and {self.seed}"
            )

    def __getitem__(self, n: int) -> tuple[int, int]:
        """(index into the dataset, 32-bit seed of the augmentation) of sample `n`, from 0."""
        epoch, place = divmod(n, self.length)
        return int(permutation(self.length, self.seed, epoch)[place]), _seed(self.seed, _AUGMENTATION, n)

    def step(self, step: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> range:
        """The numbers of the samples that `rank` takes at `step`; `batch_size` is that of all ranks together."""
        share = batch_size // world_size
        first = step * batch_size + rank * share
        return range(first, first + share)


@lru_cache(maxsize=4)
def permutation(length: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of the images in one epoch, (length,)."""
    return np.random.RandomState(_seed(seed, _ORDER, epoch)).permutation(length).astype(np.int64)


def _seed(seed: int, purpose: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, purpose, number)).generate_state(1)[0])
