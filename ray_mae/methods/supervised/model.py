"""Labels by one linear layer (Singh et al. 2023, arXiv 2303.13496, whose hashtags are findings here)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import MapEncoder, TokenEncoder
from ray_mae.encoders.registry import build_encoder
from ray_mae.methods.base import Context, Losses, Method, Pictures
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.inputs import Inputs, Reader, reader_of
from ray_mae.methods.parts.pictures import volume_rows
from ray_mae.methods.supervised.settings import SupervisedSettings
from ray_mae.transforms.images import denormalise

TITLE = "image, then rows of labels: predicted, true"
UNKNOWN = 0.5
"""Grey of a label that is not known."""


class Supervised(Method):
    """Encoder and a linear layer, shared by all views of a study."""

    encoder: TokenEncoder | MapEncoder

    def __init__(
        self, settings: SupervisedSettings, encoder: TokenEncoder | MapEncoder, reader: Reader
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.width, len(settings.names))
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)
        self.reader = reader

    @classmethod
    def build(
        cls, settings: SupervisedSettings, encoder: EncoderSettings, context: Context
    ) -> "Supervised":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, (TokenEncoder, MapEncoder))
        return cls(settings, network, reader_of(context, encoder))

    def forward(self, batch: Any, step: int, watch: bool = False) -> Losses:
        """Weighted binary cross-entropy, a mean over the known labels of a sample, then over samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        inputs = self.reader(batch)
        z = self.vectors(inputs)  # [N, D]
        each = loss_of(self.logits(z, inputs), batch.target, batch.target_weight)  # [S]
        total = each.mean()
        ratios = signs_of_collapse(z, inputs) if watch else {}
        return Losses(total, {"labels": total.detach()}, ratios, each.detach())

    def vectors(self, inputs: Inputs) -> Tensor:
        """[N, D] of each input, all of which is seen."""
        if isinstance(self.encoder, MapEncoder):
            return self.encoder.skips(inputs.x)[-1].flatten(2).mean(2)
        draw = inputs.draw if self.training else None  # of paths that are dropped
        tokens = self.encoder(inputs.x, view=inputs.view, draw=draw)  # [N, prefix + L, D]
        return tokens[:, 0] if self.settings.pool == "cls" else self._mean(tokens)

    def _mean(self, tokens: Tensor) -> Tensor:
        return tokens[:, self.encoder.prefix :].mean(1)

    def logits(self, z: Tensor, inputs: Inputs) -> Tensor:
        """[S, L] float32 of vectors [N, D]: the mean over a sample's inputs."""
        logits: Tensor = inputs.per_sample(self.classifier(z).float())
        return logits

    @torch.no_grad()
    def pictures(self, batch: Any, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """The first input of each sample beside its labels: black is no, white yes, grey not known."""
        inputs = self.reader.plain(batch)
        predicted = self.logits(self.vectors(inputs), inputs).sigmoid()  # [S, L]
        first = torch.arange(len(inputs.x), device=predicted.device)
        if inputs.sample is not None:
            first = torch.searchsorted(inputs.sample, first[: inputs.samples])
        x = inputs.x[first]
        image = volume_rows(x) if x.ndim == 5 else denormalise(x)[:, 0].flatten(0, 1)  # [S·H, W]
        true = torch.full_like(predicted, UNKNOWN)
        if batch.target is not None:
            true = torch.where(batch.target_weight > 0, batch.target, true)
        cells = torch.stack([predicted, true], dim=1)  # [S, 2, L]
        side = (image.shape[0] // len(x), image.shape[1])
        labels = F.interpolate(cells[:, None], side, mode="nearest").flatten(0, 2)
        return Pictures({TITLE: torch.cat([image, labels.to(image)], dim=1)})

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), products and convolutions only."""
        if isinstance(self.encoder, MapEncoder):
            work = self.encoder.flops(self.encoder.settings.input_size)
        else:
            work = self.encoder.flops(self.encoder.prefix + self.encoder.patches)
        return 3.0 * images * (work + 2.0 * self.classifier.weight.numel())


def loss_of(logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Tensor:
    """Weighted binary cross-entropy [S] of logits [S, L], a mean over the known targets of each sample.

    Args:
        logits: of the labels.
        target: [S, L] 0 or 1; None where a batch brings no labels along.
        weight: [S, L] factor of each, 0 where it is not known. A sample of which nothing is known gives 0.
    """
    if target is None or weight is None:
        target, weight = torch.zeros_like(logits), torch.zeros_like(logits)
    each = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    return each.sum(1) / (weight > 0).sum(1).clamp(min=1)
