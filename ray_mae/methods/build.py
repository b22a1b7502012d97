"""From settings to a method."""

import torch

from ray_mae.config import DataConfig, MvmaeConfig
from ray_mae.methods.captioner import Captioner
from ray_mae.methods.mvmae import Mvmae, ramp
from ray_mae.methods.shapes import shapes
from ray_mae.methods.vit import Encoder, PixelDecoder
from ray_mae.transforms.images import Augmentation


def build_encoder(config: MvmaeConfig, recompute: bool = False) -> Encoder:
    """The encoder alone."""
    return Encoder(
        shapes(config)[0],
        image_size=config.image_size,
        patch_size=config.patch_size,
        qk_norm=config.qk_norm,
        positions=config.positions,
        recompute=recompute,
    )


def build_method(
    config: MvmaeConfig,
    data: DataConfig,
    *,
    seed: int,
    warmup_steps: int,
    steps: int,
    vocabulary: int = 0,
    special_ids: tuple[int, int, int, int] = (0, 2, 3, 4),
    recompute: bool = False,
) -> Mvmae:
    """The method with fresh weights, the same for the same seed.

    vocabulary: size of the tokenizer; special_ids: padding, first, last and mask token.
    """
    torch.manual_seed(seed)
    encoder_shape, decoder_shape = shapes(config)
    encoder = build_encoder(config, recompute)
    decoder = PixelDecoder(
        decoder_shape,
        encoder_width=encoder_shape.width,
        patches=encoder.patches,
        patch_size=config.patch_size,
        qk_norm=config.qk_norm,
        positions=config.positions,
        recompute=recompute,
    )
    captioner = None
    if config.gamma > 0:
        captioner = Captioner(
            encoder_width=encoder_shape.width,
            patches=encoder.patches,
            vocabulary=vocabulary,
            max_tokens=data.max_tokens,
            depth=config.caption_depth,
            heads=config.caption_heads,
            mlp_ratio=config.caption_mlp_ratio,
            mask_id=special_ids[3],
        )
    return Mvmae(
        encoder,
        decoder,
        captioner,
        image_size=config.image_size,
        patch_size=config.patch_size,
        mask_ratio=config.mask_ratio,
        augment=Augmentation(
            data.crop_scale, data.brightness, data.contrast, data.jitter_share, data.flip
        ),
        beta=ramp(config.beta, warmup_steps, steps),
        gamma=config.gamma,
        norm_pix=config.norm_pix,
        alignment=config.alignment,
        alignment_tokens=config.alignment_tokens,
        alignment_reduction=config.alignment_reduction,
        alignment_temperature=config.alignment_temperature,
        caption_memory=config.caption_memory,
        caption_parallel_share=config.caption_parallel_share,
        special_ids=special_ids[:3],
    )
