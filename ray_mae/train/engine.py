"""DeepSpeed behind one small class: the only module that imports it."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ray_mae.checkpoint.convert import mend
from ray_mae.checkpoint.format import TAG
from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.methods.base import Method
from ray_mae.train.forecast.memory import bucket
from ray_mae.train.optim import optimizer_of, resolve_precision, scaled_groups


class Engine:
    """A module, its optimiser and its gradients, partitioned over the workers by ZeRO."""

    def __init__(
        self,
        module: Method,
        config: EngineConfig,
        optim: OptimConfig,
        *,
        micro_batch_size: int,
        accumulation: int,
    ) -> None:
        self.precision = resolve_precision(config.precision)
        # DeepSpeed's bf16 without ZeRO keeps no fp32 weights that could be saved, and adds up
        # gradients in bf16; stage 1 computes the same and does both
        self.stage = max(config.zero_stage, 1) if self.precision == "bf16" else config.zero_stage
        if not torch.cuda.is_available():
            os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        deepspeed.utils.logger.setLevel("ERROR")
        if not torch.cuda.is_available():
            # a faster all-reduce between processes of one machine, which DeepSpeed would compile for
            # two minutes on its first run; gloo does without
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        groups = scaled_groups(
            module, optim.weight_decay, partial(_rate_of, module, optim.layer_decay)
        )
        self._scales = [group["scale"] for group in groups]
        self._frozen: dict[str, Tensor] = {}
        self._keep_frozen(module)
        optimizer = optimizer_of(groups, optim)
        if config.compile:
            # each network, and not the method around them: its weights that change with the step, such
            # as β, would be compiled in
            for network in module.children():
                network.compile()
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
        self.module = module
        self._clip = optim.clip
        self._norm: float | None = None
        self.skipped = False
        """Whether the last step changed nothing, since its gradient is not finite on some worker."""

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
        """Gradients of loss / accumulation, added up.

        Those of a loss that is not finite are not either, whatever its graph makes of it: so every
        worker sees in the norm that the step is to be skipped.
        """
        finite = torch.where(loss.detach().isfinite(), 1.0, torch.nan)  # no .item(): it waits
        self._engine.backward(loss * finite)

    def step(self, lr: float) -> None:
        """After each micro-batch; the last one of a step changes the weights, unless it is `skipped`."""
        for group, scale in zip(self._optimizer.param_groups, self._scales, strict=True):
            group["lr"] = lr * scale
        last = self._engine.is_gradient_accumulation_boundary()
        if last and self.stage == 0:
            # DeepSpeed would take any step; the gradients are the same on every worker by now
            limit = self._clip or float("inf")
            self._norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), limit))
            self.skipped = not math.isfinite(self._norm)
            if self.skipped:
                self.module.zero_grad(set_to_none=True)
        self._engine.step()
        if last and self.stage:
            self.skipped = not self._engine.was_step_applied()
            self._norm = self._engine.get_global_grad_norm()

    def gradient_norm(self) -> dict[str, float]:
        """The metric `gradient_norm`: of the last step, before clipping; none of a skipped one."""
        return {} if self._norm is None or self.skipped else {"gradient_norm": float(self._norm)}

    def after_step(self, step: int) -> None:
        """Lets the method follow a step that was taken; see `Method.after_step`."""
        if type(self.module).after_step is Method.after_step:
            return  # or ZeRO 3 would gather all parameters for nothing
        with self.whole() as module, torch.no_grad():
            cast(Method, module).after_step(step)

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The module with all parameters on every worker, to be entered by every worker."""
        gathered: Any = nullcontext()
        if self.stage == 3:
            import deepspeed

            gathered = deepspeed.zero.GatheredParameters(list(self.module.parameters()))
        was_training = self.module.training
        self.module.eval()
        try:
            # of other shapes than the training's: not worth compiling
            with gathered, torch.compiler.set_stance("force_eager"):
                yield self.module
        finally:
            self.module.train(was_training)

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers by name, fp32, on the CPU; to be called by every worker."""
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
        """Gives what is not trained its values of a checkpoint, bit by bit; to be called by every worker.

        Args:
            weights: all of the module's, fp32.
        """
        frozen = {n: p for n, p in self.module.named_parameters() if not p.requires_grad}
        gathered: Any = nullcontext()
        if self.stage == 3:
            import deepspeed

            gathered = deepspeed.zero.GatheredParameters([*frozen.values()], modifier_rank=0)
        with gathered, torch.no_grad():
            for name, parameter in frozen.items():
                parameter.data.copy_(weights[name])
        self._frozen = {name: weights[name] for name in self._frozen}

    @property
    def has_frozen(self) -> bool:
        """Whether something is not trained."""
        return any(not p.requires_grad for p in self.module.parameters())

    def _keep_frozen(self, module: nn.Module) -> None:
        """Remembers in fp32 what is not trained, where the module is to be rounded to bf16."""
        if self.precision == "bf16":
            self._frozen = {
                name: parameter.detach().float().cpu().clone()
                for name, parameter in module.named_parameters(remove_duplicate=False)
                if not parameter.requires_grad
            }

    def save(self, folder: Path) -> None:
        """This worker's part of parameters and optimiser states; called by every worker."""
        self._engine.save_checkpoint(str(folder), tag=TAG)

    def load(self, folder: Path, *, universal: bool = False) -> None:
        """The counterpart of `save`; called by every worker.

        universal: `folder` holds what `make_universal` wrote of a checkpoint by other workers, or of
        another stage.
        """
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


def _rate_of(module: Method, layer_decay: float, name: str) -> float:
    """The share of the learning rate that a parameter of a method has: the whole one outside the encoder."""
    inner = name.removeprefix("encoder.")
    return 1.0 if inner == name or layer_decay == 1 else module.encoder.rate_of(inner, layer_decay)
