"""Training under supervision: a fixed number of steps, the weights of the best validation kept."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ray_mae.config import FinetuneConfig, OptimConfig, SegmentConfig
from ray_mae.terminal import ProgressLine
from ray_mae.train.optim import learning_rate, optimizer_of, resolve_precision, scaled_groups

B = TypeVar("B")


class Diverged(RuntimeError):
    """The loss of a training is not finite."""


@dataclass(frozen=True)
class Validation:
    """One look at the validation patients."""

    score: float
    """What decides; larger is better."""
    loss: float
    """Between equal scores the smaller one decides."""

    def better_than(self, other: "Validation | None") -> bool:
        return other is None or (self.score, -self.loss) > (other.score, -other.loss)


@dataclass(frozen=True)
class Fit:
    """What a training leaves."""

    step: int
    """After which the weights kept were validated."""
    validation: Validation
    """Of these weights: the best of several, so optimistic."""
    history: list[dict[str, float]]
    """step, loss (mean since the last one), validation_score and validation_loss, at each."""
    steps: int
    """Of the optimiser, in all."""
    batches: int
    """Forward passes for training."""
    seconds: float


def fit(
    model: nn.Module,
    config: FinetuneConfig | SegmentConfig,
    batches: Iterator[B],
    loss_of: Callable[[B], Tensor],
    validate: Callable[[], Validation],
    *,
    steps: int,
    validate_at: set[int],
    optimizer: str = "adamw",
    layer_scale: Callable[[str], float] = lambda name: 1.0,
    note: Callable[[dict[str, float]], Any] = lambda record: None,
) -> Fit:
    """Train the model for exactly `steps` optimiser steps; it ends with its best weights.

    loss_of: mean loss of a batch; validate_at: numbers of steps after which to validate, `steps`
    among them; layer_scale: of the learning rate, by the parameter's name; note: is told each line
    of the history, and in between every few seconds the step alone.
    Raises RuntimeError if the loss is not finite.
    """
    began = time.time()
    tune = optimizer_of(
        scaled_groups(model, config.weight_decay, layer_scale),
        OptimConfig(optimizer=optimizer, base_lr=config.lr),  # type: ignore[arg-type]
    )
    trainable = [p for p in model.parameters() if p.requires_grad]
    device = next(model.parameters()).device
    note({"step": 0})
    told = time.monotonic()
    best: Validation | None = None
    best_weights: dict[str, Tensor] = {}
    best_step = 0
    history: list[dict[str, float]] = []
    total, since, passes = torch.zeros((), device=device), 0, 0
    model.train()
    for step in range(steps):
        lr = learning_rate(
            step,
            peak=config.lr,
            floor=0.0,
            warmup=int(config.warmup * steps),
            steps=steps,
            decay=config.decay,
        )
        for group in tune.param_groups:
            group["lr"] = lr * group["scale"]
        for _ in range(config.accumulate):
            loss = loss_of(next(batches))
            (loss / config.accumulate).backward()
            total += loss.detach()
            since, passes = since + 1, passes + 1
        if config.clip:
            nn.utils.clip_grad_norm_(trainable, config.clip)
        tune.step()
        tune.zero_grad(set_to_none=True)
        if step + 1 not in validate_at:
            if time.monotonic() - told > ProgressLine.EVERY:
                told = time.monotonic()
                note({"step": step + 1})
            continue
        mean = float(total) / since
        if not torch.isfinite(torch.tensor(mean)):
            raise Diverged(
                f"the loss is {mean} after step {step + 1}: lower lr ({config.lr:g}), or look for "
                "broken samples"
            )
        model.eval()
        validation = validate()
        model.train()
        if validation.better_than(best):
            best, best_step = validation, step + 1
            best_weights = weights_of(model)
        history.append(
            {
                "step": step + 1,
                "loss": mean,
                "validation_score": validation.score,
                "validation_loss": validation.loss,
            }
        )
        note(history[-1])
        told = time.monotonic()
        total, since = torch.zeros((), device=device), 0
    assert best is not None, "the last step is validated"
    model.load_state_dict(best_weights)
    model.eval()
    return Fit(best_step, best, history, steps, passes, time.time() - began)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU; what nnU-Net's networks know by two names is in it twice."""
    return {n: v.detach().cpu().contiguous().clone() for n, v in module.state_dict().items()}


def device_of_this_run() -> torch.device:
    """The GPU that Ray gave this process, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed(precision: str, device: torch.device) -> AbstractContextManager:
    """Operations in bf16 where they may, with weights in float32; or nothing."""
    bf16 = resolve_precision(precision) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)
