"""Fast kernels for vistalib's DCNv3; `vistalib.ops.dcnv3` chooses among them. This package does not know vistalib."""

__version__ = "0.1.0"
