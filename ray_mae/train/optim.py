"""The optimiser of a run: groups of parameters, learning rate by step, precision."""

import math
from typing import Any

import torch
from torch import nn

from ray_mae.config import OptimConfig


def resolve_precision(wanted: str) -> str:
    """fp32 or bf16; auto takes bf16 where a GPU supports it."""
    if wanted != "auto":
        return wanted
    able = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if able else "fp32"


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices of linear layers alone: none for norms, biases, tables of embeddings."""
    tables = {
        id(p)
        for m in module.modules()
        for name, p in m.named_parameters(recurse=False)
        if isinstance(m, nn.Embedding) or name in ("cls", "mask", "position", "view")
    }
    trained = [p for p in module.parameters() if p.requires_grad]
    plain = [p for p in trained if p.ndim == 1 or id(p) in tables]
    exempt = {id(p) for p in plain}
    decayed = [p for p in trained if id(p) not in exempt]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def optimizer_of(groups: list[dict[str, Any]], optim: OptimConfig) -> torch.optim.Optimizer:
    """AdamW or SGD; the loop sets the learning rate before each step."""
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optim.base_lr, momentum=optim.momentum, nesterov=True)
    # torch's own AdamW: DeepSpeed's fused one would compile an operator for minutes
    return torch.optim.AdamW(groups, lr=optim.base_lr, betas=optim.betas)


POWER = 0.9
"""Of nnU-Net's polynomial decay."""


def learning_rate(
    step: int, *, peak: float, floor: float, warmup: int, steps: int, decay: str = "cosine"
) -> float:
    """Linear from 0 in the first `warmup` steps, then down to `floor` at the last one.

    step: 0-based optimiser step. decay: "cosine" (half a cosine) or "poly", (1 - share)^0.9.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    left = (1 - share) ** POWER if decay == "poly" else 0.5 * (1 + math.cos(math.pi * share))
    return floor + (peak - floor) * left
