"""Deformable-convolution street-scene segmentation: DCNv3, InternImage, UperNet and SegFormer, from data to score.

The rooms: `ops`, `models`, `data`, `train`, `evaluate`, `recipes`, `viz`, `course`; the command is `vistalib`.
Importing this package needs torch and numpy only.
"""

from vistalib.threads import sleep_while_waiting

__version__ = "0.1.0"

sleep_while_waiting()
