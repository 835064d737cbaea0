"""Synthetic streets: drawn scenes with exact labels, in the folder layouts of Vistas and Cityscapes."""

from vistalib.data.synthetic.make import synthesize

__all__ = ["synthesize"]
