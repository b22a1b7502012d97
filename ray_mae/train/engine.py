"""Engines: a module with its optimiser and gradients on all workers, behind one small class.

`deepspeed` partitions with ZeRO what each worker holds, `ddp` has all of it on every worker. Which are the
same steps in the same order: the loop, checkpoints of weights and what goes on exactly do not depend on it.
"""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.methods.base import Method
from ray_mae.train.errors import FatalError
from ray_mae.train.optim import resolve_precision, scaled_groups
from ray_mae.train.outcomes import Outcome


class Engine(ABC):
    """A module, its optimiser and its gradients, on one worker of several."""

    name: ClassVar[str]
    """As `engine.name` chooses it."""

    def __init__(self, module: Method, config: EngineConfig, optim: OptimConfig) -> None:
        self.module = module
        self.precision = resolve_precision(config.precision)
        self.stage = 0
        """Of ZeRO."""
        self.outcome: Outcome
        """Of the last step."""
        self._clip = optim.clip
        self._groups = scaled_groups(
            module, optim.weight_decay, partial(_rate_of, module, optim.layer_decay)
        )
        self._scales = [group["scale"] for group in self._groups]
        self._decay = [bool(group["weight_decay"]) for group in self._groups]
        if config.compile:
            _require_compiler()
            # each network, and not the method around them: its weights that change with the step, such
            # as β, would be compiled in
            for network in module.children():
                network.compile()

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """That of the parameters."""

    @property
    def reads_any_workers(self) -> bool:
        """Whether `load` takes what any number of workers saved."""
        return self.stage == 0

    @abstractmethod
    def __call__(self, *args: Any) -> Any:
        """The module's forward pass of one micro-batch."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Gradients of loss / accumulation, added up.

        Those of a loss that is not finite are not either, whatever its graph makes of it: so every
        worker sees in the norm that the step is to be skipped.
        """

    @abstractmethod
    def step(self, lr: float, weight_decay: float | None = None) -> None:
        """After each micro-batch; the last one of a step changes the weights and has an `outcome`.

        Args:
            lr: learning rate.
            weight_decay: of what decays; None: that of the settings.
        """

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers by name, fp32, on the CPU; to be called by every worker."""

    @abstractmethod
    def set_frozen(self, weights: Mapping[str, Tensor]) -> None:
        """Gives what is not trained its values of a checkpoint, bit by bit; to be called by every worker.

        Args:
            weights: all of the module's, fp32.
        """

    def set_buffers(self, weights: Mapping[str, Tensor]) -> None:
        """Gives buffers, such as a teacher, their values of a checkpoint: no universal one has them.

        Args:
            weights: all of the module's, fp32.
        """
        with torch.no_grad():
            for name, buffer in self.module.named_buffers(remove_duplicate=False):
                if name in weights:
                    buffer.copy_(weights[name])

    @abstractmethod
    def save(self, folder: Path) -> None:
        """This worker's part of parameters and optimiser states; called by every worker."""

    @abstractmethod
    def load(self, folder: Path, *, universal: bool = False) -> None:
        """The counterpart of `save`; called by every worker.

        Args:
            folder: of the checkpoint.
            universal: it holds what `make_universal` wrote of a checkpoint by other workers, or of another
                stage.
        """

    @property
    def skipped(self) -> bool:
        """Whether the last step changed nothing, since its gradient is not finite on some worker; waits."""
        return self.outcome.skipped

    def gradient_norm(self) -> dict[str, float]:
        """The metric `gradient_norm`: of the last step, before clipping; none of a skipped one; waits."""
        return {} if self.skipped else {"gradient_norm": self.outcome.norm}

    def after_step(self, step: int) -> None:
        """Lets the method follow a step; see `Method.after_step`."""
        method = self.module
        if type(method).after_step is Method.after_step or not method.follows:
            return  # or ZeRO 3 would gather all parameters for nothing
        with self.whole() as module, torch.no_grad():
            # on the device: it may not have come to the step yet
            taken = self.outcome.taken.to(self.device, non_blocking=True)
            cast(Method, module).after_step(step, taken)

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The module with all parameters on every worker, to be entered by every worker."""
        was_training = self.module.training
        self.module.eval()
        try:
            # of other shapes than the training's: not worth compiling
            with torch.compiler.set_stance("force_eager"):
                yield self.module
        finally:
            self.module.train(was_training)

    @property
    def has_frozen(self) -> bool:
        """Whether something is not trained."""
        return any(not p.requires_grad for p in self.module.parameters())

    def _set_rates(
        self, lr: float, weight_decay: float | None, groups: list[dict[str, Any]]
    ) -> None:
        for group, scale, decays in zip(groups, self._scales, self._decay, strict=True):
            group["lr"] = lr * scale
            if decays and weight_decay is not None:
                group["weight_decay"] = weight_decay


def engine_of(
    module: Method,
    config: EngineConfig,
    optim: OptimConfig,
    *,
    micro_batch_size: int,
    accumulation: int,
) -> Engine:
    """Returns the engine that the settings name.

    Args:
        module: the method.
        config: of the engine.
        optim: of the optimiser.
        micro_batch_size: samples of a worker at once.
        accumulation: micro-batches of a step on each worker.
    """
    config = config.chosen
    if config.name == "ddp":
        from ray_mae.train.ddp_engine import DdpEngine

        return DdpEngine(module, config, optim, accumulation=accumulation)
    from ray_mae.train.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(
        module, config, optim, micro_batch_size=micro_batch_size, accumulation=accumulation
    )


def _rate_of(module: Method, layer_decay: float, name: str) -> float:
    """The share of the learning rate that a parameter of a method has: the whole one outside the encoder."""
    inner = name.removeprefix("encoder.")
    return 1.0 if inner == name or layer_decay == 1 else module.encoder.rate_of(inner, layer_decay)


def _require_compiler() -> None:
    """Raise FatalError where PyTorch finds none, which it would tell in the first step in many words."""
    gpu = torch.cuda.is_available()
    variable, *usual = ("CC", "gcc", "clang") if gpu else ("CXX", "g++")
    wanted = [os.environ[variable]] if os.environ.get(variable) else usual
    if not any(map(shutil.which, wanted)):
        raise FatalError(
            f"engine.compile wants a compiler on every node, and there is no {' or '.join(wanted)} here: "
            f"install one, name it by {variable}, or set engine.compile to false"
        )


def poisoned(loss: Tensor) -> Tensor:
    """The loss, with gradients that are not finite where it is not."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)  # no .item(): it waits
