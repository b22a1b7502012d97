"""SparK (Tian et al. 2023, arXiv 2301.03580) of nnU-Net's U-Net: tokens where its skips have seen nothing.

The paper's own decoder is thrown away afterwards. Here it is the U-Net's, which is pretrained with the
encoder, without a norm and a projection of each skip in between, which a U-Net does not have.
"""

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from ray_mae.encoders.resenc import ResEnc, VolumeDecoder, residual_unet
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.sparse import Active, fill


class SparkDecoder(VolumeDecoder):
    """nnU-Net's decoder, and a token for each of the maps that it reads.

    Args:
        net: nnU-Net's decoder, whose weights it takes over.
        channels: of the encoder's maps, the finest first.
        recompute: activations again in the backward pass, stage by stage.
    """

    def __init__(self, net: UNetDecoder, channels: list[int], *, recompute: bool = False) -> None:
        super().__init__(net, film=False, recompute=recompute)
        self.hidden = nn.ParameterList(torch.randn(C) * 0.02 for C in channels)

    def no_weight_decay(self) -> set[str]:
        return {f"hidden.{i}" for i in range(len(self.hidden))}

    def forward(self, skips: list[Tensor], active: Active) -> Tensor:  # type: ignore[override]
        """Maps [N, C, *sides / s], the finest first → [N, 1, *sides]."""
        dense = [fill(h, token, active) for h, token in zip(skips, self.hidden, strict=True)]
        return super().forward(dense, None)


def unet(settings: ResEncSettings, *, recompute: bool = False) -> tuple[ResEnc, SparkDecoder]:
    """Returns both halves of a U-Net with fresh weights, by PyTorch's global seed."""
    settings.check()
    net = residual_unet(settings.stages)
    encoder = ResEnc(settings, recompute=recompute, net=net.encoder)
    return encoder, SparkDecoder(net.decoder, encoder.channels, recompute=recompute)
