"""MAE of encoders with maps, which do not see what is hidden: SparK of a U-Net, FCMAE of ConvNeXt V2."""

from collections.abc import Callable
from math import prod
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import MapEncoder
from ray_mae.encoders.convnextv2 import ConvNextV2
from ray_mae.encoders.patches import gather, patchify, unpatchify
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.sparse import Active
from ray_mae.methods.base import Batch, Context, Losses, Method, Pictures
from ray_mae.methods.mae.settings import MaeSettings
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.inputs import Reader, reader_of
from ray_mae.methods.parts.losses import reconstruction, unnormalised
from ray_mae.methods.parts.masking import Masks
from ray_mae.methods.parts.pictures import reconstruction_of
from ray_mae.methods.parts.spread import spread


class MapDecoder(Protocol):
    """Maps of what is seen → all of the input."""

    def __call__(self, maps: list[Tensor], active: Active) -> Tensor:
        """[N, 1, *sides] from maps [N, C, *sides / s], the finest first, that are 0 where hidden."""
        ...

    def no_weight_decay(self) -> set[str]: ...

    def flops(self, side: int) -> float:
        """Forward of one input with sides of `side` pixels or voxels."""
        ...


class MaeMaps(Method):
    """The whole pretraining model: an encoder of the visible units, and a decoder to hidden ones."""

    encoder: MapEncoder

    def __init__(
        self, settings: MaeSettings, encoder: MapEncoder, decoder: MapDecoder, reader: Reader
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder, self.decoder = encoder, cast(nn.Module, decoder)
        self.reader = reader
        self.size, self.unit = encoder.settings.input_size, settings.unit(encoder.settings)
        self.grid = (self.size // self.unit,) * encoder.settings.dimensions
        self.choose = Masks(settings, self.grid, settings.mask_ratio)

    @classmethod
    def build(cls, settings: MaeSettings, encoder: EncoderSettings, context: Context) -> "MaeMaps":
        torch.manual_seed(context.seed)
        network, decoder = halves(settings, encoder, recompute=context.recompute)
        return cls(settings, network, decoder, reader_of(context, encoder))

    def no_weight_decay(self) -> set[str]:
        return {f"decoder.{name}" for name in cast(MapDecoder, self.decoder).no_weight_decay()}

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """The squared error of hidden units of N inputs, a mean over their samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        inputs = self.reader(batch)
        active, hidden = self.masks(inputs.draw)
        maps = self.encoder.skips(inputs.x, active=active)
        error = self.error(self.decoder(maps, active), inputs.x, inputs.valid, hidden)
        each = inputs.per_sample(error)  # [S]
        total = each.mean()
        z = maps[-1].flatten(2).mean(2)  # [N, C]
        ratios = signs_of_collapse(z, inputs) if watch else {}
        losses = Losses(total, {"reconstruction": total.detach()}, ratios, each.detach())
        return spread(losses, self.settings, z, inputs, step)

    def error(self, made: Tensor, x: Tensor, valid: Tensor | None, hidden: Tensor) -> Tensor:
        """[N] squared error of the hidden units [N, M] of what was made of x, [N, 1, *sides] both.

        valid: [N, 1, *sides] bool, which voxels count; None: all do.
        """
        parts = (None if part is None else self.units_of(part, hidden) for part in (made, x, valid))
        pixels, target, counted = parts
        assert pixels is not None
        assert target is not None
        return reconstruction(pixels, target, self.settings.norm_pix, counted)

    def units_of(self, x: Tensor, hidden: Tensor) -> Tensor:
        """The hidden units [N, M] of x [N, 1, *sides]: [N, M, P]."""
        return gather(patchify(x, self.unit), hidden)

    def masks(self, draw: Tensor) -> tuple[Active, Tensor]:
        """What is seen, and indices [N, M] of hidden units, as many in every input, by the keys draw [N]."""
        _, hidden = self.choose(draw)
        shown = torch.ones(len(draw), prod(self.grid), dtype=torch.bool, device=draw.device)
        return Active(shown.scatter(1, hidden, False).view(-1, *self.grid)), hidden

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """What was shown, what was reconstructed, the original."""
        inputs = self.reader.plain(batch)
        active, _ = self.masks(inputs.draw)
        made = self.decoder(self.encoder.skips(inputs.x, active=active), active)
        return reconstruction_of(inputs.x, *self.filled(inputs.x, made, active))

    def filled(self, x: Tensor, made: Tensor, active: Active) -> tuple[Tensor, Tensor]:
        """Inputs x without what is hidden, and with what was made in its place, [N, 1, *sides] each."""
        made = made.float()
        if self.settings.norm_pix:  # back to grey values, or a viewer sees noise
            units = unnormalised(patchify(made, self.unit), patchify(x, self.unit))
            made = unpatchify(units, self.unit, self.grid)
        seen = active.at(tuple(x.shape[2:]))
        return torch.where(seen, x, 0), torch.where(seen, x, made)

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward): a masked convolution costs what the dense one does."""
        decoder = cast(MapDecoder, self.decoder).flops(self.size)
        return 3.0 * images * (self.encoder.flops(self.size) + decoder)


def halves(
    settings: MaeSettings, encoder: EncoderSettings, *, recompute: bool = False
) -> tuple[MapEncoder, MapDecoder]:
    """Returns an encoder and its decoder with fresh weights, by PyTorch's global seed."""
    if isinstance(encoder, ResEncSettings):
        from ray_mae.methods.mae.spark import unet  # the library of U-Nets takes a second to import

        return unet(encoder, recompute=recompute)
    from ray_mae.methods.mae.fcmae import PointDecoder

    network = build_encoder(encoder, recompute=recompute)
    assert isinstance(network, ConvNextV2)
    width, depth = settings.point_decoder(encoder)
    return network, PointDecoder(network, width, depth)
