"""Where a trained network looks: the sampling locations of DCNv3 for a few pixels, stage by stage, in pixels of the image.

Letters: P, Q height and width of a feature map; G groups; K points of a group.
"""

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from vistalib.data import TRAIN_CLASSES, Cityscapes, normalize
from vistalib.models import Segmentor
from vistalib.ops import DCNv3

QUERIES = ("person", "car", "traffic sign", "road")  # one pixel of each, where the image has it


def sampling_pattern(model: Segmentor, dataset: Cityscapes, *, scale: tuple[int, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays for `vistalib.viz.plot_sampling`, from the image that shows the most of the queried classes.

    Returns `image` (H, W, 3) RGB at `scale`; `query` (q, 2) pixels (x, y), each in the middle of the largest region of its
    class; and for stages 1 to 4 `location_stage_<s>` (q, G*K, 2) in pixels of that image and `weight_stage_<s>` (q, G*K), the
    modulation of each point, of the last DCNv3 of the stage.
    """
    ids = [TRAIN_CLASSES.index(name) for name in QUERIES]
    shown = [len(set(ids) & set(np.unique(dataset.read(i)[1]).tolist())) for i in range(len(dataset))]
    picture, target = dataset.read(int(np.argmax(shown)))
    image = np.asarray(cv2.resize(picture, scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    target = np.asarray(cv2.resize(target, scale, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    query = np.array([_middle(target == class_id) for class_id in ids if (target == class_id).any()], dtype=np.int64)
    arrays: dict[str, np.ndarray[Any, Any]] = {"image": image, "query": query}
    for stage, (module, features) in enumerate(_last_of_each_stage(model, image), start=1):
        width, stride = features.shape[2], image.shape[1] / features.shape[2]
        assert width * stride == image.shape[1]
        with torch.no_grad():
            location, modulation = module.locations(features)[0], module.modulation(features)[0]  # (P,Q,G,K,2), (P,Q,G,K)
        rows, columns = (query[:, 1] // stride).astype(int), (query[:, 0] // stride).astype(int)
        points = (location[rows, columns].flatten(1, 2) + 0.5) * stride - 0.5  # (q, G*K, 2)
        arrays[f"location_stage_{stage}"] = points.numpy()
        arrays[f"weight_stage_{stage}"] = modulation[rows, columns].flatten(1).numpy()  # (q, G*K)
    return arrays


def _last_of_each_stage(model: Segmentor, image: np.ndarray[Any, Any]) -> list[tuple[DCNv3, Tensor]]:
    """Run the model once; each stage's last DCNv3 with the features (1, P, Q, C) that went into it."""
    seen: list[tuple[DCNv3, Tensor]] = []
    modules = [[m for m in stage.modules() if isinstance(m, DCNv3)][-1] for stage in model.backbone.stages]

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, DCNv3)
        seen.append((module, inputs[0]))

    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        with torch.no_grad():
            model.eval()(normalize(image)[None])
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _middle(region: np.ndarray[Any, Any]) -> tuple[int, int]:
    """The pixel (x, y) of a mask that lies farthest from its border."""
    distance = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(x), int(y)
