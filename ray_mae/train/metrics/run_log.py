"""Metrics and pictures of a run where a person finds them: JSON lines always, TensorBoard beside them."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.data.paths import is_remote
from ray_mae.files import write_whole
from ray_mae.store import Mirror
from ray_mae.train.run_folder import METRICS, PICTURES, REPORTS, RunFolder
from ray_mae.train.run_storage import require

if TYPE_CHECKING:  # the driver reads these files without PyTorch
    from ray_mae.methods.base import Pictures


_GROUPS = {
    "speed": ("samples_per_s", "inputs_per_s", "data_wait", "mfu", "gpu_gib", "saving", "saving_s",
              "upload_s", "eta_s"),
    "collapse": ("cosine_same_study", "cosine_other_study", "effective_rank"),
    "optimiser": ("lr", "gradient_norm", "skipped_steps"),
    "data": ("samples", "unreadable_rows"),
}  # fmt: skip


def tensorboard_tag(name: str, losses: Collection[str]) -> str:
    """Returns the name of a metric in TensorBoard, which shows together what stands before the first slash.

    Args:
        name: in metrics.jsonl.
        losses: names of the parts of the method's loss.
    """
    lead, _, rest = name.rpartition("/")
    if lead == "held_out":
        return "loss/held_out_" + ("total" if rest == "loss" else rest)
    if lead:  # of one of several data sets
        return f"{'loss' if lead == 'loss' else 'data'}/of {rest}"
    if name == "loss":
        return "loss/total"
    if name in losses or name.startswith("loss_"):
        return "loss/" + name.removeprefix("loss_")
    group = next((group for group, names in _GROUPS.items() if name in names), "method")
    return f"{group}/{name}"


_LARGEST_BOARD = 1 << 22  # bytes of one of TensorBoard's files in a store


class RunLog:
    """Metrics of a run, written by one worker. A continued run drops what it will repeat.

    Storage that is away stops nothing: lines are kept and written later, TensorBoard has a gap.

    Args:
        folder: of the run.
        first_step: steps that were done before.
        losses: names of the parts of the method's loss.
    """

    def __init__(self, folder: RunFolder, first_step: int, losses: Collection[str]) -> None:
        self._losses = losses
        self._mirror = Mirror(folder.path, folder.patience) if is_remote(folder.path) else None
        if self._mirror:
            self._mirror.start()
        self._folder = self._mirror.local if self._mirror else folder.path
        self._next = first_step + 1
        self._lines = folder.lines(METRICS)
        folder.outlast(lambda: folder.drop_metrics_after(first_step))
        self._writer: Any = None

    def metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Scalars after `step` steps."""
        self._lines.add({"step": step, **metrics})

        def add(writer: Any) -> None:
            for name, value in metrics.items():
                writer.add_scalar(tensorboard_tag(name, self._losses), value, step)

        self._write_tensorboard(add)
        self._next = step + 1

    def pictures(self, step: int, pictures: "Pictures") -> None:
        """Images and texts after `step` steps."""
        self._write_tensorboard(lambda writer: self._pictures(writer, step, pictures))

    def _write_tensorboard(self, work: Callable[[Any], None]) -> None:
        """Calls `work` with TensorBoard's writer, or a new one: it does not recover from an error."""
        from torch.utils.tensorboard import SummaryWriter

        try:
            if self._writer is None:
                require(self._folder)  # the writer would make it
                folder = str(self._folder / "tensorboard")
                self._writer = SummaryWriter(folder, purge_step=self._next)
            work(self._writer)
            if self._mirror and _size(self._writer) > _LARGEST_BOARD:  # it is put whole each time
                self._writer.close()
                self._writer = None
        except OSError:
            self._writer = None

    def _pictures(self, writer: Any, step: int, pictures: "Pictures") -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        (self._folder / PICTURES).mkdir(exist_ok=True)
        for i, (name, image) in enumerate(pictures.images.items()):
            grey = (image.clamp(0, 1) * 255).byte().cpu().numpy()
            writer.add_image(name, grey, step, dataformats="HW")
            title = PngInfo()
            title.add_itxt("Title", f"Held-out samples after {step} steps: {name}")
            path = self._folder / PICTURES / f"{step:08d}-{i}.png"
            Image.fromarray(grey).save(path, pnginfo=title)
        lines = [json.dumps(text) + "\n" for text in pictures.texts]
        write_whole(self._folder / REPORTS, "".join(lines))
        if pictures.texts:
            columns = list(pictures.texts[0])
            rows = [" | ".join(row[c] for c in columns) for row in pictures.texts]
            table = [" | ".join(columns), " | ".join("---" for _ in columns), *rows]
            writer.add_text("reports", "\n".join(f"| {line} |" for line in table), step)
        writer.flush()

    def close(self) -> None:
        """Raises StorageAway where lines are left."""
        self._write_tensorboard(lambda writer: writer.close())
        self._lines.close()
        if self._mirror:
            self._mirror.close()


def _size(writer: Any) -> int:
    """Bytes of the file that a TensorBoard writer has written so far; 0 of one that is closed."""
    file = writer.file_writer and writer.file_writer.event_writer._file_name
    return Path(file).stat().st_size if file else 0
