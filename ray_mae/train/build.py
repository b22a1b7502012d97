"""The method of a run."""

from ray_mae.config import PretrainConfig
from ray_mae.data.text import special_ids
from ray_mae.methods.build import build_method
from ray_mae.methods.mvmae import Mvmae
from ray_mae.train.plan import Plan


def method_of(config: PretrainConfig, plan: Plan, tokenizer: str | None) -> Mvmae:
    """With fresh weights, the same for the same seed. Raises ValueError where shapes do not fit."""
    text = special_ids(tokenizer) if tokenizer else None
    return build_method(
        config.method,
        config.data,
        seed=config.seed,
        warmup_steps=plan.warmup_steps,
        steps=plan.steps,
        vocabulary=text.size if text else 0,
        special_ids=(text.pad, text.first, text.last, text.mask) if text else (0, 2, 3, 4),
        recompute=config.engine.activation_checkpointing,
    )
