"""The method of a run, and how its samples are packed."""

from typing import TYPE_CHECKING

from ray_mae.config import (
    AnyPretrainConfig,
    AnyRun,
    MdaeConfig,
    MvmaeConfig,
    MvmaeRun,
    PretrainConfig,
)
from ray_mae.data.loading.collator import Packing
from ray_mae.data.loading.study_collator import StudyPacking
from ray_mae.data.loading.tokenizer import special_ids
from ray_mae.data.loading.volume_collator import VolumePacking
from ray_mae.methods.shapes import shapes
from ray_mae.methods.volume_shapes import stages_of
from ray_mae.train.plan import Plan

if TYPE_CHECKING:
    from ray_mae.methods.method import Method


def method_of(config: AnyRun, plan: Plan, tokenizer: str | None, vocabulary: int = 0) -> "Method":
    """With fresh weights, the same for the same seed. Imports PyTorch.

    vocabulary: size of a tokenizer that is still to be trained, where it is not given.
    """
    recompute = config.engine.activation_checkpointing
    if isinstance(config.method, MdaeConfig):
        from ray_mae.methods.mdae_build import build_mdae

        return build_mdae(config.method, seed=config.seed, recompute=recompute)
    from ray_mae.methods.build import build_method

    assert isinstance(config, MvmaeRun)
    text = special_ids(tokenizer) if tokenizer else None
    return build_method(
        config.method,
        config.data,
        seed=config.seed,
        warmup_steps=plan.warmup_steps,
        steps=plan.steps,
        vocabulary=text.size if text else vocabulary,
        special_ids=(text.pad, text.first, text.last, text.mask) if text else (0, 2, 3, 4),
        recompute=recompute,
    )


def check_sizes(config: MvmaeConfig | MdaeConfig) -> None:
    """Raise ValueError, naming settings, where the sizes of a network do not fit together."""
    if isinstance(config, MdaeConfig):
        stages_of(config)
    else:
        shapes(config)


def packing_of(config: AnyPretrainConfig, tokenizer: str | None) -> Packing:
    """How rows of the shards become the method's batches."""
    if isinstance(config, PretrainConfig):
        data = config.data
        return StudyPacking(data.max_views, data.text, tokenizer, data.max_tokens, config.seed)
    return VolumePacking(config.method.crop_size, config.seed)


def text_of(config: AnyPretrainConfig) -> str | None:
    """Which report section the method reads; None for a method without text."""
    with_text = isinstance(config, PretrainConfig) and config.method.gamma > 0
    return config.data.text if with_text else None  # type: ignore[union-attr]
