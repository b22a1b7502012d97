"""JSON-lines files of a run, whose storage may be away for a while."""

import json
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray_mae.data.paths import is_remote, with_os_errors
from ray_mae.files import write_whole
from ray_mae.train.run_storage import StorageAway, outlast

PARTS = ".parts"
"""Ends the name of a folder in a store: parts of the JSON-lines file of that name, by their beginning."""
_LARGEST_PART = 1 << 16  # bytes; a part is put whole each time that lines join it


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a JSON-lines file; none if it is not there. A torn last line is left out."""
    if is_remote(path):
        return _records(b"".join(_read(file, 0) for file in _files(path)).decode().splitlines())
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


def _files(path: Path) -> dict[Path, int]:
    """The files that make up a JSON-lines file, in order, with their sizes: in a store it and its parts."""
    if not is_remote(path):
        return {path: path.stat().st_size} if path.is_file() else {}
    store: Any = path

    def look() -> dict[str, Any]:
        with suppress(FileNotFoundError):
            whole = {store.path: store.fs.info(store.path)}
            return whole | store.fs.find(f"{store.path}{PARTS}", detail=True)
        return store.fs.find(f"{store.path}{PARTS}", detail=True)

    found = with_os_errors(look)
    files = {
        name: facts["size"]
        for name, facts in sorted(found.items())
        if facts["type"] == "file" and (name == store.path or name.endswith(".jsonl"))
    }
    return {
        path
        if name == store.path
        else path.parent / f"{path.name}{PARTS}" / name.split("/")[-1]: size
        for name, size in files.items()
    }


def _read(file: Path, offset: int) -> bytes:
    """The bytes of a file from an offset on; none of a part that has gone into the whole meanwhile."""
    if not is_remote(file):
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read()
    store: Any = file
    with suppress(FileNotFoundError):
        content: bytes = with_os_errors(lambda: store.fs.cat_file(store.path, start=offset or None))
        return content
    return b""


class Tail:
    """The records that a JSON-lines file has gained since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[Path, int] = {}
        self._seen: set[int] | None = set() if is_remote(path) else None
        self.every = 3.0 if is_remote(path) else 0.5
        """Seconds from one look to the next that do not ask too much of the storage."""

    def news(self) -> list[dict[str, Any]]:
        """Returns the records of whole lines; all of them where the file became shorter, or is new.

        In a store, where lines move from a part to the whole, each line comes once.
        """
        lines: list[str] = []
        for file, size in _files(self._path).items():
            offset = self._offsets.get(file, 0)
            if size < offset:
                offset = 0
            if size > offset:
                whole, newline, _ = _read(file, offset).rpartition(b"\n")
                offset += len(whole + newline)
                lines += whole.decode(errors="replace").splitlines()
            self._offsets[file] = offset
        if self._seen is not None:
            lines = [line for line in dict.fromkeys(lines) if hash(line) not in self._seen]
            self._seen.update(map(hash, lines))
        return _records(lines)


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Adds one record to a JSON-lines file, in one write."""
    line = json.dumps(record) + "\n"
    if is_remote(path):
        with_os_errors(lambda: write_whole(_new_part(path), line))
        return
    with path.open("a") as file:
        file.write(line)


def rewrite_jsonl(path: Path, keep: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
    """Keeps some records of a JSON-lines file. In a store its parts become one object, each line once.

    Args:
        path: of the file.
        keep: whether a record stays.
    """
    files = _files(path)
    records = read_jsonl(path)
    if is_remote(path) and not files:
        return
    lines = dict.fromkeys(json.dumps(record) + "\n" for record in records if keep(record))
    write_whole(path, "".join(lines))
    for part in files:
        if part != path:
            with suppress(FileNotFoundError):
                with_os_errors(part.unlink)


def _new_part(path: Path) -> Path:
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:6]}.jsonl"
    return path.parent / f"{path.name}{PARTS}" / name


def open_lines(path: Path, patience: float, every: float = 0.0) -> "JsonLines":
    """Opens a JSON-lines file for writing.

    Args:
        path: of the file.
        patience: seconds after which it is an error that nothing can be written.
        every: seconds in which lines for a store are gathered before they are put; 0: each at once.
    """
    return StoreLines(path, patience, every) if is_remote(path) else JsonLines(path, patience)


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
        self._try()

    def _try(self) -> None:
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
        outlast(self._write, self._patience, self._path)

    def _write(self) -> None:
        with self._lock:
            if not self._pending:
                return
            with self._path.open("ab", buffering=0) as file:
                while self._pending:
                    self._pending = self._pending[file.write(self._pending) :]


class StoreLines(JsonLines):
    """The same in a store, which takes no line more: each part of the file is put whole as it grows.

    Lines that are gathered are put by a thread, so that nobody waits for the store. What a process that is
    killed has not put is lost: metrics of some seconds, which a continued run writes again.

    Args:
        path: of the file.
        patience: seconds after which it is an error that nothing can be written.
        every: seconds in which lines are gathered; 0: each is put at once, as a part of its own.
    """

    def __init__(self, path: Path, patience: float, every: float) -> None:
        super().__init__(path, patience)
        self._every = every
        self._part, self._content = _new_part(path), b""
        self._putting = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: StorageAway | None = None
        _GATHERING.add(self)

    def add(self, record: dict[str, Any]) -> None:
        """As of the base class."""
        if not self._every:
            super().add(record)
            return
        if self._failure:
            raise self._failure
        with self._lock:
            self._pending += json.dumps(record).encode() + b"\n"
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """As of the base class."""
        self._closed.set()
        super().close()

    def put(self) -> None:
        """Puts what is gathered. Raises OSError."""
        self._write()

    def _follow(self) -> None:
        while not self._closed.wait(self._every):
            try:
                self._try()
            except StorageAway as error:
                self._failure = error

    def _write(self) -> None:
        with self._putting:
            with self._lock:
                lines = self._pending
            if not lines:
                return
            content = self._content + lines
            with_os_errors(lambda: write_whole(self._part, content))
            with self._lock:
                self._pending = self._pending[len(lines) :]
            self._content = content
            if not self._every or len(content) > _LARGEST_PART:
                self._part, self._content = _new_part(self._path), b""


_GATHERING: weakref.WeakSet[StoreLines] = weakref.WeakSet()


def put_gathered() -> None:
    """Puts the lines that this process has gathered: before a checkpoint, after which they do not come again.

    Raises:
        OSError: the store is away.
    """
    for lines in [*_GATHERING]:
        lines.put()
