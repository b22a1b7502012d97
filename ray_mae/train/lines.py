"""JSON lines of a run, whose storage may be away for a while."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from ray_mae.train.storage import StorageAway, outlast


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
