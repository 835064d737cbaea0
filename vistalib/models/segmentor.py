"""Segmentor: backbone, decode head and auxiliary head as one model, with its loss and its prediction.

Layout: images (N, 3, H, W) normalised floats, labels (N, H, W) class indices with 255 ignored.
Letters: N images, H and W pixels, K classes.
"""

import torch
from torch import Tensor, nn

from vistalib.models.config import ModelConfig
from vistalib.models.convolution import resize
from vistalib.models.fcn import FCNHead
from vistalib.models.heads import Head
from vistalib.models.internimage import InternImage
from vistalib.models.loss import head_loss
from vistalib.models.loss_settings import LossSettings

AUXILIARY_MAP = 2  # the auxiliary head reads the third map, at 1/16 of the image
AUXILIARY_WEIGHT = 0.4


class Segmentor(nn.Module):
    """An image (N, 3, H, W) becomes logits (N, K, H/4, W/4); `loss` and `predict` resize them to the pixels of the image."""

    def __init__(self, backbone: InternImage, decode_head: Head, auxiliary_head: FCNHead | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.config: ModelConfig | None = None  # how `create_model` built it, which is saved with its weights
        self.class_weights: Tensor | None  # on the device of the model, and no part of its weights
        self.register_buffer("class_weights", None, persistent=False)
        self.set_loss(LossSettings())

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, K, H/4, W/4)."""
        logits: Tensor = self.decode_head(self.backbone(image))  # (N, K, H/4, W/4)
        return logits

    def set_loss(self, settings: LossSettings) -> None:
        """Choose what `loss` computes; a new model computes the released one.

        Raises `ValueError` for "balanced" weights, which depend on the data.
        """
        weights = settings.class_weights
        if weights == "balanced":
            raise ValueError(
                'a model must be given numbers, got class_weights="balanced"; try '
                "class_weights=balanced_weights(class_pixels(dataset)), as a recipe does"
            )
        self.loss_settings = settings
        device = next(self.parameters()).device
        self.class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)

    def loss(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Losses and accuracies (percent) of a batch; the total loss is the sum of the entries with "loss" in their name.

        Cross-entropy at the size of `label` (N, H, W), averaged over **all** pixels as released: ignored ones (255) add
        nothing to the sum and still count in the divisor. The auxiliary loss has its weight of 0.4 inside. `set_loss`
        weights classes, keeps hard pixels alone, adds Dice.
        """
        maps = self.backbone(image)
        losses = self._head_loss("decode", self.decode_head(maps), label, 1.0)
        if self.auxiliary_head is not None:
            losses |= self._head_loss("aux", self.auxiliary_head(maps[AUXILIARY_MAP]), label, AUXILIARY_WEIGHT)
        return losses

    def _head_loss(self, name: str, logits: Tensor, label: Tensor, weight: float) -> dict[str, Tensor]:
        chosen, weights = self.loss_settings, self.class_weights
        return head_loss(name, logits, label, weight=weight, settings=chosen, class_weights=weights)

    @torch.no_grad()
    def predict(self, image: Tensor) -> Tensor:
        """The most likely class of every pixel, (N, H, W) int64, at the size of `image`.

        Raises `ValueError` in training mode, where dropout draws and batch norm looks at the other images.
        """
        if self.training:
            raise ValueError("predict must be called in evaluation mode, got a model in training mode; call model.eval() first")
        return resize(self(image), (image.shape[2], image.shape[3])).argmax(dim=1)  # (N, H, W)

    @property
    def num_classes(self) -> int:
        """Logits a pixel."""
        return self.decode_head.num_classes

    @property
    def num_layers(self) -> int:
        """Blocks of the backbone: what the layer-wise learning rate counts."""
        return self.backbone.num_layers

    def units(self) -> list[nn.Module]:
        """The parts whose weights a sharded run gathers one after the other: the blocks of the backbone, then the heads."""
        blocks = [block for stage in self.backbone.stages for block in stage.blocks]  # type: ignore[union-attr]
        return blocks + [head for head in (self.decode_head, self.auxiliary_head) if head is not None]

    def layer_ids(self) -> dict[str, int]:
        """The depth of each parameter for layer-wise learning-rate decay: stem 0, blocks 1..num_layers, heads one more."""
        ids = {f"backbone.{name}": depth for name, depth in self.backbone.layer_ids().items()}
        return {name: ids.get(name, self.num_layers + 1) for name, _ in self.named_parameters()}
