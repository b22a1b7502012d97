"""SimMIM (Xie et al. 2022, arXiv 2111.09886) of encoders with maps: a learnt value, and a linear head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import MapEncoder
from ray_mae.encoders.patches import enlarge, unpatchify
from ray_mae.encoders.registry import build_encoder
from ray_mae.methods.base import Batch, Context, Losses, Method, Pictures
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.inputs import Reader, reader_of
from ray_mae.methods.parts.losses import region_mean
from ray_mae.methods.parts.masking import Masks
from ray_mae.methods.parts.pictures import reconstruction_of
from ray_mae.methods.parts.spread import spread
from ray_mae.methods.simmim.settings import SimmimSettings


class SimmimMaps(Method):
    """The whole pretraining model: encoder, the value of what is hidden and a linear head."""

    encoder: MapEncoder

    def __init__(self, settings: SimmimSettings, encoder: MapEncoder, reader: Reader) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder
        self.mask = nn.Parameter(torch.zeros(1))  # begins at an input's mean
        self.dimensions = encoder.settings.dimensions
        kernel = nn.Conv2d if self.dimensions == 2 else nn.Conv3d
        self.head = kernel(encoder.width, encoder.stride**self.dimensions, 1)
        self.size = encoder.settings.input_size
        self.reader = reader
        self.masks = Masks(settings, settings.units(encoder.settings), settings.mask_ratio)

    @classmethod
    def build(
        cls, settings: SimmimSettings, encoder: EncoderSettings, context: Context
    ) -> "SimmimMaps":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, MapEncoder)
        return cls(settings, network, reader_of(context, encoder))

    def no_weight_decay(self) -> set[str]:
        return {"mask"}

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """L1 over the hidden, valid pixels or voxels of N inputs, a mean over their samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        inputs = self.reader(batch)
        hidden = self.hidden(inputs.draw)  # [N, 1, *sides]
        h = self.encoder.skips(self.masked(inputs.x, hidden))[-1]  # [N, C, *sides / s]
        error = (self.values(h) - inputs.x).abs()  # [N, 1, *sides]
        each = inputs.per_sample(region_mean(error, inputs.counted(hidden)))  # [S]
        total = each.mean()
        z = h.flatten(2).mean(2)  # [N, D]
        ratios = signs_of_collapse(z, inputs) if watch else {}
        losses = Losses(total, {"reconstruction": total.detach()}, ratios, each.detach())
        return spread(losses, self.settings, z, inputs, step)

    def hidden(self, draw: Tensor) -> Tensor:
        """[N, 1, *sides] bool: whole units, as many in every input, by the keys draw [N]."""
        return enlarge(self.masks.hidden(draw), self.settings.unit(self.encoder.settings))[:, None]

    def masked(self, x: Tensor, hidden: Tensor) -> Tensor:
        """x [N, 1, *sides] with the learnt value where it is hidden."""
        return torch.where(hidden, self.mask.to(x.dtype), x)

    def values(self, h: Tensor) -> Tensor:
        """The last map h [N, C, *grid] → [N, 1, *(s · grid)] float32, s the encoder's stride."""
        cubes = self.head(
            h
        )  # [N, s^d, *grid]: the channels of a point are the pixels of its square
        tokens = cubes.flatten(2).transpose(1, 2)
        return unpatchify(tokens, self.encoder.stride, tuple(cubes.shape[2:])).float()

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """What was shown, what was reconstructed, the original."""
        inputs = self.reader.plain(batch)
        hidden = self.hidden(inputs.draw)
        masked = self.masked(inputs.x, hidden)
        found = self.values(self.encoder.skips(masked)[-1])
        return reconstruction_of(inputs.x, masked, torch.where(hidden, found, inputs.x))

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), convolutions only."""
        points = (self.size // self.encoder.stride) ** self.dimensions  # of the last map
        head = 2.0 * points * self.head.weight.numel()
        return 3.0 * images * (self.encoder.flops(self.size) + head)
