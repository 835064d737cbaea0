"""InternImage backbones with UperNet and SegFormer heads, by name, with weights under the released names or ours."""

from vistalib.models.fcn import FCNHead
from vistalib.models.internimage import InternImage
from vistalib.models.names import from_released, to_released
from vistalib.models.segformer import SegFormerHead
from vistalib.models.segmentor import Segmentor
from vistalib.models.upernet import UPerHead
from vistalib.models.weights import LoadReport, load_weights, read_weights
from vistalib.models.zoo import create_model, list_models

__all__ = [
    "FCNHead",
    "InternImage",
    "LoadReport",
    "SegFormerHead",
    "Segmentor",
    "UPerHead",
    "create_model",
    "from_released",
    "list_models",
    "load_weights",
    "read_weights",
    "to_released",
]
