"""Synthetic streets: drawn scenes with exact labels, in the folder layouts of Vistas and Cityscapes."""

from vistalib.data.synthetic.make import Layout, splits, synthesize

__all__ = ["Layout", "splits", "synthesize"]
