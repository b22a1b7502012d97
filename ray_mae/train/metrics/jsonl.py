"""JSON-lines files of a run, whose storage may be away for a while."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from ray_mae.train.run_storage import StorageAway, outlast


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a JSON-lines file; none if it is not there. A torn last line is left out."""
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
        self._path, self._offset = path, 0

    def news(self) -> list[dict[str, Any]]:
        """Returns the records of whole lines; all of them where the file became shorter, or is new."""
        if not self._path.is_file():
            return []
        if self._path.stat().st_size < self._offset:
            self._offset = 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole + newline)
        return _records(whole.decode(errors="replace").splitlines())


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Adds one record to a JSON-lines file, in one write."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


class JsonLines:
    """Records for a JSON-lines file, kept in memory while they cannot be written.

    Training goes on meanwhile. Each record is written once. Threads may share one.

    Args:
        path: of the file.
        patience: seconds after which it is an error that nothing can be written.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self._path, self._patience = path, patience
        self._pending = b""
        self._since: float | None = None
        self._lock = threading.Lock()

    def add(self, record: dict[str, Any]) -> None:
        """Writes a record, after those that are pending.

        Raises:
            StorageAway: nothing could be written for longer than `patience`.
        """
        with self._lock:
            self._pending += json.dumps(record).encode() + b"\n"
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
        """Waits until all records are written.

        Raises:
            StorageAway: after `patience` seconds.
            OSError: the disk is full.
        """
        with self._lock:
            outlast(self._write, self._patience, self._path)

    def _write(self) -> None:
        if not self._pending:
            return
        with self._path.open("ab", buffering=0) as file:
            while self._pending:
                self._pending = self._pending[file.write(self._pending) :]
