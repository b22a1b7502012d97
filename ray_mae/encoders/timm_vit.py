"""A Vision Transformer of others behind our interface: grey images as ours in, its own tokens out."""

import re
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ray_mae.encoders.base import Encoder
from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.transforms.images import PIXEL_MEAN, PIXEL_STD

MODULES = ("vision_transformer", "eva")
"""timm's files of the networks that are read."""


def timm_model(settings: TimmSettings) -> Any:
    """Returns timm's network with fresh weights and without a head.

    Raises:
        ValueError: timm has no such network, or it is no Vision Transformer.
    """
    settings.check()
    name = settings.architecture
    if not timm.is_model(name):
        raise ValueError(f"timm {timm.__version__} has no network {name}")
    if not timm.models.is_model_in_modules(name.partition(".")[0], MODULES):
        raise ValueError(f"{name} is no Vision Transformer: ray-mae reads ViTs and ResEnc networks")
    model: Any = timm.create_model(name, pretrained=False, num_classes=0, **settings.keywords)
    if settings.norm_eps is not None:
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = settings.norm_eps
    return model


class TimmVit(Encoder):
    """timm's network, whose weights have timm's names after `body.`."""

    mean: Tensor
    std: Tensor

    def __init__(self, settings: TimmSettings, *, recompute: bool = False) -> None:
        super().__init__()
        self.settings: TimmSettings = settings
        self.body: Any = timm_model(settings)
        for name in ("mean", "std"):  # on its device, and no part of its weights
            values = torch.tensor(getattr(settings, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.recompute = recompute

    @property
    def recompute(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return bool(self.body.grad_checkpointing)

    @recompute.setter
    def recompute(self, on: bool) -> None:
        self.body.set_grad_checkpointing(on)

    @property
    def width(self) -> int:
        return int(self.body.num_features)

    @property
    def depth(self) -> int:
        return len(self.body.blocks)

    @property
    def stride(self) -> int:
        return self.settings.patch_size

    def forward(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """Tokens [N, 1 + L, D] of images [N, 1, H, W] as ours are normalised; it knows no views.

        The first is the class token; of a network without one, or with a norm of its own after pooling, it
        is the vector that the network pools. Registers are left out.
        """
        grey = images * PIXEL_STD + PIXEL_MEAN  # black to white in [0, 1]
        tokens = self.body.forward_features((grey - self.mean) / self.std)
        first = tokens[:, :1]
        if self.body.cls_token is None or not isinstance(self.body.fc_norm, nn.Identity):
            first = self.body.forward_head(tokens, pre_logits=True)[:, None]
        return torch.cat([first, tokens[:, self.body.num_prefix_tokens :]], dim=1)

    def layer_of(self, name: str) -> int:
        if block := re.match(r"body\.blocks\.(\d+)\.", name):
            return int(block[1]) + 1
        after = ("body.norm.", "body.fc_norm.", "body.attn_pool.")
        return self.depth + 1 if name.startswith(after) else 0

    def no_weight_decay(self) -> set[str]:
        tables = ("cls_token", "pos_embed", "reg_token")
        return {f"body.{name}" for name, _ in self.body.named_parameters() if name in tables}
