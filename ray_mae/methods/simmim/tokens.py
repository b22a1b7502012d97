"""SimMIM (Xie et al. 2022, arXiv 2111.09886) of encoders with tokens: mask tokens, and a linear head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import enlarge, patchify
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.vit import initialise
from ray_mae.methods.base import Batch, Context, Losses, Pictures
from ray_mae.methods.parts.attention_masks import Guide
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.inputs import Inputs, Reader, reader_of
from ray_mae.methods.parts.losses import countable, region_mean
from ray_mae.methods.parts.masking import Masks
from ray_mae.methods.parts.pictures import reconstruction_of_patches
from ray_mae.methods.parts.spread import spread
from ray_mae.methods.parts.targets import (
    PredictingMethod,
    prediction_of,
    weighed,
)
from ray_mae.methods.simmim.settings import SimmimSettings


class SimmimTokens(PredictingMethod):
    """The whole pretraining model: encoder, mask token and a linear head to pixels or voxels."""

    encoder: TokenEncoder

    def __init__(
        self, settings: SimmimSettings, encoder: TokenEncoder, reader: Reader, steps: int
    ) -> None:
        """steps: of the run."""
        super().__init__()
        self.settings = settings
        self.encoder = encoder
        self.mask = nn.Parameter(torch.randn(encoder.width) * 0.02)
        head = nn.Linear(encoder.width, encoder.stride ** len(encoder.grid))
        initialise(head)
        self.head = head if settings.predicts_pixels else None
        self.reader = reader
        units = settings.units(encoder.settings)
        self.masks = Masks(settings, units, settings.mask_ratio, steps)

    @classmethod
    def build(
        cls, settings: SimmimSettings, encoder: EncoderSettings, context: Context
    ) -> "SimmimTokens":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, TokenEncoder)
        model = cls(settings, network, reader_of(context, encoder), context.steps)
        model.prediction = prediction_of(settings, network, network.width, context)
        return model

    def no_weight_decay(self) -> set[str]:
        return {"mask"}

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """L1 over the hidden, valid pixels or voxels of N inputs, or the target's error; a mean over samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        inputs = self.reader(batch)
        patches = patchify(inputs.x, self.encoder.stride)  # [N, L, P]
        hidden = self.hidden(inputs.draw, self.guide(inputs, step))  # [N, L]

        masked = (hidden, self.mask)
        tokens = self.encoder(inputs.x, view=inputs.view, masked=masked, draw=inputs.draw)
        tokens = tokens[:, self.encoder.prefix :]  # [N, L, D]
        predicted = pixels = None
        if self.prediction is not None:
            predicted = self.prediction(tokens, inputs, among=hidden)
        if self.head is not None:
            error = (self.head(tokens).float() - patches).abs()  # [N, L, P]
            counted = hidden[..., None].expand_as(error)
            if inputs.valid is not None:
                counted = counted & countable(patchify(inputs.valid, self.encoder.stride))
            pixels = region_mean(error, counted)
        errors = weighed(self.settings, predicted, pixels)
        each = inputs.per_sample(errors.total)  # [S]
        z = tokens.mean(1)  # [N, D]
        ratios = errors.ratios | (signs_of_collapse(z, inputs) if watch else {})
        parts = {"reconstruction": inputs.per_sample(errors.shown).mean().detach()}
        losses = Losses(each.mean(), parts, ratios, each.detach())
        return spread(losses, self.settings, z, inputs, step)

    def hidden(self, draw: Tensor, guide: Guide | None = None) -> Tensor:
        """[N, L] bool: the patches of the hidden units, as many in every input, by the keys draw [N]."""
        patches = self.settings.unit(self.encoder.settings) // self.encoder.stride  # of a side
        return enlarge(self.masks.hidden(draw, guide), patches).flatten(1)

    def guide(self, inputs: Inputs, step: int | None = None) -> Guide:
        """What masks may follow at a step; None is the last."""
        return Guide(self.encoder, inputs.x, inputs.view, inputs.valid, step)

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """What was shown, what was reconstructed, the original; without pixels where errors are."""
        inputs = self.reader.plain(batch)
        hidden = self.hidden(inputs.draw, self.guide(inputs))
        tokens = self.encoder(inputs.x, view=inputs.view, masked=(hidden, self.mask))
        tokens = tokens[:, self.encoder.prefix :]
        if self.head is None:
            return self.errors_shown(tokens, inputs, hidden)
        return reconstruction_of_patches(inputs.x, hidden, self.head(tokens).float(), self.encoder)

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), products of matrices only."""
        L = self.encoder.patches
        forward = self.encoder.flops(self.encoder.prefix + L)
        if self.head is not None:
            forward += 2 * L * self.head.weight.numel()
        return images * (3.0 * forward + self.flops_taught() + self.masks.flops(self.encoder))
