"""MAE (He et al. 2022, arXiv 2111.06377): visible patches → tokens → hidden patches."""

from collections.abc import Callable

import torch

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import gather, patchify
from ray_mae.encoders.registry import build_encoder
from ray_mae.methods.base import Batch, Context, Losses, Method, Pictures
from ray_mae.methods.mae.settings import MaeSettings
from ray_mae.methods.parts.attention_masks import Guide
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.inputs import Inputs, Reader, reader_of
from ray_mae.methods.parts.losses import reconstruction, unnormalised
from ray_mae.methods.parts.masking import Masks, some_of
from ray_mae.methods.parts.pictures import reconstruction_of_patches
from ray_mae.methods.parts.pixel_decoder import PixelDecoder
from ray_mae.methods.parts.spread import spread


class MaeTokens(Method):
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

    @classmethod
    def build(
        cls, settings: MaeSettings, encoder: EncoderSettings, context: Context
    ) -> "MaeTokens":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, TokenEncoder)
        shape = settings.decoder_shape(encoder)
        decoder = PixelDecoder(shape, network, recompute=context.recompute)
        return cls(settings, network, decoder, reader_of(context, encoder), context.steps)

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """The squared error of hidden patches of N inputs, a mean over their samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        inputs = self.reader(batch)
        patches = patchify(inputs.x, self.encoder.stride)  # [N, L, P]
        visible, hidden = self.masks(inputs.draw, self.guide(inputs, step))  # [N, V], [N, M]
        if self.training and self.decoded < hidden.shape[1]:
            hidden = some_of(inputs.draw, hidden, self.decoded)

        tokens = self.encoder(inputs.x, visible, inputs.view, draw=inputs.draw)  # [N, …, D]
        pixels = self.decoder(tokens, visible, hidden, inputs.view)  # [N, M, P]

        valid = None
        if inputs.valid is not None:
            valid = gather(patchify(inputs.valid, self.encoder.stride), hidden)
        error = reconstruction(pixels, gather(patches, hidden), self.settings.norm_pix, valid)
        each = inputs.per_sample(error)  # [S]
        total = each.mean()
        z = tokens[:, self.encoder.prefix :].mean(1)  # [N, D]
        ratios = signs_of_collapse(z, inputs) if watch else {}
        losses = Losses(total, {"reconstruction": total.detach()}, ratios, each.detach())
        return spread(losses, self.settings, z, inputs, step)

    def guide(self, inputs: Inputs, step: int | None = None) -> Guide:
        """What masks may follow at a step; None is the last."""
        return Guide(self.encoder, inputs.x, inputs.view, inputs.valid, step)

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """What was shown, what was reconstructed, the original."""
        inputs = self.reader.plain(batch)
        patches = patchify(inputs.x, self.encoder.stride)
        visible, hidden = self.masks(inputs.draw, self.guide(inputs))
        tokens = self.encoder(inputs.x, visible, inputs.view)
        pixels = self.decoder(tokens, visible, hidden, inputs.view).float()
        if self.settings.norm_pix:  # back to grey values, or a viewer sees noise
            pixels = unnormalised(pixels, gather(patches, hidden))
        where = hidden[..., None].expand(-1, -1, patches.shape[-1])
        is_hidden = torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device)
        return reconstruction_of_patches(
            inputs.x,
            is_hidden.scatter(1, hidden, True),
            patches.scatter(1, where, pixels),
            self.encoder,
        )

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), products of matrices only."""
        tokens = self.encoder.prefix + self.masks.visible
        forward = self.encoder.flops(tokens) + self.decoder.body.flops(tokens + self.decoded)
        return images * (3.0 * forward + self.masks.flops(self.encoder))
