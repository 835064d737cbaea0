"""The data room: label tables, Vistas, Cityscapes and one's own folders, the index, augmentation, sampler and loader."""

from vistalib.data.augment import Augmentation, AugmentationSettings, normalize, resize, resize_label
from vistalib.data.cityscapes import Cityscapes
from vistalib.data.dataset import InMemory, StreetDataset
from vistalib.data.decode import read_image
from vistalib.data.folder import Folder
from vistalib.data.index import class_pixels
from vistalib.data.labels import (
    CITYSCAPES,
    IGNORE_INDEX,
    TRAIN_CLASSES,
    TRAIN_COLORS,
    VISTAS_TO_CITYSCAPES,
    VISTAS_V1_2,
)
from vistalib.data.loader import TrainLoader
from vistalib.data.sampler import Sampler
from vistalib.data.synthetic import synthesize
from vistalib.data.vistas import Vistas

__all__ = [
    "CITYSCAPES",
    "IGNORE_INDEX",
    "TRAIN_CLASSES",
    "TRAIN_COLORS",
    "VISTAS_TO_CITYSCAPES",
    "VISTAS_V1_2",
    "Augmentation",
    "AugmentationSettings",
    "Cityscapes",
    "Folder",
    "InMemory",
    "Sampler",
    "StreetDataset",
    "TrainLoader",
    "Vistas",
    "class_pixels",
    "normalize",
    "read_image",
    "resize",
    "resize_label",
    "synthesize",
]
