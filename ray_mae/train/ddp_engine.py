"""PyTorch's DistributedDataParallel as an engine: everything on every worker."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ray_mae.checkpoint.format import OPTIMIZER, all_weights
from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.methods.base import Method
from ray_mae.train.engine import Engine, poisoned
from ray_mae.train.optim import optimizer_of, with_momentum, without_compiler
from ray_mae.train.outcomes import Outcome


class DdpEngine(Engine):
    """Weights are fp32 always; in bf16 it is the passes that are, by autocast."""

    name = "ddp"

    def __init__(
        self, module: Method, config: EngineConfig, optim: OptimConfig, *, accumulation: int
    ) -> None:
        gpu = torch.cuda.is_available()
        self._device = (
            torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        )
        super().__init__(module.to(self._device), config, optim)
        self._optimizer = with_momentum(optimizer_of(self._groups, optim, fused=True))
        self._accumulation, self._micro = accumulation, 0
        self._shared: nn.Module = module
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._shared = _data_parallel(
                module,
                compiler=config.compile,
                device_ids=[self._device] if gpu else None,
                broadcast_buffers=False,  # what a method keeps of its steps is the same everywhere
                gradient_as_bucket_view=True,
            )

    @property
    def device(self) -> torch.device:
        return self._device

    def __call__(self, *args: Any) -> Any:
        low = self.precision == "bf16"
        with self._exchange(), torch.autocast(self._device.type, torch.bfloat16, enabled=low):
            return self._shared(*args)

    def backward(self, loss: Tensor) -> None:
        with self._exchange():
            (poisoned(loss) / self._accumulation).backward()

    def _exchange(self) -> AbstractContextManager[None]:
        """Gradients are exchanged once a step, which DDP wants to know before the forward pass."""
        if isinstance(self._shared, DistributedDataParallel) and not self._last:
            return self._shared.no_sync()
        return nullcontext()

    def step(self, lr: float, weight_decay: float | None = None) -> None:
        last = self._last
        self._micro = (self._micro + 1) % self._accumulation
        if not last:
            return
        self._set_rates(lr, weight_decay, self._optimizer.param_groups)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self._clip or float("inf"))
        taken = norm.isfinite()
        # the fused operator looks at it on the device, as it does for a GradScaler
        self._optimizer.found_inf = (~taken).float()  # type: ignore[attr-defined]
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.outcome = Outcome(norm, taken)

    @property
    def _last(self) -> bool:
        """Whether this micro-batch is the last one of its step."""
        return self._micro + 1 == self._accumulation

    def weights(self) -> dict[str, Tensor]:
        return {
            name: tensor.detach().float().cpu().contiguous().clone()
            for name, tensor in self.module.state_dict().items()
        }

    def set_frozen(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if not parameter.requires_grad:
                    parameter.copy_(weights[name])

    def save(self, folder: Path) -> None:
        """The optimiser's states, by the first worker: weights are saved beside them for every engine."""
        if not dist.is_initialized() or dist.get_rank() == 0:
            torch.save(self._optimizer.state_dict(), folder / OPTIMIZER)

    def load(self, folder: Path, *, universal: bool = False) -> None:
        if not (folder / OPTIMIZER).is_file():
            raise FileNotFoundError(
                f"{folder / OPTIMIZER} is missing: it holds the optimiser's states"
            )
        saved = {name: torch.from_numpy(array) for name, array in all_weights(folder).items()}
        self.module.load_state_dict(saved)
        states = torch.load(folder / OPTIMIZER, map_location=self._device, weights_only=True)
        self._optimizer.load_state_dict(states)
        with_momentum(self._optimizer)


def _data_parallel(module: nn.Module, *, compiler: bool, **options: Any) -> DistributedDataParallel:
    """PyTorch's own; where nothing is compiled, without its compiler, some seconds of each worker's start.

    It is imported for one question, which the stand-in answers: how compiled modules would be cut.
    """
    name = "_dynamo"
    if not compiler and f"torch.{name}" not in sys.modules:
        without_compiler(vars(DistributedDataParallel)["_inside_ddp_forward"])
        answer = SimpleNamespace(get_optimize_ddp_mode=lambda: "no_optimization")
        setattr(torch, name, SimpleNamespace(utils=answer))
        try:
            return DistributedDataParallel(module, **options)
        except AttributeError:  # another PyTorch, with other questions
            pass
        finally:
            delattr(torch, name)
    return DistributedDataParallel(module, **options)
