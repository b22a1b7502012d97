"""The losses of validation patients while a run goes on: whether it still learns, or learns by heart."""

from contextlib import suppress
from typing import Any, cast

import torch
import torch.distributed as dist

from ray_mae.config.pretrain import PretrainConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.integrity import DamagedShard
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.shard_set import ShardSet
from ray_mae.methods.base import Losses, Method
from ray_mae.train.engine import Engine
from ray_mae.train.setup import Plan

PREFIX = "held_out/"
"""Of the names of their metrics."""
_GROUPS = 8
"""Row groups that the samples come from, about: a group is read as a whole."""


class HeldOutLosses:
    """The losses of a few validation samples, always the same, cropped and masked alike each time.

    Args:
        config: of the run; tracking.held_out says how many samples.
        plan: of the run.
        shards: whose validation patients are taken, evenly over their files.
        collator: by `held_out_collator`.
        rank: of this worker.
        workers: how many there are; each has a share of the samples.
        first_step: steps that were done before.
    """

    def __init__(
        self,
        config: PretrainConfig,
        plan: Plan,
        shards: ShardSet,
        collator: Collator,
        rank: int,
        workers: int,
        first_step: int,
    ) -> None:
        self._every, self._workers = config.tracking.pictures_every, workers
        self._period = first_step // self._every
        kind = KINDS[plan.kind]
        rows = _rows(config, shards, collator.columns)
        size = min(plan.micro_batch_size, -(-len(rows) // workers))
        self._batches: list[tuple[Any, int]] = []
        for first in range(0, len(rows), max(1, size * workers)):
            mine = rows[first + rank * size :][:size]
            # every worker takes part in every pass: one that has no sample left takes the first, for nothing
            chosen = mine or rows[:1]
            batch = kind.to_batch(collator.collate(chosen, [0] * len(chosen)))
            self._batches.append((batch, len(mine)))

    def due(self, steps: int) -> bool:
        """Whether they are to be measured after so many steps: at the first report of each period."""
        return bool(self._batches) and steps // self._every > self._period

    def measure(self, engine: Engine, step: int) -> dict[str, float]:
        """Returns the metrics after `step` steps; to be called by every worker, and empty without samples."""
        self._period = step // self._every
        if not self._batches:
            return {}
        sums: dict[str, torch.Tensor] = {}
        with engine.whole() as module, torch.no_grad():
            for batch, weight in self._batches:
                losses: Losses = cast(Method, module)(batch.to(engine.device), step - 1)
                values = {"loss": losses.total, **losses.parts}
                pairs = {
                    name: weight * torch.stack([value.float(), torch.ones_like(value).float()])
                    for name, value in values.items()
                }
                pairs |= {n: (weight > 0) * pair.float() for n, pair in losses.ratios.items()}
                for name, pair in pairs.items():
                    sums[name] = sums.get(name, 0) + pair
        names = sorted(sums)
        totals = torch.stack([sums[name].float() for name in names])  # [names, 2]
        if self._workers > 1:
            dist.all_reduce(totals)
        return {
            PREFIX + name: total / count
            for name, (total, count) in zip(names, totals.tolist(), strict=True)
            if count
        }


def _rows(config: PretrainConfig, shards: ShardSet, columns: Any) -> list[dict[str, Any]]:
    """Of validation patients: evenly over the row groups, the first rows of each; the same on all workers."""
    most = config.tracking.held_out
    groups = [
        (path, shard, group)
        for path, shard in shards.of_split("val")
        for group in range(len(shard.row_groups))
    ]
    if not most or not groups:
        return []
    chosen = groups[:: max(1, len(groups) // _GROUPS)]
    each = -(-most // len(chosen))
    rows: list[dict[str, Any]] = []
    for path, shard, group in chosen:
        with suppress(*([DamagedShard] if config.data.corrupt == "skip" else [])):
            rows += read_rows(path, shard, group, columns)[:each]
    return rows[:most]
