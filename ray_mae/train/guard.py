"""Numbers that go wrong: steps that no worker took, and losses that jump."""

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ray_mae.data.loading.rows import names_of
from ray_mae.train.ending import Ending
from ray_mae.train.lines import Lines
from ray_mae.train.tracking import read_jsonl

SKIPPED = "skipped"
"""Folder with a JSON-lines file per worker: step, losses and samples of each step that was skipped."""


@dataclass(frozen=True)
class Seen:
    """One micro-batch of a step: its figures by name, and the keys [S] of its samples."""

    figures: dict[str, Tensor]
    key: Tensor


class Guard:
    """Counts the steps that were skipped because a loss or a gradient was not finite.

    Every worker has one and all of them skip the same steps, since a gradient that is not finite anywhere
    makes the norm over all workers so.
    """

    def __init__(self, output: Path, shards: Path, rank: int, limit: int, patience: float) -> None:
        self._file = output / SKIPPED / f"worker-{rank:04d}.jsonl"
        self._shards, self._limit = shards, limit
        self._lines = Lines(self._file, patience)
        self._in_a_row = 0
        self.total = len(read_jsonl(self._file))
        """Of all starts of the run; one that was repeated after a restart counts again."""

    def applied(self) -> None:
        """A step changed the weights."""
        self._in_a_row = 0

    def skipped(self, step: int, seen: Sequence[Seen]) -> str:
        """A step was skipped: write it down; returns it in words.

        step: from 0. Raises Ending where too many follow each other.
        """
        self._in_a_row, self.total = self._in_a_row + 1, self.total + 1
        keys = [int(k) for micro in seen for k in micro.key.tolist()]
        try:
            names = names_of(self._shards, keys)
        except OSError:  # the shards are away: keys say as much, to a machine
            names = {}
        record = {
            "step": step + 1,
            "time": time.time(),
            "micro_batches": [
                {
                    "samples": [names.get(int(k), str(k)) for k in micro.key.tolist()],
                    **{n: _plain(v) for n, v in micro.figures.items()},
                }
                for micro in seen
            ],
        }
        with suppress(OSError):  # the line is kept until it can be written
            self._file.parent.mkdir(exist_ok=True)
        self._lines.add(record)
        if self._in_a_row >= self._limit:
            raise Ending(
                f"{self._in_a_row} steps in a row had a loss or a gradient that is not finite, the last "
                f"one step {step + 1}: the training diverged. The last checkpoint is as it was. Lower the "
                f"learning rate or optim.clip, or train in fp32; samples and losses are in "
                f"{self._file.parent}"
            )
        return (
            f"step {step + 1} was skipped: a loss or a gradient is not finite ({self._file.parent})"
        )


def _plain(value: Tensor) -> float | str:
    """A number, or the name of one that JSON has none for."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


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
        """Losses of steps, in their order."""
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

    From the figures `cosine_other_study` and `effective_rank`, of methods that have them.
    """

    _ALIKE, _RANK, _REPORTS = 0.99, 1.5, 3

    def __init__(self) -> None:
        self._in_a_row = 0

    def warning(self, figures: dict[str, Any]) -> str | None:
        """What to say, at the third report in a row; else None."""
        cosine, rank = figures.get("cosine_other_study"), figures.get("effective_rank")
        if cosine is None and rank is None:
            return None
        alike = (cosine or 0.0) > self._ALIKE or (rank is not None and rank < self._RANK)
        self._in_a_row = self._in_a_row + 1 if alike else 0
        if self._in_a_row != self._REPORTS:
            return None
        said = [
            f"{name} {value:.3f}"
            for name, value in (("cosine_other_study", cosine), ("effective_rank", rank))
            if value is not None
        ]
        remedy = "the learning rate" if cosine is None else "method.beta or the learning rate"
        return (
            f"warning: strangers have nearly the same vector ({', '.join(said)}): the encoder may have "
            f"collapsed; lower {remedy}"
        )
