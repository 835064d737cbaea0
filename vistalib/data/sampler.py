"""Which sample comes when: pure functions of a seed and the sample's number, so that nothing has to be remembered.

Sample n of a run is image `permutation(epoch)[place]` with epoch, place = divmod(n, length), augmented under a seed of its own.
With a `ClassBalance` it is an image that shows a class drawn under the sample's number: rare classes come more often, an image
may come again before another has come.
Step s takes the samples s*B .. (s+1)*B - 1 of the global batch B (it may cross from one epoch to the next); rank r of R takes
the r-th of R equal slices. The state of the sampler is the number of steps done. Both draws use generators that numpy keeps
frozen (`SeedSequence`, `RandomState`), so a run can be repeated under another version.
Letters: N images; C classes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_ORDER, _AUGMENTATION, _CLASS = 0, 1, 2  # what a draw is for


class ClassBalance:
    """Images drawn by their classes: class c with a probability of softmax((1 - f_c) / `temperature`), then an image with c.

    f_c is the share of c in all labelled pixels, from `counts`, (N, C) pixels of each class in each image; a class that nowhere
    occurs is never drawn. A low temperature prefers the rarest classes, a high one treats all alike.
    Source: rare class sampling of Hoyer et al., "DAFormer", CVPR 2022, section 3.3, where the temperature is 0.01.
    Raises `ValueError` for a temperature that is not above 0, and for counts of nothing.
    """

    def __init__(self, counts: npt.NDArray[np.int64], temperature: float) -> None:
        if not temperature > 0:
            raise ValueError(f"the temperature of class-balanced sampling must be above 0, got {temperature}; try 0.01")
        shown = counts > 0  # (N, C)
        if not shown.any():
            raise ValueError("class-balanced sampling needs labelled pixels, got none in any image; check the map")
        scores = (1 - counts.sum(0) / counts.sum()) / temperature  # (C,)
        weights = np.where(shown.any(0), np.exp(scores - scores[shown.any(0)].max()), 0.0)
        self.probabilities: npt.NDArray[np.float64] = weights / weights.sum()  # (C,)
        self._bounds = self.probabilities.cumsum()
        self._images = [np.flatnonzero(column) for column in shown.T]

    def draw(self, seed: int) -> tuple[int, int]:
        """The (image, class) that a 32-bit seed stands for."""
        first, second = np.random.RandomState(seed).random_sample(2)
        drawn = int(np.searchsorted(self._bounds, first * self._bounds[-1], side="right"))
        images = self._images[drawn]
        return int(images[int(second * len(images))]), drawn


@dataclass(frozen=True)
class Sampler:
    """The endless sequence of samples of a dataset of `length` under `seed`, balanced by class if `balance` is given."""

    length: int
    seed: int
    balance: ClassBalance | None = None

    def __post_init__(self) -> None:
        if self.length < 1 or self.seed < 0:
            raise ValueError(
                f"a sampler needs a length of at least 1 and a seed of at least 0, got {self.length} and {self.seed}"
            )

    def __getitem__(self, n: int) -> tuple[int, int]:
        """(index into the dataset, 32-bit seed of the augmentation) of sample `n`, from 0."""
        augmentation = _seed(self.seed, _AUGMENTATION, n)
        if self.balance is not None:
            return self.balance.draw(_seed(self.seed, _CLASS, n))[0], augmentation
        epoch, place = divmod(n, self.length)
        return int(permutation(self.length, self.seed, epoch)[place]), augmentation

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
