"""Samples that did not train: of steps that were skipped, and of rows that cannot be read."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.data.loading.rows import names_of
from ray_mae.train.errors import FatalError
from ray_mae.train.metrics.jsonl import PARTS, open_lines, read_jsonl
from ray_mae.train.run_folder import GATHERED_S, RunFolder

if TYPE_CHECKING:  # the driver counts without PyTorch
    import torch

    from ray_mae.train.metrics.metrics import StepLosses


SKIPPED = "skipped"
"""Folder with a JSON-lines file per worker: step, losses and samples of each step that was skipped."""
UNREADABLE = "unreadable"
"""Folder with a JSON-lines file per worker: step, file, row group, row, and why it could not be read."""


class SkippedSteps:
    """Counts the steps that were skipped because a loss or a gradient was not finite.

    Every worker has one and all of them skip the same steps, since a gradient that is not finite anywhere
    makes the norm over all workers so.

    Args:
        folder: of the run.
        shards: folders that its samples come from.
        rank: of this worker.
        limit: steps in a row after which the run ends.
    """

    def __init__(self, folder: RunFolder, shards: Sequence[Path], rank: int, limit: int) -> None:
        self._lines = _WorkerLines(folder, SKIPPED, rank)
        self._shards, self._limit = shards, limit
        self._in_a_row = 0
        self.total = len(read_jsonl(self._lines.path))
        """Of all starts of the run; one that was repeated after a restart counts again."""

    def applied(self) -> None:
        """Notes that a step changed the weights."""
        self._in_a_row = 0

    def add(self, step: int, losses: "Sequence[StepLosses]") -> str:
        """Writes down a step that was skipped; returns it in words.

        Args:
            step: from 0.
            losses: and keys of its micro-batches on this worker.

        Raises:
            FatalError: too many follow each other.
        """
        self._in_a_row, self.total = self._in_a_row + 1, self.total + 1
        keys = [int(k) for micro in losses for k in micro.key.tolist()]
        try:
            names = {k: v for path in self._shards for k, v in names_of(path, keys).items()}
        except OSError:  # the shards are away: keys say as much, to a machine
            names = {}
        record = {
            "step": step + 1,
            "time": time.time(),
            "micro_batches": [
                {
                    "samples": [names.get(int(k), str(k)) for k in micro.key.tolist()],
                    **{n: _as_json(v) for n, v in micro.values.items()},
                }
                for micro in losses
            ],
        }
        self._lines.add(record)
        if self._in_a_row >= self._limit:
            raise FatalError(
                f"{self._in_a_row} steps in a row had a loss or a gradient that is not finite, the last "
                f"one step {step + 1}: the training diverged. The last checkpoint is as it was. Lower the "
                f"learning rate or optim.clip, or train in fp32; samples and losses are in "
                f"{self._lines.folder}"
            )
        return f"step {step + 1} was skipped: a loss or a gradient is not finite ({self._lines.folder})"


def _as_json(value: "torch.Tensor") -> float | str:
    """A number, or the name of one that JSON has none for."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


class LostRows:
    """What this worker was given other rows for, and the number of all workers."""

    def __init__(self, folder: RunFolder, rank: int) -> None:
        self._lines = _WorkerLines(folder, UNREADABLE, rank)
        self._rows = self._warned = 0

    def add(self, step: int, lost: list[dict[str, Any]]) -> None:
        """Writes down the rows lost for a micro-batch.

        Args:
            step: from 0.
            lost: file, row group, row and problem of each.
        """
        for row in lost:
            self._lines.add({"step": step + 1, **row})
        self._rows += len(lost)

    def metrics(self, device: "torch.device", workers: int) -> dict[str, int]:
        """Returns the rows lost since this start, over all workers; called by each of them."""
        import torch

        rows = torch.tensor(self._rows, device=device)
        if workers > 1:
            torch.distributed.all_reduce(rows)
        return {"unreadable_rows": int(rows)}

    def warning(self, metrics: dict[str, Any]) -> str | None:
        """Returns a sentence where their number has doubled, at least; else None."""
        rows = metrics.get("unreadable_rows", 0)
        if rows < max(2 * self._warned, 1):
            return None
        self._warned = rows
        return (
            f"warning: {rows} rows of damaged shards were replaced by others so far: {self._lines.folder} "
            "names them"
        )


def unreadable_rows(output: Path) -> int:
    """Returns the rows lost over the whole run; a step that was repeated after a restart counts once."""
    folder = output / UNREADABLE
    names = {file.name.removesuffix(PARTS) for file in folder.glob("*.jsonl*")}
    records = (r for name in names for r in read_jsonl(folder / name))
    return len({(r["step"], r["file"], r["group"], r["row"]) for r in records})


class _WorkerLines:
    """A folder of the run with a JSON-lines file per worker, of which this is one."""

    def __init__(self, folder: RunFolder, name: str, rank: int) -> None:
        self.folder = folder.path / name
        self.path = self.folder / f"worker-{rank:04d}.jsonl"
        self._lines = open_lines(self.path, folder.patience, GATHERED_S)

    def add(self, record: dict[str, Any]) -> None:
        with suppress(OSError):  # the line waits until it can be written
            self.folder.mkdir(exist_ok=True)
        self._lines.add(record)
