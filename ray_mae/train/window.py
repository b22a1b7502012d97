"""Figures of the steps between two reports."""

import time
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ray_mae.methods.losses import Losses
from ray_mae.train.feeding import MicroBatch
from ray_mae.train.guard import Seen, Spikes


class _Pass(NamedTuple):
    seen: Seen
    losses: Losses
    weight: float


class Window:
    """Figures added up since the last report, then averaged over micro-batches and workers."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._spikes = Spikes()
        self._step: list[_Pass] = []
        self.start()

    def add(self, losses: Losses, micro: MicroBatch) -> None:
        """Of a micro-batch; whether it counts is known at the end of its step."""
        if not micro.weight:
            return
        figures = {"loss": losses.total, **losses.parts}
        figures = {name: value.detach() for name, value in figures.items()}  # no .item(): it waits
        kept = losses._replace(total=figures["loss"])
        self._step.append(_Pass(Seen(figures, micro.batch.key), kept, micro.weight))
        self._samples += micro.batch.samples
        self._inputs += micro.batch.inputs

    def keep(self) -> None:
        """The step was taken."""
        loss: Tensor | float = 0.0
        weights = 0.0
        for seen, losses, weight in self._step:
            for name, value in seen.figures.items():
                self._add(name, value.float() * weight, weight)
            for name, pair in losses.counted.items():
                self._counted[name] = self._counted.get(name, 0) + pair.detach()
            loss = loss + seen.figures["loss"].float() * weight
            weights += weight
        self._steps.append((loss, weights))
        self._step = []

    def drop(self) -> list[Seen]:
        """The step was skipped: what it would have added."""
        dropped, self._step = [passed.seen for passed in self._step], []
        return dropped

    def figures(self, device: torch.device, waited: float) -> dict[str, float]:
        """Means since the last call, of the steps that were taken; called by every worker at one step."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # or queued work would count in the next window
        seconds = time.perf_counter() - self._began
        names, counted = sorted(self._sums), sorted(self._counted)
        sums = [self._pair(*self._sums[name], device) for name in names]
        steps = [self._pair(*step, device) for step in self._steps]
        own = [
            self._pair(waited / seconds, seconds, device),
            self._pair(self._samples, self._inputs, device),
        ]
        pairs = torch.stack([*own, *sums, *(self._counted[n].float() for n in counted), *steps])
        if self._workers > 1:
            dist.all_reduce(pairs)
        (waiting, seconds), (samples, inputs), *found = pairs.tolist()
        seconds /= self._workers  # the same figures on every worker
        figures = {
            "data_wait": waiting / self._workers,
            "samples_per_s": samples / seconds,
            "inputs_per_s": inputs / seconds,
        }
        for name, (total, count) in zip([*names, *counted], found, strict=False):
            if count:
                figures[name] = total / count
        if steps:
            losses = [total / count for total, count in found[-len(steps) :]]
            self._spikes.add(losses)
            figures |= {"loss_highest": max(losses), "loss_spikes": self._spikes.total}
        self.start()
        return figures

    def leave_out(self, seconds: float) -> None:
        """Time that went by and is not training's."""
        self._began += seconds

    def start(self) -> None:
        """Begin a new window."""
        self._began, self._samples, self._inputs = time.perf_counter(), 0, 0
        self._sums: dict[str, tuple[Tensor, float]] = {}
        self._counted: dict[str, Tensor] = {}
        self._steps: list[tuple[Tensor | float, float]] = []

    def _add(self, name: str, value: Tensor, weight: float) -> None:
        if name in self._sums:
            before, weights = self._sums[name]
            value, weight = before + value, weights + weight
        self._sums[name] = (value, weight)

    @staticmethod
    def _pair(total: Tensor | float, count: float, device: torch.device) -> Tensor:
        """[2]: a sum and the weights in it."""
        return torch.stack(
            [torch.as_tensor(value, dtype=torch.float, device=device) for value in (total, count)]
        )
