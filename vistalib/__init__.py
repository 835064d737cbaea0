"""Deformable-convolution street-scene segmentation: DCNv3, InternImage, UperNet and SegFormer, from data to score.

The rooms: `ops`, `models`, `data`, `train`, `evaluate`, `recipes`, `viz`, `course`; the command is `vistalib`, and
`vistalib.predict` labels photographs as it does.
Importing this package needs torch and numpy only.
"""

from typing import TYPE_CHECKING, Any

from vistalib.threads import sleep_while_waiting

if TYPE_CHECKING:
    from vistalib.labelling import predict as predict

__version__ = "0.1.0"

sleep_while_waiting()


def __getattr__(name: str) -> Any:
    """`predict`, which brings the rooms along, once it is asked for."""
    if name == "predict":
        from vistalib.labelling import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
