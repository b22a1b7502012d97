"""The folder of a run: its files, and which start of the run may write there."""

import io
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ray_mae.data.paths import is_remote, with_os_errors
from ray_mae.files import write_whole
from ray_mae.train.errors import FatalError
from ray_mae.train.metrics.jsonl import (
    JsonLines,
    append_jsonl,
    open_lines,
    read_jsonl,
    rewrite_jsonl,
)
from ray_mae.train.run_storage import StorageAway, outlast

T = TypeVar("T")

CONFIG = "config.yaml"
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
README = "README.md"
NOT_TO_BE_PASSED_ON = """\
# Before you pass this folder on

It is a pretraining run, and it holds what is of patients: reconstructed and original pictures (`pictures`,
`tensorboard`), reports, true and generated (`reports.jsonl`, `tensorboard`), and the words of reports
(`tokenizer.json`, here and in each checkpoint); in `config.yaml` also paths of your storage. Whoever may not
see the archive may not see this folder.

`ray-mae publish --checkpoint THIS --output encoder` writes the encoder alone. Weights are no pictures, and
yet no proof that nothing of a training image can be won back from them.
"""
"""What README.md of a run says."""
STOPPED = "stopped"
"""Event: the workers saved a checkpoint and ended, since the driver was asked to."""
ATTEMPT = "attempt"
"""File with the name of the start of the run that may write into its folder."""

GATHERED_S = 5.0
"""Seconds in which metrics for a store are gathered before they are put."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, as one start of it writes there."""

    path: Path
    attempt: str
    """Name of the start."""
    patience: float
    """Seconds that the folder may be away."""

    @classmethod
    def begin(cls, path: Path, patience: float) -> "RunFolder":
        """Names a new start: whatever an earlier one left running ends at its next metrics."""
        attempt = uuid.uuid4().hex[:12]
        write_whole(path / ATTEMPT, attempt)
        return cls(path, attempt, patience)

    def require_shared(self, patience: float) -> None:
        """Raises FatalError where the folder is another one on this node than on the driver's.

        Args:
            patience: seconds that it may be away.
        """
        try:
            outlast((self.path / ATTEMPT).read_text, patience, self.path)
        except StorageAway as error:
            raise FatalError(
                f"{self.path} is not the folder that the driver sees under this path, or is away from this "
                "node: --output must be on storage that all nodes share, or the URL of an object store"
            ) from error
        self.require_current()

    def require_current(self) -> None:
        """Raises FatalError where the run was started again: two starts would mix their files.

        A driver that was killed leaves its workers alive for some seconds; two people may start one run.

        Raises:
            FatalError: another start has the folder.
            OSError: the folder cannot be reached.
        """
        if with_os_errors((self.path / ATTEMPT).read_text) != self.attempt:
            raise FatalError(f"{self.path} was started again elsewhere: this start ends here")

    def outlast(self, work: Callable[[], T], back: Callable[[str], None] | None = None) -> T:
        """Returns the result of `work`, called again while the folder is away; see `run_storage.outlast`."""
        return outlast(work, self.patience, self.path, back)

    def lines(self, name: str) -> JsonLines:
        """Opens one of its JSON-lines files for writing."""
        return open_lines(self.path / name, self.patience, GATHERED_S if name == METRICS else 0.0)

    def event(self, name: str, **more: Any) -> dict[str, Any]:
        """Returns the record of an event of this start, now."""
        return {"event": name, "time": time.time(), "attempt": self.attempt, **more}

    def note(self, name: str) -> None:
        """Writes down an event of the driver."""
        append_jsonl(self.path / EVENTS, self.event(name))

    def events(self) -> list[dict[str, Any]]:
        """Returns the events of this start so far."""
        return [e for e in read_jsonl(self.path / EVENTS) if e.get("attempt") == self.attempt]

    def happened(self, name: str) -> bool:
        """Returns whether there was an event of this name in this start."""
        return any(event["event"] == name for event in self.events())

    def first_step(self) -> int:
        """Returns after which step the first worker goes on, as it said when it last began."""
        return int([e["reads_after"] for e in self.events() if "reads_after" in e][-1])

    def drop_metrics_after(self, step: int) -> None:
        """Drops the metrics after `step`, which a continued run will write again."""
        rewrite_jsonl(self.path / METRICS, lambda record: record["step"] <= step)

    def gather(self) -> None:
        """Makes one object of the parts of each JSON-lines file of a run in a store."""
        if is_remote(self.path):
            for name in (METRICS, EVENTS, PROBES):
                rewrite_jsonl(self.path / name)


def last_pictures(folder: Path) -> list[tuple[str, bytes]]:
    """Returns titles and PNG files of the last step that has pictures."""
    from PIL import Image

    paths = sorted((folder / PICTURES).glob("*-*.png"))
    pictures = []
    for path in paths:
        if path.name.split("-")[0] == paths[-1].name.split("-")[0]:
            content = path.read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                pictures.append((image.info["Title"], content))
    return pictures
