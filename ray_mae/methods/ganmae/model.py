"""GAN-MAE (Fei et al., CVPR 2023): the encoder is the discriminator of its own decoder's patches, too.

L = L_MAE + L_D, in one backward pass: the gradient of L_D teaches encoder and head to tell real patches from
predicted ones, and turned round, times η, what predicts them to deceive.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import gather, patchify, put, unpatchify
from ray_mae.encoders.vit import initialise
from ray_mae.methods.base import Batch, Losses
from ray_mae.methods.ganmae.settings import GanmaeSettings
from ray_mae.methods.mae.tokens import Decoded, MaeTokens
from ray_mae.methods.parts.inputs import Inputs, Reader
from ray_mae.methods.parts.losses import countable, region_mean, unnormalised
from ray_mae.methods.parts.pixel_decoder import PixelDecoder


class GanMae(MaeTokens):
    """MAE, and a linear head that says of each token of a completed input whether its patch is real."""

    settings: GanmaeSettings

    def __init__(
        self,
        settings: GanmaeSettings,
        encoder: TokenEncoder,
        decoder: PixelDecoder,
        reader: Reader,
        steps: int,
    ) -> None:
        super().__init__(settings, encoder, decoder, reader, steps)
        self.judge = nn.Linear(encoder.width, 1)
        initialise(self.judge)
        self.steps = steps

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """MAE's losses, and the cross-entropy of the judgement on all patches, a mean over samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        inputs = self.reader(batch)
        found = self.decode(inputs, step)
        losses = self.losses(found, inputs, step, watch)
        real = torch.ones_like(found.patches[..., 0]).scatter(1, found.hidden, 0)  # [N, L]: 1 − m
        logits = self.judgement(self.completed(found, self.eta(step)), inputs)  # [N, L]
        counted = self._counted(inputs, real)
        smooth = self.settings.label_smoothing
        label = real * (1 - smooth) + smooth / 2
        error = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
        judged = inputs.per_sample(region_mean(error, counted))  # [S]
        right = ((logits > 0) == (real > 0)).float()
        accuracy = (
            region_mean(right, counted & (real > 0)) + region_mean(right, counted & (real == 0))
        ) / 2  # [N]: of both kinds alike, since one is rarer
        ratio = torch.stack([accuracy.sum(), torch.ones_like(accuracy).sum()])
        assert losses.each is not None
        return Losses(
            losses.total + judged.mean(),
            {**losses.parts, "discriminator": judged.mean().detach()},
            {**losses.ratios, "discriminator_accuracy": ratio.detach()},
            losses.each + judged.detach(),
        )

    def eta(self, step: int) -> float:
        """η at a step: from 0 to its value over the first third of the run."""
        return self.settings.adversarial * min(1.0, 3 * step / self.steps)

    def completed(self, found: Decoded, eta: float) -> Tensor:
        """[N, 1, *sides]: real patches where they were seen, elsewhere the predicted ones.

        Those have the mean and deviation of the true ones, where patches are predicted without. Gradients
        that enter them are turned round, times eta.
        """
        assert found.pixels is not None
        pixels = found.pixels.float()
        if self.settings.norm_pix:
            pixels = unnormalised(pixels, gather(found.patches, found.hidden))
        pixels = turned(pixels, eta)
        whole = put(found.patches, found.hidden, pixels)
        return unpatchify(whole, self.encoder.stride, self.encoder.grid)

    def judgement(self, x: Tensor, inputs: Inputs) -> Tensor:
        """[N, L] logits of whether each patch of x [N, 1, *sides] is real."""
        tokens = self.encoder(x, view=inputs.view)[:, self.encoder.prefix :]
        logits: Tensor = self.judge(tokens)[..., 0].float()
        return logits

    def _counted(self, inputs: Inputs, like: Tensor) -> Tensor:
        """[N, L] bool: patches with something valid."""
        if inputs.valid is None:
            return torch.ones_like(like, dtype=torch.bool)
        return countable(patchify(inputs.valid, self.encoder.stride)).any(2)

    def metrics(self, step: int) -> dict[str, float]:
        """η of this step."""
        return {"eta": self.eta(step)}

    def flops(self, images: int, samples: int) -> float:
        """MAE's and those of a pass over all patches, forward and backward."""
        whole = self.encoder.flops(self.encoder.prefix + self.encoder.patches)
        return super().flops(images, samples) + 3.0 * images * whole


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eta: float) -> Tensor:
        ctx.eta = eta
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slope: Tensor) -> tuple[Tensor, None]:
        return -ctx.eta * slope[0], None


def turned(x: Tensor, eta: float) -> Tensor:
    """Returns x itself, whose gradient is turned round, times eta (Ganin and Lempitsky 2015)."""
    result: Tensor = _Turned.apply(x, eta)
    return result
