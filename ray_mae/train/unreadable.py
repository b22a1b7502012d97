"""Rows of damaged shards, in whose place others were trained on."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.train.lines import Lines
from ray_mae.train.tracking import read_jsonl

if TYPE_CHECKING:  # the driver counts without PyTorch
    import torch

UNREADABLE = "unreadable"
"""Folder with a JSON-lines file per worker: step, file, row group, row, and why it could not be read."""


class Unreadable:
    """What this worker was given other rows for, and the number of all workers."""

    def __init__(self, output: Path, rank: int, patience: float) -> None:
        self._file = output / UNREADABLE / f"worker-{rank:04d}.jsonl"
        self._lines = Lines(self._file, patience)
        self._rows = self._told = 0

    def add(self, step: int, lost: list[dict[str, Any]]) -> None:
        """Write down the rows lost for a micro-batch; step: from 0."""
        if lost:
            with suppress(OSError):  # the lines are kept until they can be written
                self._file.parent.mkdir(exist_ok=True)
        for row in lost:
            self._lines.add({"step": step + 1, **row})
        self._rows += len(lost)

    def figures(self, device: "torch.device", workers: int) -> dict[str, int]:
        """Rows lost since this start, over all workers; called by each of them."""
        import torch

        rows = torch.tensor(self._rows, device=device)
        if workers > 1:
            torch.distributed.all_reduce(rows)
        return {"unreadable_rows": int(rows)}

    def warning(self, figures: dict[str, Any]) -> str | None:
        """What to say where their number has doubled, at least; else None."""
        rows = figures.get("unreadable_rows", 0)
        if rows < max(2 * self._told, 1):
            return None
        self._told = rows
        return (
            f"warning: {rows} rows of damaged shards were replaced by others so far: {self._file.parent} "
            "names them"
        )


def unreadable_rows(output: Path) -> int:
    """Rows lost over the whole run; a step that was repeated after a restart counts once."""
    records = (r for file in (output / UNREADABLE).glob("*.jsonl") for r in read_jsonl(file))
    return len({(r["step"], r["file"], r["group"], r["row"]) for r in records})
