"""SimMIM (Xie et al. 2022, arXiv 2111.09886) of volumes: the residual encoder and a linear head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ray_mae.batch import VolumeBatch
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.resenc import ResEnc
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.methods.base import Context, Losses, Method, Pictures
from ray_mae.methods.parts.collapse import effective_rank
from ray_mae.methods.parts.losses import region_mean
from ray_mae.methods.parts.masking import random_blocks
from ray_mae.methods.parts.pictures import volume_rows
from ray_mae.methods.simmim3d.settings import Simmim3dSettings
from ray_mae.transforms.volumes import VolumeAugmentation, clean


class Simmim3d(Method):
    """The whole pretraining model: encoder, the value of hidden voxels and a linear head to voxels."""

    encoder: ResEnc

    def __init__(
        self, settings: Simmim3dSettings, encoder: ResEnc, *, augment: VolumeAugmentation
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder
        self.mask = nn.Parameter(torch.zeros(1))  # begins at a volume's mean
        self.head = nn.Conv3d(encoder.width, encoder.stride**3, 1)
        self.crop_size = encoder.settings.crop_size
        self.augment = augment

    @classmethod
    def build(
        cls, settings: Simmim3dSettings, encoder: ResEncSettings, context: Context
    ) -> "Simmim3d":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, ResEnc)
        return cls(settings, network, augment=VolumeAugmentation.of(context.volumes))

    def no_weight_decay(self) -> set[str]:
        return {"mask"}

    def forward(self, batch: VolumeBatch, step: int, watch: bool = False) -> Losses:
        """L1 over the hidden, valid voxels of B volumes, a mean over the volumes.

        watch: record the effective rank of the features as well.
        """
        x, valid = self.augment(batch)  # [B, 1, D, H, W]
        hidden = self.hidden(x, batch.draw)  # [B, 1, D, H, W]
        h = self.encoder.skips(self.masked(x, hidden), None)[-1]  # [B, C, D/s, H/s, W/s]
        error = (self.voxels(h) - x).abs()  # [B, 1, D, H, W]
        each = region_mean(error, hidden & valid)  # [B]

        total = each.mean()
        ratios = {}
        if watch:
            # no cosine: vectors of instance-normalised channels are alike in every such network
            ratios["effective_rank"] = effective_rank(h.detach().float().mean((2, 3, 4)))
        return Losses(total, {"reconstruction": total.detach()}, ratios, each.detach())

    def hidden(self, x: Tensor, draw: Tensor) -> Tensor:
        """[B, 1, D, H, W] bool: whole blocks of volumes x of that shape, by the keys draw [B]."""
        grid = [side // self.settings.block_size for side in x.shape[2:]]
        ratio = torch.full((len(x),), self.settings.mask_ratio, device=x.device)
        hidden = random_blocks(draw, grid[0] * grid[1] * grid[2], ratio).view(-1, 1, *grid)
        for axis in (2, 3, 4):
            hidden = hidden.repeat_interleave(self.settings.block_size, dim=axis)
        return hidden

    def masked(self, x: Tensor, hidden: Tensor) -> Tensor:
        """x [B, 1, D, H, W] with the learnt value where it is hidden."""
        return torch.where(hidden, self.mask.to(x.dtype), x)

    def voxels(self, h: Tensor) -> Tensor:
        """The last map h [B, C, d, h, w] → [B, 1, d·s, h·s, w·s] float32, s the encoder's stride."""
        return shuffle(self.head(h), self.encoder.stride).float()

    @torch.no_grad()
    def pictures(
        self, batch: VolumeBatch, decode: Callable[[list[int]], str] | None = None
    ) -> Pictures:
        """Per volume, original, masked and reconstructed: the middle axial slice, right on the left."""
        x, _ = clean(batch)
        hidden = self.hidden(x, batch.draw)
        masked = self.masked(x, hidden)
        found = self.voxels(self.encoder.skips(masked, None)[-1])
        rows = volume_rows(x, masked, torch.where(hidden, found, x))
        return Pictures({"original, masked, reconstructed": rows})

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), convolutions only."""
        points = (self.crop_size // self.encoder.stride) ** 3  # of the last map
        head = 2.0 * points * self.head.weight.numel()
        return 3.0 * images * (self.encoder.flops(self.crop_size) + head)


def shuffle(x: Tensor, s: int) -> Tensor:
    """[B, s³, d, h, w] → [B, 1, d·s, h·s, w·s]: the channels of a point are the voxels of its cube."""
    B, _, d, h, w = x.shape
    cubes = x.view(B, s, s, s, d, h, w).permute(0, 4, 1, 5, 2, 6, 3)  # [B, d, s, h, s, w, s]
    return cubes.reshape(B, 1, d * s, h * s, w * s)
