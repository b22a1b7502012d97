"""A cache of shards on a disk of the node: what a run has fetched once, it need not fetch again.

What is kept are the ranges that are read, not whole files: an epoch takes its row groups from everywhere, and
each node its own part of them. An index, which all processes of the node share, keeps account of the bytes
before they are written, so that the cache is never larger than it may be, whoever is killed when.

The pieces of the run itself stay until it has no more use for them, those of others that were not used for
longest make room. By that rule half an archive on the disk serves half of every epoch; had each piece to go
for the next one, 15 % would be served, as each epoch comes in another order.
"""

import hashlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_mae.data.parquet import Piece, Range, fetch
from ray_mae.data.schema import Shard

INDEX = "index.sqlite"
INDEX_BYTES = 2 << 20
"""Room for the index when it is empty, with its journal."""
_BLOCK = 1 << 12  # of a file system
_ENTRY = 1 << 9  # bytes of a piece in the index
_DIGEST = hashlib.sha256().digest_size
_STALE = 600.0  # seconds after which nobody is writing a piece any more
_REST = 60.0  # seconds until a disk that failed is asked again
_SEEN = 60.0  # seconds between two notes that a piece was used
_WAIT = 60.0  # seconds for the index

_TABLES = (
    "CREATE TABLE pieces (name TEXT PRIMARY KEY, file TEXT, owner TEXT, bytes INTEGER, used REAL,"
    " ready INTEGER) WITHOUT ROWID",
    "CREATE INDEX by_use ON pieces (used)",
    "CREATE TABLE total (bytes INTEGER)",
    "INSERT INTO total VALUES (0)",
)


@dataclass(frozen=True)
class CacheSettings:
    """Where nodes keep what they have fetched."""

    folder: Path
    limit: int
    """Bytes on each node at most."""

    def open(self, folders: Sequence[Path], columns: Sequence[str]) -> "NodeCache":
        """The cache of this node.

        Args:
            folders: of shards that are read.
            columns: of them.
        """
        reader = repr([*map(str, folders), *columns])
        return NodeCache(self.folder, self.limit, _name(reader))


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class NodeCache:
    """Pieces of files of stores in a folder of this machine, for all processes of this user.

    Args:
        folder: on a disk of the node; what is kept lies in a folder of this user in it.
        limit: bytes that it takes at most.
        owner: whose pieces these are; what has the same name makes no room for each other.
    """

    def __init__(self, folder: Path, limit: int, owner: str) -> None:
        self._place = folder / f"ray_mae-shards-{os.getuid()}"
        self._limit, self._owner = limit, owner
        self._index: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._problem, self._told, self._rests_until = "", False, 0.0

    def fetch(self, path: Path, shard: Shard | None, ranges: Sequence[Range]) -> list[Piece]:
        """As `ray_mae.data.parquet.fetch`, from the node's disk where that has them.

        Nothing that happens to the cache keeps from reading: see `take_problem`.
        """
        if shard is None:
            return fetch(path, shard, ranges)
        file = _name(shard.sha256 or f"{path} {shard.bytes}")
        names = {(start, end): _name(f"{file} {start} {end}") for start, end in ranges}
        held = {where: self._get(name) for where, name in names.items()}
        missing = [where for where, content in held.items() if content is None]
        for where, (_, content) in zip(missing, fetch(path, shard, missing), strict=True):
            held[where] = content
            self._put(names[where], file, content)
        return [(where[0], content) for where, content in held.items() if content is not None]

    def forget(self, path: Path, shard: Shard) -> None:
        """Removes all of a file, whose bytes were damaged when they came."""
        try:
            with self._transaction() as index:
                file = _name(shard.sha256 or f"{path} {shard.bytes}")
                for name, size in index.execute(
                    "SELECT name, bytes FROM pieces WHERE file = ? AND ready", [file]
                ).fetchall():
                    self._remove(index, name, size)
        except (OSError, sqlite3.Error) as error:
            self._rest(error)

    def take_problem(self) -> str:
        """Why pieces are not kept, in words; once: "" from then on, and where there is no reason."""
        with self._lock:
            if self._told or not self._problem:
                return ""
            self._told = True
            return self._problem

    def close(self) -> None:
        with self._lock:
            if self._index:
                self._index.close()
            self._index = None

    def _get(self, name: str) -> bytes | None:
        """A piece; None where it is not there, or not whole."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            with self._transaction("DEFERRED") as index:
                row = index.execute(
                    "SELECT used, owner FROM pieces WHERE name = ? AND ready", [name]
                ).fetchone()
            if row is None:
                return None
            try:
                content = self._file(name).read_bytes()
            except FileNotFoundError:
                content = b""
            piece, digest = content[:-_DIGEST], content[-_DIGEST:]
            if hashlib.sha256(piece).digest() != digest:  # the disk is damaged, or it has just gone
                self._drop(name, row[0])
                return None
            if time.time() - row[0] > _SEEN or row[1] != self._owner:
                with self._transaction() as index:
                    index.execute(
                        "UPDATE pieces SET used = ?, owner = ? WHERE name = ?",
                        [time.time(), self._owner, name],
                    )
            return piece
        except (OSError, sqlite3.Error) as error:
            self._rest(error)
            return None

    def _put(self, name: str, of: str, piece: bytes) -> None:
        """Keeps a piece, if there is room for it."""
        if time.monotonic() < self._rests_until:
            return
        try:
            now = time.time()
            if not self._reserve(name, of, len(piece), now):
                return
            try:
                self._file(name).parent.mkdir(mode=0o700, exist_ok=True)
                with self._file(name).open("wb") as file:
                    file.write(piece)
                    file.write(hashlib.sha256(piece).digest())
            except OSError:
                self._drop(name, now)
                raise
            with self._transaction() as index:
                kept = index.execute(
                    "UPDATE pieces SET ready = 1 WHERE name = ? AND used = ?", [name, now]
                ).rowcount
            if not kept:  # it took so long that its room was given away
                self._file(name).unlink(missing_ok=True)
        except (OSError, sqlite3.Error) as error:
            self._rest(error)

    def _reserve(self, name: str, of: str, size: int, now: float) -> bool:
        """Enters a piece in the index, before it is written. False where there is no room for it."""
        room = -(-(size + _DIGEST) // _BLOCK) * _BLOCK + _ENTRY
        with self._transaction() as index:
            if index.execute("SELECT 1 FROM pieces WHERE name = ?", [name]).fetchone():
                return False
            # what is half written by somebody who was killed is nobody's
            whose = "(ready AND owner != ?) OR (NOT ready AND used < ?)"
            if not self._make_room(index, room, whose, [self._owner, now - _STALE]):
                self._note(
                    f"is full ({self._limit / 2**30:.3g} GiB): what does not fit is read from the store "
                    "in every epoch"
                )
                return False
            index.execute(
                "INSERT INTO pieces VALUES (?, ?, ?, ?, ?, 0)", [name, of, self._owner, room, now]
            )
            index.execute("UPDATE total SET bytes = bytes + ?", [room])
        return True

    def _make_room(
        self, index: sqlite3.Connection, room: int, whose: str, values: list[Any]
    ) -> bool:
        """Removes pieces, of some those not used for longest, until so many bytes fit."""
        (total,) = index.execute("SELECT bytes FROM total").fetchone()
        while total + room > self._limit - INDEX_BYTES:
            found = index.execute(
                f"SELECT name, bytes FROM pieces WHERE {whose} ORDER BY used LIMIT 1", values
            ).fetchone()
            if found is None:
                return False
            self._remove(index, *found)
            total -= found[1]
        return True

    def _drop(self, name: str, used: float) -> None:
        """Removes a piece as it was when it was looked up."""
        with self._transaction() as index:
            found = index.execute(
                "SELECT name, bytes FROM pieces WHERE name = ? AND used = ?", [name, used]
            ).fetchone()
            if found:
                self._remove(index, *found)

    def _remove(self, index: sqlite3.Connection, name: str, size: int) -> None:
        # the file first: who is killed in between leaves too much in the account, never too little
        self._file(name).unlink(missing_ok=True)
        index.execute("DELETE FROM pieces WHERE name = ?", [name])
        index.execute("UPDATE total SET bytes = bytes - ?", [size])

    def _file(self, name: str) -> Path:
        return self._place / name[:2] / name

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._lock:
            index = self._connected()
            index.execute(f"BEGIN {kind}")
            try:
                yield index
                index.execute("COMMIT")
            except BaseException:
                if index.in_transaction:
                    index.execute("ROLLBACK")
                raise

    def _connected(self) -> sqlite3.Connection:
        if self._index is None:
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._place.is_symlink() or self._place.stat().st_uid != os.getuid():
                raise PermissionError(f"{self._place} is somebody else's")
            index = sqlite3.connect(
                self._place / INDEX, timeout=_WAIT, isolation_level=None, check_same_thread=False
            )
            for setting in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=64"):
                index.execute(f"PRAGMA {setting}")
            index.execute("BEGIN IMMEDIATE")
            if not index.execute("SELECT 1 FROM sqlite_master").fetchone():
                for folder in self._place.glob("??"):  # of an index that is gone
                    shutil.rmtree(folder)
                for statement in _TABLES:
                    index.execute(statement)
            self._make_room(index, 0, "TRUE", [])  # it may have had another size
            index.execute("COMMIT")
            self._index = index
        return self._index

    def _rest(self, error: Exception) -> None:
        """Leaves the disk alone for a while."""
        self._note(f"cannot be used ({error}): what is not in it is read from the store")
        self._rests_until = time.monotonic() + _REST

    def _note(self, problem: str) -> None:
        self._problem = self._problem or f"warning: the cache {self._place} {problem}"
