"""DeepSpeed's ZeRO as an engine: the only module of training that imports it."""

import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ray_mae.checkpoint.convert import mend
from ray_mae.checkpoint.format import TAG
from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.methods.base import Method
from ray_mae.train.engine import Engine, poisoned
from ray_mae.train.forecast.memory import bucket
from ray_mae.train.optim import optimizer_of
from ray_mae.train.outcomes import Outcome


class DeepSpeedEngine(Engine):
    """Optimiser states, gradients or parameters, partitioned over the workers by ZeRO."""

    name = "deepspeed"

    def __init__(
        self,
        module: Method,
        config: EngineConfig,
        optim: OptimConfig,
        *,
        micro_batch_size: int,
        accumulation: int,
    ) -> None:
        super().__init__(module, config, optim)
        # DeepSpeed's bf16 without ZeRO keeps no fp32 weights that could be saved, and adds up
        # gradients in bf16; stage 1 computes the same and does both
        stage = config.chosen.zero_stage or 0
        self.stage = max(stage, 1) if self.precision == "bf16" else stage
        if not torch.cuda.is_available():
            os.environ["DS_ACCELERATOR"] = "cpu"
        with _without("mlflow"):  # its autotuner would import it: three seconds of each worker
            import deepspeed

        deepspeed.utils.logger.setLevel("ERROR")
        if not torch.cuda.is_available():
            # a faster all-reduce between processes of one machine, which DeepSpeed would compile for
            # two minutes on its first run; gloo does without. No operator of its own is looked for
            deepspeed.ops.__compatible_ops__ = defaultdict(bool)
        self._frozen: dict[str, Tensor] = {}
        self._keep_frozen(module)
        optimizer = optimizer_of(self._groups, optim, own=False)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            dist_init_required=False,
            config=self._in_fp32()
            | {
                "train_micro_batch_size_per_gpu": micro_batch_size,
                "gradient_accumulation_steps": accumulation,
                "gradient_clipping": optim.clip if self.stage else 0.0,  # without ZeRO see `step`
                "zero_optimization": {
                    "stage": self.stage,
                    "stage3_param_persistence_threshold": 1000,
                    "reduce_bucket_size": bucket(sum(p.numel() for p in module.parameters())),
                },
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                # a step with a norm that is not finite is skipped: in fp32 it is so by default
                "bf16": {"enabled": self.precision == "bf16", "check_grad_overflow": True},
                "steps_per_print": 10**9,
                "wall_clock_breakdown": False,
            },
        )

    def _in_fp32(self) -> dict[str, Any]:
        """Gradients are added up and reduced in fp32, whatever the precision of the model."""
        if self.precision == "fp32":
            return {}
        return {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}

    @property
    def device(self) -> torch.device:
        return torch.device(self._engine.device)

    def __call__(self, *args: Any) -> Any:
        return self._engine(*args)

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(poisoned(loss))

    def step(self, lr: float, weight_decay: float | None = None) -> None:
        self._set_rates(lr, weight_decay, self._optimizer.param_groups)
        last = self._engine.is_gradient_accumulation_boundary()
        if last and self.stage == 0:
            # DeepSpeed would take any step; the gradients are the same on every worker by now
            limit = self._clip or float("inf")
            norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), limit))
            self.outcome = Outcome.of(norm, math.isfinite(norm))
            if self.skipped:
                self.module.zero_grad(set_to_none=True)
        self._engine.step()
        if last and self.stage:  # which has waited for the device itself
            norm = self._engine.get_global_grad_norm()
            taken = self._engine.was_step_applied()
            self.outcome = Outcome.of(math.nan if norm is None else float(norm), taken)

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        gathered: Any = nullcontext()
        if self.stage == 3:
            import deepspeed

            gathered = deepspeed.zero.GatheredParameters(list(self.module.parameters()))
        with gathered, super().whole() as module:
            yield module

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        with self.whole() as module:
            weights = {name: t.detach().float().cpu() for name, t in module.state_dict().items()}
        if self.precision == "bf16":  # the optimiser's own, not the rounded ones
            for name, parameter in self.module.named_parameters(remove_duplicate=False):
                if parameter.requires_grad:
                    master = safe_get_full_fp32_param(parameter)
                    weights[name] = weights[name] if master is None else master.cpu()
        weights |= self._frozen
        return {name: tensor.contiguous().clone() for name, tensor in weights.items()}

    def set_frozen(self, weights: Mapping[str, Tensor]) -> None:
        frozen = {n: p for n, p in self.module.named_parameters() if not p.requires_grad}
        gathered: Any = nullcontext()
        if self.stage == 3:
            import deepspeed

            gathered = deepspeed.zero.GatheredParameters([*frozen.values()], modifier_rank=0)
        with gathered, torch.no_grad():
            for name, parameter in frozen.items():
                parameter.data.copy_(weights[name])
        self._frozen = {name: weights[name] for name in self._frozen}

    def _keep_frozen(self, module: nn.Module) -> None:
        """Remembers in fp32 what is not trained, where the module is to be rounded to bf16."""
        if self.precision == "bf16":
            self._frozen = {
                name: parameter.detach().float().cpu().clone()
                for name, parameter in module.named_parameters(remove_duplicate=False)
                if not parameter.requires_grad
            }

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag=TAG)

    def load(self, folder: Path, *, universal: bool = False) -> None:
        groups = self._optimizer.param_groups
        decay = [group["weight_decay"] for group in groups]
        self._engine._config.load_universal_checkpoint = universal
        path, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
        self._engine._config.load_universal_checkpoint = False
        if universal:
            mend(self._optimizer.optimizer)
            # ZeRO 3 gives all groups the settings of the first
            for group, value in zip(groups, decay, strict=True):
                group["weight_decay"] = value
        if path is None:
            raise FileNotFoundError(f"{folder / TAG} holds no DeepSpeed checkpoint")


@contextmanager
def _without(package: str) -> Iterator[None]:
    """A block in which a package cannot be imported, unless it is already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
