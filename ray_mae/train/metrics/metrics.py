"""Metrics of the steps between two reports, and signs in them that a training goes wrong."""

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ray_mae.methods.base import Losses
from ray_mae.train.batches import MicroBatch
from ray_mae.train.forecast.gpus import find_gpu


@dataclass(frozen=True)
class StepLosses:
    """Of one micro-batch of a step: its losses by name, and the keys [S] of its samples."""

    values: dict[str, Tensor]
    key: Tensor


class _Pass(NamedTuple):
    step: StepLosses
    losses: Losses
    micro: MicroBatch


class MetricAverages:
    """Metrics added up since the last report, then averaged over micro-batches and workers.

    Args:
        workers: of the run.
        folders: names of its data sets; of several, the loss of each is a metric, too.
    """

    def __init__(self, workers: int, folders: Sequence[str] = ("",)) -> None:
        self._workers, self._folders = workers, folders
        self._spikes = Spikes()
        self._step: list[_Pass] = []
        self._ended: deque[list[_Pass]] = deque()
        self.start()

    def add(self, losses: Losses, micro: MicroBatch) -> None:
        """Adds a micro-batch; whether it counts is known after the end of its step."""
        if not micro.weight:
            return
        values = {"loss": losses.total, **losses.parts}
        values = {name: value.detach() for name, value in values.items()}  # no .item(): it waits
        losses = losses._replace(total=values["loss"])
        self._step.append(_Pass(StepLosses(values, micro.batch.key), losses, micro))
        self._samples += micro.batch.samples
        self._inputs += micro.batch.inputs

    def end_step(self) -> None:
        """Ends a step, for which `keep` or `drop` is to be called once; the oldest goes first."""
        self._ended.append(self._step)
        self._step = []

    def keep(self) -> None:
        """Counts a step, which was taken."""
        loss: Tensor | float = 0.0
        weights = 0.0
        for step, losses, micro in self._ended.popleft():
            for name, value in step.values.items():
                self._add(name, value.float() * micro.weight, micro.weight)
            for name, pair in {**losses.ratios, **self._by_folder(losses, micro)}.items():
                self._ratios[name] = self._ratios.get(name, 0) + pair.detach()
            loss = loss + step.values["loss"].float() * micro.weight
            weights += micro.weight
        self._steps.append((loss, weights))

    def drop(self) -> list[StepLosses]:
        """Leaves out a step, which was skipped; returns what it would have added."""
        return [passed.step for passed in self._ended.popleft()]

    def take(self, device: torch.device, waited: float) -> dict[str, float]:
        """Returns means since the last call over the steps taken; called by every worker at one step.

        Args:
            device: of this worker.
            waited: seconds that it waited for data.
        """
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # or queued work would count in the next window
        seconds = time.perf_counter() - self._began
        # the same names on every worker, whichever folders its samples are of
        for name in self._names_by_folder():
            self._ratios.setdefault(name, torch.zeros(2, device=device))
        names, ratios = sorted(self._sums), sorted(self._ratios)
        sums = [self._pair(*self._sums[name], device) for name in names]
        steps = [self._pair(*step, device) for step in self._steps]
        own = [
            self._pair(waited / seconds, seconds, device),
            self._pair(self._samples, self._inputs, device),
        ]
        pairs = torch.stack([*own, *sums, *(self._ratios[n].float() for n in ratios), *steps])
        if self._workers > 1:
            dist.all_reduce(pairs)
        (waiting, seconds), (samples, inputs), *rest = pairs.tolist()
        seconds /= self._workers  # the same values on every worker
        values = {
            "data_wait": waiting / self._workers,
            "samples_per_s": samples / seconds,
            "inputs_per_s": inputs / seconds,
        }
        for name, (total, count) in zip([*names, *ratios], rest, strict=False):
            if count:
                values[name] = total / count
        if steps:
            losses = [total / count for total, count in rest[-len(steps) :]]
            self._spikes.add(losses)
            values |= {"loss_highest": max(losses), "loss_spikes": self._spikes.total}
        self.start()
        return values

    def leave_out(self, seconds: float) -> None:
        """Leaves out time that went by and is not training's, in seconds."""
        self._began += seconds

    def start(self) -> None:
        """Begins anew."""
        self._began, self._samples, self._inputs = time.perf_counter(), 0, 0
        self._sums: dict[str, tuple[Tensor, float]] = {}
        self._ratios: dict[str, Tensor] = {}
        self._steps: list[tuple[Tensor | float, float]] = []

    def _names_by_folder(self) -> list[str]:
        return [f"loss/{name}" for name in self._folders] if len(self._folders) > 1 else []

    def _by_folder(self, losses: Losses, micro: MicroBatch) -> dict[str, Tensor]:
        """The sum of the samples' losses of each data set, and their number."""
        if len(self._folders) == 1 or losses.each is None:
            return {}
        pairs = torch.stack([losses.each.float(), torch.ones_like(losses.each).float()], dim=1)
        total = pairs.new_zeros(len(self._folders), 2).index_add(0, micro.folders, pairs)
        return dict(zip(self._names_by_folder(), total, strict=True))

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


class Spikes:
    """Counts losses far above those before them.

    A spike lies more than six standard deviations, and a tenth, above the running mean of the last hundred
    or so; it does not count into that mean.
    """

    _MEMORY, _FIRST, _FAR, _LEAST = 0.98, 50, 6.0, 0.1

    def __init__(self) -> None:
        self._mean, self._square, self._seen = 0.0, 0.0, 0
        self.total = 0
        """Since this start."""

    def add(self, losses: Iterable[float]) -> None:
        """Adds losses of steps, in their order."""
        for loss in losses:
            if not math.isfinite(loss):  # such a step is skipped, and counted as that
                continue
            deviation = math.sqrt(max(self._square - self._mean**2, 0.0))
            far = max(self._FAR * deviation, self._LEAST * abs(self._mean))
            if self._seen >= self._FIRST and loss > self._mean + far:
                self.total += 1
                continue
            self._seen += 1
            new = max(1 - self._MEMORY, 1 / self._seen)
            self._mean += new * (loss - self._mean)
            self._square += new * (loss**2 - self._square)


class Collapse:
    """Tells once when an encoder seems to give every sample the same vector.

    From the metrics `cosine_other_study` and `effective_rank`, of methods that have them.
    """

    _ALIKE, _RANK, _REPORTS = 0.99, 1.5, 3

    def __init__(self) -> None:
        self._in_a_row = 0

    def warning(self, metrics: dict[str, Any]) -> str | None:
        """Returns a sentence at the third report in a row that shows the signs; else None."""
        cosine, rank = metrics.get("cosine_other_study"), metrics.get("effective_rank")
        if cosine is None and rank is None:
            return None
        alike = (cosine or 0.0) > self._ALIKE or (rank is not None and rank < self._RANK)
        self._in_a_row = self._in_a_row + 1 if alike else 0
        if self._in_a_row != self._REPORTS:
            return None
        signs = [
            f"{name} {value:.3f}"
            for name, value in (("cosine_other_study", cosine), ("effective_rank", rank))
            if value is not None
        ]
        remedy = "the learning rate" + ("" if cosine is None else ", or method.beta of mvmae")
        return (
            f"warning: vectors of other studies are nearly the same ({', '.join(signs)}): the encoder may "
            f"have collapsed; lower {remedy}"
        )


# ------------------------------------------------------------------------------------------ devices


def gpu_name(device: torch.device) -> str | None:
    """Returns what its driver calls a GPU; None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def memory_taken(device: torch.device) -> dict[str, float]:
    """Returns the metric `gpu_gib`: the most that tensors took of this worker's GPU so far, in GiB."""
    if device.type != "cuda":
        return {}
    return {"gpu_gib": torch.cuda.max_memory_allocated(device) / 2**30}


def peak_of(device: torch.device, precision: str, override: float | None) -> float | None:
    """Returns the FLOP/s of one worker's device at best; None where nobody knows it.

    Args:
        device: of the worker.
        precision: fp32 or bf16.
        override: TFLOP/s from the settings, which goes first.
    """
    if override is not None:
        return override * 1e12
    name = gpu_name(device)
    gpu = find_gpu(name) if name else None
    return gpu.peak(precision) * 1e12 if gpu else None


def utilisation(flops: float, workers: int, peak: float | None) -> dict[str, float]:
    """Returns the metric `mfu`: FLOPs of the method per second over the workers' peak.

    What is computed twice (activation checkpointing) counts once, as usual.

    Args:
        flops: per second, over all workers.
        workers: how many they are.
        peak: FLOP/s of one worker's device; None gives no metric.
    """
    return {} if peak is None else {"mfu": flops / (peak * workers)}
