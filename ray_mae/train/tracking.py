"""Where figures go: JSON lines always, TensorBoard beside them."""

import json
from pathlib import Path
from typing import Any

from ray_mae.methods.method import Pictures

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
REPORTS = "reports.jsonl"
"""Generated and true reports of held-out studies, as of the last picture."""
PICTURES = "pictures"
"""Folder of PNG files, named by step."""


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; none if it is not there. A torn last line is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """One record, in one write."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def keep_until(folder: Path, step: int) -> None:
    """Drop the figures after `step`, which a continued run will write again."""
    path = folder / METRICS
    kept = [record for record in read_jsonl(path) if record["step"] <= step]
    path.write_text("".join(json.dumps(record) + "\n" for record in kept))


class Tracker:
    """Figures of a run, written by one worker. A continued run drops what it will repeat."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._metrics = folder / METRICS
        keep_until(folder, first_step)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def figures(self, step: int, figures: dict[str, float]) -> None:
        """Scalars after `step` steps."""
        append_jsonl(self._metrics, {"step": step, **figures})
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Images and texts after `step` steps."""
        from PIL import Image

        (self._folder / PICTURES).mkdir(exist_ok=True)
        for name, image in pictures.images.items():
            grey = (image.clamp(0, 1) * 255).byte().cpu().numpy()
            self._board.add_image(name, grey, step, dataformats="HW")
            Image.fromarray(grey).save(self._folder / PICTURES / f"{step:08d}.png")
        lines = [json.dumps(text) + "\n" for text in pictures.texts]
        (self._folder / REPORTS).write_text("".join(lines))
        if pictures.texts:
            columns = list(pictures.texts[0])
            rows = [" | ".join(row[c] for c in columns) for row in pictures.texts]
            table = [" | ".join(columns), " | ".join("---" for _ in columns), *rows]
            self._board.add_text("reports", "\n".join(f"| {line} |" for line in table), step)
        self._board.flush()

    def close(self) -> None:
        self._board.close()
