"""The data room: label tables, Vistas, Cityscapes and one's own folders, the index, augmentation, sampler and loader."""

from vistalib.data.augment import Augmentation, AugmentationSettings, resize, resize_label
from vistalib.data.check import Checkup, check
from vistalib.data.cityscapes import Cityscapes
from vistalib.data.colors import normalize
from vistalib.data.dataset import InMemory, StreetDataset
from vistalib.data.decode import read_image
from vistalib.data.findings import Finding
from vistalib.data.folder import Folder
from vistalib.data.importing import Imported, import_coco, import_colors
from vistalib.data.index import class_balance, class_pixels, class_places, source_pixels
from vistalib.data.labels import (
    CITYSCAPES,
    IGNORE_INDEX,
    TRAIN_CLASSES,
    TRAIN_COLORS,
)
from vistalib.data.loader import TrainLoader, loader_speed
from vistalib.data.mapping import VISTAS_TO_CITYSCAPES, LabelMap, label_map, list_maps
from vistalib.data.prepared import Plan, Prepared, prepare
from vistalib.data.sampler import ClassBalance, Sampler
from vistalib.data.synthetic import synthesize
from vistalib.data.unpack import Unpacked, unpack
from vistalib.data.video import Video, open_video, writing_video
from vistalib.data.vistas import Vistas
from vistalib.data.vistas_labels import VISTAS_V1_2, VISTAS_V2_0

__all__ = [
    "CITYSCAPES",
    "IGNORE_INDEX",
    "TRAIN_CLASSES",
    "TRAIN_COLORS",
    "VISTAS_TO_CITYSCAPES",
    "VISTAS_V1_2",
    "VISTAS_V2_0",
    "Augmentation",
    "AugmentationSettings",
    "Checkup",
    "Cityscapes",
    "ClassBalance",
    "Finding",
    "Folder",
    "Imported",
    "InMemory",
    "LabelMap",
    "Plan",
    "Prepared",
    "Sampler",
    "StreetDataset",
    "TrainLoader",
    "Unpacked",
    "Video",
    "Vistas",
    "check",
    "class_balance",
    "class_pixels",
    "class_places",
    "import_coco",
    "import_colors",
    "label_map",
    "list_maps",
    "loader_speed",
    "normalize",
    "open_video",
    "prepare",
    "read_image",
    "resize",
    "resize_label",
    "source_pixels",
    "synthesize",
    "unpack",
    "writing_video",
]
