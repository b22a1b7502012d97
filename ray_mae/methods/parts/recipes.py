"""Optimisers with which several methods are trained. Needs no PyTorch."""

from ray_mae.config.sections import OptimConfig

NNSSL_MAPS = OptimConfig(
    optimizer="sgd",
    lr=0.01,
    decay="poly",
    weight_decay=3e-5,
    clip=12.0,
    warmup=0.0,
    batch_size=32,
    micro_batch_size=2,
    steps=250_000,
)
"""nnssl's of U-Nets of volumes, with a batch of 32."""
NNSSL_TOKENS = OptimConfig(
    lr=3e-4,
    betas=(0.9, 0.98),
    decay="poly",
    warmup=0.05,
    batch_size=32,
    micro_batch_size=2,
    steps=250_000,
)
"""nnssl's of transformers of volumes, with a batch of 32."""
