"""From settings to MDAE."""

import torch

from ray_mae.config import MdaeConfig
from ray_mae.methods.corruption import Corruption
from ray_mae.methods.mdae import Mdae
from ray_mae.methods.unet import VolumeDecoder, VolumeEncoder, residual_unet
from ray_mae.methods.volume_shapes import stages_of
from ray_mae.transforms.volumes import VolumeAugmentation


def build_mdae(config: MdaeConfig, *, seed: int, recompute: bool = False) -> Mdae:
    """The method with fresh weights, the same for the same seed.

    recompute: activations again in the backward pass, stage by stage. Raises ValueError for sizes
    that do not fit together.
    """
    torch.manual_seed(seed)
    net = residual_unet(stages_of(config))
    return Mdae(
        VolumeEncoder(net.encoder, film=config.film, recompute=recompute),
        VolumeDecoder(net.decoder, film=config.film, recompute=recompute),
        crop_size=config.crop_size,
        corruption=Corruption(
            noise=config.noise,
            sigma_max=config.sigma_max,
            mask_ratio=config.mask_ratio,
            masking=config.masking,
            block_size=config.block_size,
        ),
        augment=VolumeAugmentation(
            config.mirror, config.rotate_share, config.scale_share, config.scale_range
        ),
        weighting=config.weighting,
        lambda_masked=config.lambda_masked,
        lambda_visible=config.lambda_visible,
        mask_repeats=config.mask_repeats,
    )


def build_volume_encoder(config: MdaeConfig, recompute: bool = False) -> VolumeEncoder:
    """The encoder alone, with fresh weights."""
    net = residual_unet(stages_of(config))
    return VolumeEncoder(net.encoder, film=config.film, recompute=recompute)
