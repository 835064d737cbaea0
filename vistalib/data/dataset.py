"""What the three datasets share: pairs of an image and a label file, checked when the dataset is made, decoded when it is read.

Layout: an image is uint8 (H, W, 3) RGB; a label is uint8 (H, W) in training ids 0..C-1, with 255 for ignored pixels.
Letters: H, W height and width; C classes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from vistalib.data.decode import Image, Label, map_label, read_image, read_label, read_probability, wrong_size
from vistalib.data.labels import IGNORE_INDEX
from vistalib.data.layout import Pair
from vistalib.data.windows import Pixels, open_image, open_label
from vistalib.progress import progress

if TYPE_CHECKING:
    import datasets


class Samples(Protocol):
    """What the loader asks of a dataset."""

    def __len__(self) -> int: ...

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """Image (H, W, 3) RGB and label (H, W) of sample `i`, to be asked for windows."""
        ...


class StreetDataset:
    """A list of pairs of one set of classes; its subclasses know the folder layouts.

    Pixels of an automatic label that are less probable than `min_probability` are ignored.
    """

    ignore_index = IGNORE_INDEX

    def __init__(
        self,
        pairs: list[Pair],
        *,
        classes: tuple[str, ...],
        colors: npt.NDArray[np.uint8],
        min_probability: float = 0.0,
    ) -> None:
        assert colors.shape == (len(classes), 3)
        self.pairs = pairs
        self.classes = classes
        self.colors = colors  # (C, 3) RGB
        self.min_probability = min_probability

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, i: int) -> str:
        """The stem that names sample `i`, the same on every machine."""
        return self.pairs[i].name

    def image_path(self, i: int) -> Path:
        """The file of image `i`."""
        return self.pairs[i].image

    def label_path(self, i: int) -> Path:
        """The file of label `i`, in the dataset's own values."""
        return self.pairs[i].label

    def read_values(self, i: int) -> Label:
        """The label of sample `i` in the values that its file stores, (H, W), less the pixels that are too unsure."""
        pair = self.pairs[i]
        values = read_label(pair.label)
        if pair.probability is not None:
            probability = read_probability(pair.probability, values.shape)
            unsure = np.arange(256) / 255 < self.min_probability
            values = np.where(unsure[probability], np.uint8(IGNORE_INDEX), values)
        return values

    def read_label(self, i: int) -> Label:
        """The label of sample `i`, (H, W) in training ids; `ValueError` names a damaged file or one with unnamed values."""
        pair = self.pairs[i]
        return map_label(self.read_values(i), pair.reading.table, pair.label, pair.reading.names)

    def read(self, i: int) -> tuple[Image, Label]:
        """Image (H, W, 3) RGB and label (H, W) in training ids of sample `i`; `ValueError` names the file that is at fault."""
        image, label = read_image(self.image_path(i)), self.read_label(i)
        self._check_sizes(i, image, label)
        return image, label

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """What `read` gives, but decoded and mapped only where a window is asked for; see `vistalib.data.windows`."""
        pair = self.pairs[i]
        image = open_image(self.image_path(i))
        label = open_label(self.read_values(i), pair.reading.table, pair.label, pair.reading.names)
        self._check_sizes(i, image, label)
        return image, label

    def _check_sizes(self, i: int, image: Pixels, label: Pixels) -> None:
        if image.shape[:2] != label.shape:
            raise wrong_size(self.label_path(i), label.shape, image.shape)

    def index(self) -> "datasets.Dataset":
        """Paths, sizes and class histograms as a `datasets.Dataset`, computed once and cached (see `vistalib.data.index`)."""
        from vistalib.data.index import index

        return index(self)


class InMemory(StreetDataset):
    """Another dataset, decoded once and kept: for small datasets that a training loop reads many times over.

    Takes 4 bytes a pixel: 200 MB for 100 images of 1024 x 512.
    """

    def __init__(self, dataset: StreetDataset) -> None:
        super().__init__(dataset.pairs, classes=dataset.classes, colors=dataset.colors, min_probability=dataset.min_probability)
        self._samples = [dataset.read(i) for i in progress(range(len(dataset)), "decoding")]

    def read(self, i: int) -> tuple[Image, Label]:
        """Sample `i` as it was decoded; do not write into the arrays."""
        return self._samples[i]

    def open(self, i: int) -> tuple[Pixels, Pixels]:
        """The same."""
        return self._samples[i]
