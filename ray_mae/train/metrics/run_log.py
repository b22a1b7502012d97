"""Where figures go: JSON lines always, TensorBoard beside them."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_mae.train.errors import Ending
from ray_mae.train.run_storage import StorageAway, outlast, replace_whole, require

if TYPE_CHECKING:  # the driver reads these files without PyTorch
    from ray_mae.methods.base import Pictures


METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
PROBES = "probes.jsonl"
"""What the online probe found of each checkpoint."""
RESAMPLES = "probes"
"""Folder of NPZ files, named by step: the probe's macro AUROC in each resample of the patients."""
REPORTS = "reports.jsonl"
"""Generated and true reports of held-out studies, as of the last picture."""
PICTURES = "pictures"
"""Folder of PNG files, named by step, each with its title inside."""
ATTEMPT = "attempt"
"""File with the name of the start of the run that may write into its folder."""


def begin_attempt(folder: Path) -> str:
    """Name a new start of the run: whatever an earlier one left running ends at its next figures."""
    attempt = uuid.uuid4().hex[:12]
    replace_whole(folder / ATTEMPT, attempt.encode())
    return attempt


def check_shared(folder: Path, patience: float) -> None:
    """Raise Ending where the run's folder is another one on this node than on the driver's.

    patience: seconds that it may be away.
    """
    try:
        outlast((folder / ATTEMPT).read_text, patience, folder)
    except StorageAway as error:
        raise Ending(
            f"{folder} is not the folder that the driver sees under this path, or is away from this node: "
            "--output must be on storage that all nodes share"
        ) from error


def check_attempt(folder: Path, attempt: str) -> None:
    """Raise Ending where the run was started again: two starts would mix their files.

    A driver that was killed leaves its workers alive for some seconds; two people may start one run.
    Raises OSError while the folder cannot be reached.
    """
    if (folder / ATTEMPT).read_text() != attempt:
        raise Ending(f"{folder} was started again elsewhere: this start ends here")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; none if it is not there. A torn last line is left out."""
    if not path.is_file():
        return []
    return _records(path.read_text().splitlines())


def _records(lines: list[str]) -> list[dict[str, Any]]:
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


class Tail:
    """The records that a JSON-lines file has gained since the last look."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0

    def news(self) -> list[dict[str, Any]]:
        """Whole lines alone. A file that became shorter, or is new, is read from its start."""
        if not self._path.is_file():
            return []
        if self._path.stat().st_size < self._place:
            self._place = 0
        with self._path.open("rb") as file:
            file.seek(self._place)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._place += len(whole + newline)
        return _records(whole.decode(errors="replace").splitlines())


def read_events(folder: Path, attempt: str) -> list[dict[str, Any]]:
    """What the first worker of this start has told so far."""
    return [e for e in read_jsonl(folder / EVENTS) if e.get("attempt") == attempt]


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """One record, in one write."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def keep_until(folder: Path, step: int) -> None:
    """Drop the figures after `step`, which a continued run will write again."""
    path = folder / METRICS
    kept = [record for record in read_jsonl(path) if record["step"] <= step]
    replace_whole(path, "".join(json.dumps(record) + "\n" for record in kept).encode())


def last_pictures(folder: Path) -> list[tuple[str, bytes]]:
    """Titles and PNG files of the last step that has pictures."""
    from PIL import Image

    paths = sorted((folder / PICTURES).glob("*-*.png"))
    found = []
    for path in paths:
        if path.name.split("-")[0] == paths[-1].name.split("-")[0]:
            with Image.open(path) as image:
                found.append((image.info["Title"], path.read_bytes()))
    return found


class Tracker:
    """Figures of a run, written by one worker. A continued run drops what it will repeat.

    Storage that is away stops nothing: lines are kept and written later, TensorBoard has a gap.
    """

    def __init__(self, folder: Path, first_step: int, patience: float) -> None:
        self._folder, self._next = folder, first_step + 1
        self._lines = Lines(folder / METRICS, patience)
        outlast(lambda: keep_until(folder, first_step), patience, folder)
        self._board: Any = None

    def figures(self, step: int, figures: dict[str, float]) -> None:
        """Scalars after `step` steps."""
        self._lines.add({"step": step, **figures})

        def add(board: Any) -> None:
            for name, value in figures.items():
                board.add_scalar(name, value, step)

        self._on_board(add)
        self._next = step + 1

    def pictures(self, step: int, pictures: "Pictures") -> None:
        """Images and texts after `step` steps."""
        self._on_board(lambda board: self._pictures(board, step, pictures))

    def _on_board(self, work: Callable[[Any], None]) -> None:
        """With TensorBoard's writer, made anew after an error: it does not recover by itself."""
        from torch.utils.tensorboard import SummaryWriter

        try:
            if self._board is None:
                require(self._folder)  # the writer would make it
                folder = str(self._folder / "tensorboard")
                self._board = SummaryWriter(folder, purge_step=self._next)
            work(self._board)
        except OSError:
            self._board = None

    def _pictures(self, board: Any, step: int, pictures: "Pictures") -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        (self._folder / PICTURES).mkdir(exist_ok=True)
        for i, (name, image) in enumerate(pictures.images.items()):
            grey = (image.clamp(0, 1) * 255).byte().cpu().numpy()
            board.add_image(name, grey, step, dataformats="HW")
            title = PngInfo()
            title.add_itxt("Title", f"Held-out samples after {step} steps: {name}")
            path = self._folder / PICTURES / f"{step:08d}-{i}.png"
            Image.fromarray(grey).save(path, pnginfo=title)
        lines = [json.dumps(text) + "\n" for text in pictures.texts]
        (self._folder / REPORTS).write_text("".join(lines))
        if pictures.texts:
            columns = list(pictures.texts[0])
            rows = [" | ".join(row[c] for c in columns) for row in pictures.texts]
            table = [" | ".join(columns), " | ".join("---" for _ in columns), *rows]
            board.add_text("reports", "\n".join(f"| {line} |" for line in table), step)
        board.flush()

    def close(self) -> None:
        """Raises StorageAway where lines are left."""
        self._on_board(lambda board: board.close())
        self._lines.close()


class Lines:
    """Records for a JSON-lines file, kept in memory while they cannot be written.

    Training goes on meanwhile. Each record is written once. Threads may share one.
    """

    def __init__(self, path: Path, patience: float) -> None:
        """patience: seconds after which it is an error that nothing can be written."""
        self._path, self._patience = path, patience
        self._kept = b""
        self._since: float | None = None
        self._lock = threading.Lock()

    def add(self, record: dict[str, Any]) -> None:
        """Write a record, after those that are kept. Raises StorageAway."""
        with self._lock:
            self._kept += json.dumps(record).encode() + b"\n"
            try:
                self._write()
            except OSError as error:
                now = time.monotonic()
                self._since = self._since or now
                if now - self._since < self._patience:
                    return
                raise StorageAway(
                    f"{self._path} could not be written for {now - self._since:.0f} s ({error}): start the "
                    "same command again when it can; scaling.storage_patience is how long a run waits"
                ) from error
            self._since = None

    def close(self) -> None:
        """Wait until all records are written. Raises StorageAway, or OSError of a full disk."""
        with self._lock:
            outlast(self._write, self._patience, self._path)

    def _write(self) -> None:
        if not self._kept:
            return
        with self._path.open("ab", buffering=0) as file:
            while self._kept:
                self._kept = self._kept[file.write(self._kept) :]
