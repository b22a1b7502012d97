"""MAE (He et al. 2022, arXiv 2111.06377): visible patches → tokens → hidden patches."""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import gather, patchify, put
from ray_mae.encoders.registry import build_encoder
from ray_mae.methods.base import Batch, Context, Losses, Pictures
from ray_mae.methods.mae.settings import MaeSettings
from ray_mae.methods.parts.attention_masks import Guide
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.inputs import Inputs, Reader, reader_of
from ray_mae.methods.parts.losses import reconstruction, unnormalised
from ray_mae.methods.parts.masking import Masks, some_of
from ray_mae.methods.parts.pictures import reconstruction_of_patches
from ray_mae.methods.parts.pixel_decoder import PixelDecoder
from ray_mae.methods.parts.spread import spread
from ray_mae.methods.parts.targets import PredictingMethod, prediction_of, weighed


class Decoded(NamedTuple):
    """What the network makes of N inputs."""

    patches: Tensor
    """[N, L, P] the inputs'."""
    visible: Tensor
    """[N, V] indices of those that the encoder sees."""
    hidden: Tensor
    """[N, M] of those that are decoded."""
    tokens: Tensor
    """[N, prefix + V, D] of the encoder."""
    features: Tensor
    """[N, M, Dd] of the decoder."""
    pixels: Tensor | None
    """[N, M, P]; None where they are not predicted."""


class MaeTokens(PredictingMethod):
    """The whole pretraining model: encoder of visible patches, and a decoder to hidden ones."""

    encoder: TokenEncoder

    def __init__(
        self,
        settings: MaeSettings,
        encoder: TokenEncoder,
        decoder: PixelDecoder,
        reader: Reader,
        steps: int,
    ) -> None:
        """steps: of the run."""
        super().__init__()
        self.settings = settings
        self.encoder, self.decoder = encoder, decoder
        self.reader = reader
        self.masks = Masks(settings, encoder.grid, settings.mask_ratio, steps)
        hidden = encoder.patches - self.masks.visible
        self.decoded = max(1, round(settings.decode_share * hidden))
        if not settings.predicts_pixels:
            decoder.pixels = None

    @classmethod
    def build(cls, settings: MaeSettings, encoder: EncoderSettings, context: Context) -> Self:
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, TokenEncoder)
        shape = settings.decoder_shape(encoder)
        decoder = PixelDecoder(
            shape, network, attention=settings.decoder, recompute=context.recompute
        )
        model = cls(settings, network, decoder, reader_of(context, encoder), context.steps)
        model.prediction = prediction_of(settings, network, shape.width, context)
        return model

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """The error of hidden patches of N inputs, a mean over their samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        inputs = self.reader(batch)
        return self.losses(self.decode(inputs, step), inputs, step, watch)

    def decode(self, inputs: Inputs, step: int | None = None) -> Decoded:
        """What the network makes of inputs, of which it sees a share of the patches.

        step: optimiser steps done, which masks may depend on; None is the last, and drops nothing.
        """
        patches = patchify(inputs.x, self.encoder.stride)
        visible, hidden = self.masks(inputs.draw, self.guide(inputs, step))
        if self.training and self.decoded < hidden.shape[1]:
            hidden = some_of(inputs.draw, hidden, self.decoded)
        draw = None if step is None else inputs.draw
        tokens = self.encoder(inputs.x, visible, inputs.view, draw=draw)
        features = self.decoder.features(tokens, visible, hidden, inputs.view)
        pixels = None if self.decoder.pixels is None else self.decoder.pixels(features)
        return Decoded(patches, visible, hidden, tokens, features, pixels)

    def losses(self, found: Decoded, inputs: Inputs, step: int, watch: bool) -> Losses:
        """The losses of what `decode` found, as of `forward`."""
        predicted = pixels = None
        if self.prediction is not None:
            predicted = self.prediction(found.features, inputs, found.hidden)
        if found.pixels is not None:
            valid = None
            if inputs.valid is not None:
                valid = gather(patchify(inputs.valid, self.encoder.stride), found.hidden)
            target = gather(found.patches, found.hidden)
            pixels = reconstruction(found.pixels, target, self.settings.norm_pix, valid)
        errors = weighed(self.settings, predicted, pixels)
        each = inputs.per_sample(errors.total)  # [S]
        z = found.tokens[:, self.encoder.prefix :].mean(1)  # [N, D]
        ratios = errors.ratios | (signs_of_collapse(z, inputs) if watch else {})
        parts = {"reconstruction": inputs.per_sample(errors.shown).mean().detach()}
        losses = Losses(each.mean(), parts, ratios, each.detach())
        return spread(losses, self.settings, z, inputs, step)

    def guide(self, inputs: Inputs, step: int | None = None) -> Guide:
        """What masks may follow at a step; None is the last."""
        return Guide(self.encoder, inputs.x, inputs.view, inputs.valid, step)

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """What was shown, what was reconstructed, the original; without pixels where errors are."""
        inputs = self.reader.plain(batch)
        found = self.decode(inputs)
        hidden = torch.zeros(found.patches.shape[:2], dtype=torch.bool, device=inputs.x.device)
        hidden = hidden.scatter(1, found.hidden, True)
        if found.pixels is None:
            return self.errors_shown(found.features, inputs, hidden, found.hidden)
        pixels = found.pixels.float()
        if self.settings.norm_pix:  # back to grey values, or a viewer sees noise
            pixels = unnormalised(pixels, gather(found.patches, found.hidden))
        return reconstruction_of_patches(
            inputs.x, hidden, put(found.patches, found.hidden, pixels), self.encoder
        )

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), products of matrices only."""
        tokens = self.encoder.prefix + self.masks.visible
        forward = self.encoder.flops(tokens) + self.decoder.flops(tokens, self.decoded)
        return images * (3.0 * forward + self.flops_taught() + self.masks.flops(self.encoder))
