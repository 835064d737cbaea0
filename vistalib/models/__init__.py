"""InternImage backbones with UperNet and SegFormer heads, by name, with weights under the released names or ours."""

from vistalib.models.config import ModelConfig
from vistalib.models.export import Deployment, export_file, export_program
from vistalib.models.fcn import FCNHead
from vistalib.models.fetch import locate
from vistalib.models.flops import Cost, cost
from vistalib.models.internimage import InternImage
from vistalib.models.loss_settings import LossSettings, balanced_weights
from vistalib.models.names import from_released, to_released
from vistalib.models.pretrained import from_pretrained, push_to_hub, save_pretrained
from vistalib.models.released_files import RELEASED_FILES, ReleasedFile
from vistalib.models.segformer import SegFormerHead
from vistalib.models.segmentor import Segmentor
from vistalib.models.sync_batch_norm import SyncBatchNorm, synchronize_batch_norm
from vistalib.models.upernet import UPerHead
from vistalib.models.weight_files import read_weights
from vistalib.models.weights import LoadReport, load_weights
from vistalib.models.zoo import create_model, list_models

__all__ = [
    "RELEASED_FILES",
    "Cost",
    "Deployment",
    "FCNHead",
    "InternImage",
    "LoadReport",
    "LossSettings",
    "ModelConfig",
    "ReleasedFile",
    "SegFormerHead",
    "Segmentor",
    "SyncBatchNorm",
    "UPerHead",
    "balanced_weights",
    "cost",
    "create_model",
    "export_file",
    "export_program",
    "from_pretrained",
    "from_released",
    "list_models",
    "load_weights",
    "locate",
    "push_to_hub",
    "read_weights",
    "save_pretrained",
    "synchronize_batch_norm",
    "to_released",
]
