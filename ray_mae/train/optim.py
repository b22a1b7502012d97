"""The optimiser of a run: groups of parameters, learning rate by step, precision."""

import inspect
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ray_mae.config.sections import OptimConfig


def resolve_precision(precision: str) -> str:
    """Returns fp32 or bf16; auto is bf16 where a GPU supports it."""
    if precision != "auto":
        return precision
    able = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if able else "fp32"


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns parameters with and without weight decay, in two groups.

    Decayed are matrices alone: no norms, biases and embeddings, and nothing that a module names by
    `no_weight_decay()`, as encoders and methods do.

    Args:
        module: parameters that are not trained are left out.
        weight_decay: of the first group.
    """
    exempt = {id(p) for p in module.parameters() if p.ndim == 1}
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            exempt.add(id(part.weight))
        named: Any = getattr(part, "no_weight_decay", set)
        exempt |= {id(part.get_parameter(name)) for name in named() if _is_parameter(part, name)}
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in exempt], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in exempt], "weight_decay": 0.0},
    ]


def scaled_groups(
    model: nn.Module, weight_decay: float, layer_scale: Callable[[str], float]
) -> list[dict[str, Any]]:
    """Returns parameters by weight decay and by scale of the learning rate; each group has its `scale`.

    Args:
        model: parameters that are not trained are left out.
        weight_decay: of matrices.
        layer_scale: share of the learning rate that a parameter has, by its name.
    """
    scale = {id(p): layer_scale(name) for name, p in model.named_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in parameter_groups(model, weight_decay):
        for p in group["params"]:
            groups.setdefault((group["weight_decay"], scale[id(p)]), []).append(p)
    return [
        {"params": params, "weight_decay": decay, "scale": by}
        for (decay, by), params in groups.items()
    ]


def _is_parameter(module: nn.Module, name: str) -> bool:
    """Whether it is one, and not a buffer: fixed positions are."""
    return name in dict(module.named_parameters())


def optimizer_of(
    groups: list[dict[str, Any]], optim: OptimConfig, *, fused: bool = False, own: bool = True
) -> torch.optim.Optimizer:
    """Returns AdamW or SGD; the loop sets the learning rate before each step.

    Args:
        groups: by `parameter_groups`.
        optim: settings.
        fused: all of a step in one operator, of parameters that are where they stay.
        own: of a class that starts faster; DeepSpeed knows PyTorch's alone.
    """
    # torch's own AdamW: DeepSpeed's fused one would compile an operator for minutes
    kind: Any = torch.optim.SGD if optim.optimizer == "sgd" else torch.optim.AdamW
    if own:
        kind = _own(kind)
    if optim.optimizer == "sgd":
        return kind(groups, lr=optim.base_lr, momentum=optim.momentum, nesterov=True, fused=fused)
    return kind(groups, lr=optim.base_lr, betas=optim.betas, fused=fused)


def without_compiler(method: Callable[..., Any]) -> None:
    """Keeps a method of PyTorch's from importing its compiler, only to ask not to be compiled.

    Where the answer is looked for first, it is the method itself.
    """
    plain = inspect.unwrap(method)
    vars(plain).setdefault("__dynamo_disable", plain)


@lru_cache
def _own(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The same optimiser, which does not import PyTorch's compiler: a second or two of each process.

    PyTorch's own does so at the first step and in a few methods; we compile networks alone.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        without_compiler(getattr(torch.optim.Optimizer, name))
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(inspect.unwrap(kind.step))})


def with_momentum(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Gives an SGD its momentum of zeros, which is where it begins; returns the optimiser.

    Its fused operator would make it of memory as it comes, and leave it so where a first step is skipped.
    """
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


POWER = 0.9
"""Of nnU-Net's polynomial decay."""


def learning_rate(
    step: int, *, peak: float, floor: float, warmup: int, steps: int, decay: str = "cosine"
) -> float:
    """Returns the rate of a step: linear from 0 in the warm-up, then down to `floor` at the last step.

    Args:
        step: of the optimiser, from 0.
        peak: rate at the end of the warm-up.
        floor: rate at the last step.
        warmup: steps.
        steps: of the whole run.
        decay: "cosine" (half a cosine) or "poly", (1 − share)^0.9 as nnU-Net.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    left = (1 - share) ** POWER if decay == "poly" else 0.5 * (1 + math.cos(math.pi * share))
    return floor + (peak - floor) * left


def weight_decay(step: int, *, first: float, last: float | None, steps: int) -> float | None:
    """Returns the decay of a step, from `first` to `last` by half a cosine; None where it does not change.

    Args:
        step: of the optimiser, from 0.
        first: decay at the first step.
        last: decay at the last step; None: the first.
        steps: of the whole run.
    """
    if last is None:
        return None
    return last + (first - last) * 0.5 * (
        1 + math.cos(math.pi * min(1.0, step / max(1, steps - 1)))
    )
