"""DCNv3: the definition in PyTorch, the choice of a backend, and the layer."""

from vistalib.ops.backends import BackendStatus, backend_status
from vistalib.ops.definition import dcnv3_definition, sampling_locations
from vistalib.ops.dispatch import dcnv3
from vistalib.ops.geometry import output_size
from vistalib.ops.module import DCNv3

__all__ = ["BackendStatus", "DCNv3", "backend_status", "dcnv3", "dcnv3_definition", "output_size", "sampling_locations"]
