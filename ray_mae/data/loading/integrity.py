"""Whether shards are the files that ingest wrote.

Sizes are compared before anything is read. The checksum of a whole file takes longer: it is computed in the
background, at the lowest priority, when the file is first read, and once per node, however many processes
read it. A node's results lie in its folder of temporary files, so that the next command finds them; they are
of a file as it was, by its size and times of change, and another one is read again.
"""

import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

from ray_mae.data.paths import list_sizes, sha256_of
from ray_mae.data.schema import Manifest, Shard

_LOWEST = 19
_BUSY_WAIT = 0.2
"""Seconds until it is asked again what another process computes."""
_SHA256_DIGITS = 64


class DamagedShard(OSError):
    """A shard whose bytes are not those that ingest wrote, or cannot be read."""


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Compares the sizes of all shards with the manifest, by one listing of their folder.

    Args:
        folder: of the shards, resolved.
        manifest: theirs.

    Raises:
        DamagedShard: with the first file that is missing or of another size, and how many more are.
    """
    sizes = list_sizes(folder)
    wrong = [shard for shard in manifest.shards if sizes.get(shard.file) != shard.bytes]
    if wrong:
        size = sizes.get(wrong[0].file)
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise DamagedShard(
            describe_exchange(folder / wrong[0].file, describe_size(size, wrong[0]) + more)
        )


def check_content(path: Path, shard: Shard, wait: bool = False) -> None:
    """Compares a file with the manifest's entry: its size now, its checksum as soon as it is known.

    Args:
        path: of the file, on disk.
        shard: its entry in the manifest that the reader began with.
        wait: for the checksum; else it is computed in the background, and a later call tells what
            came out.

    Raises:
        DamagedShard: it is another file.
        OSError: it cannot be read.
    """
    state = path.stat()
    if state.st_size != shard.bytes:
        raise DamagedShard(describe_exchange(path, describe_size(state.st_size, shard)))
    if not shard.sha256:
        return
    if (actual := _CHECKS.ask(_version(path, state), wait)) not in (None, shard.sha256):
        raise DamagedShard(
            describe_exchange(path, f"sha256 {actual}, {Manifest.FILE} says {shard.sha256}")
        )


def checksum_of(path: Path) -> str:
    """The SHA-256 of a file as it is now, computed once per node. Raises OSError."""
    checksum = _CHECKS.ask(_version(path, path.stat()), wait=True)
    assert checksum is not None
    return checksum


def describe_size(size: int | None, shard: Shard) -> str:
    """Returns the size of a file, None if it is not there, beside that of its entry in the manifest."""
    held = "is not there" if size is None else f"{size:,} bytes"
    return f"{held}, {Manifest.FILE} says {shard.bytes:,}"


def describe_exchange(path: Path, difference: str) -> str:
    """Returns the text of an error: the file, how it differs from what ingest wrote, and what to do."""
    return (
        f"{path} is not the file that ingest wrote ({difference}): restore it from a copy, or ingest again "
        "and begin another run; with data.corrupt skip a run goes on without what is damaged"
    )


_Version = tuple[str, int, int, int, int]
"""A file as it is: path, size, times of change, number."""


def _version(path: Path, state: os.stat_result) -> _Version:
    return (str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


class _Checks:
    """The checksums of the files that this process reads, and the thread that computes them."""

    def __init__(self) -> None:
        self._known: dict[_Version, str] = {}
        self._queue: deque[_Version] = deque()
        self._queued: set[_Version] = set()
        self._lock = threading.Lock()
        self._running = False

    def ask(self, version: _Version, wait: bool) -> str | None:
        """The checksum; None where it is not known yet, and is computed in the background."""
        if version in self._known:
            return self._known[version]
        if wait:
            self._known[version] = checksum = _once_per_node(version)
            return checksum
        with self._lock:
            if version not in self._queued:
                self._queued.add(version)
                self._queue.append(version)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, daemon=True).start()
        return None

    def _run(self) -> None:
        # of this thread alone, on Linux
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
        while True:
            with self._lock:
                if not self._queue:
                    self._running = False
                    return
                version = self._queue.popleft()
            try:
                self._known[version] = self._known.get(version) or _once_per_node(version, False)
            except BlockingIOError:  # another process is computing it
                self._queue.append(version)
                time.sleep(_BUSY_WAIT)
                continue
            except OSError:  # whoever reads it next says so, or asks again
                pass
            self._queued.discard(version)


_CHECKS = _Checks()


def _once_per_node(version: _Version, wait: bool = True) -> str:
    """The checksum of a file, from another process of this node where one has it.

    Raises BlockingIOError where another process is computing it and `wait` is not asked for.
    """
    path = Path(version[0])
    try:
        handle = os.open(_note(version), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # no place for notes: each process by itself
        return sha256_of(path)
    with os.fdopen(handle, "r+") as note:
        # a lock goes with the process that has it
        fcntl.flock(note, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        noted = note.read()
        if len(noted) == _SHA256_DIGITS:
            return noted
        checksum = sha256_of(path)
        note.seek(0)
        note.write(checksum)
        return checksum


def _note(version: _Version) -> Path:
    """Where this node notes the checksum. OSError where others could write there."""
    folder = Path(tempfile.gettempdir(), f"ray_mae-checksums-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is somebody else's")
    return folder / hashlib.sha256(repr(version).encode()).hexdigest()
