"""One command at a time writes into a folder: a lock that tells who has it, and that no dead owner keeps."""

import fcntl
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FILE = ".lock"
HEARTBEAT_S = 5.0
"""Between two signs of life of an owner: the time of change of its lock file."""
_PATIENCE_S = 3 * HEARTBEAT_S


class InUseError(RuntimeError):
    """Another command writes into the folder."""


@contextmanager
def hold(folder: Path, command: str) -> Iterator[None]:
    """Keeps other commands from writing into a folder, during a block.

    The kernel's lock on a file in the folder is gone with its process, on NFS too. Where a file system has no
    locks, or only for each machine by itself, an owner is known by its heartbeat: it is watched for some
    seconds before its place is taken.

    Args:
        folder: it exists; a path over fsspec, where there are no locks, is not locked.
        command: told to whoever wants the folder meanwhile.

    Raises:
        InUseError: another command has it; the text says which, where and since when.
    """
    if not isinstance(folder, Path):
        yield
        return
    path = folder / FILE
    file = _acquire(path, folder)
    owner = {
        "command": command,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": _user(),
        "since": time.strftime("%F %T %z"),
    }
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(owner).encode(), 0)
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(file, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):  # it may be the disk that ended the block
            path.unlink()
        os.close(file)


def _acquire(path: Path, folder: Path) -> int:
    """The open lock file, locked. Raises InUseError."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locked = _lock(file)
            owner = _owner(file)
            if locked is False:
                raise _in_use(folder, owner)
            # of this machine the kernel knows; of others not everywhere
            here = locked and owner.get("host") == socket.gethostname()
            if owner and not here and _beats(path):
                raise _in_use(folder, owner)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its owner has just removed it: another one counts


def _lock(file: int) -> bool | None:
    """Whether the kernel gives us the file; None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _owner(file: int) -> dict[str, Any]:
    """What the lock file tells; empty where it is new, or its owner is about to write it."""
    try:
        owner: dict[str, Any] = json.loads(os.pread(file, 1 << 12, 0))
    except ValueError:
        return {}
    return owner


def _beats(path: Path) -> bool:
    """Whether an owner gives a sign of life, by the clock of the file system alone."""
    before = _changed(path)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(HEARTBEAT_S / 5)
        if _changed(path) != before:
            return True
    return False


def _changed(path: Path) -> int:
    """When a file was last changed; opened for that, since network file systems ask the server then."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return 0


def _beat(file: int, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        with suppress(OSError):  # storage that is away
            os.utime(file)


def _in_use(folder: Path, owner: dict[str, Any]) -> InUseError:
    who = (
        f"`{owner['command']}` of {owner['user']} (process {owner['pid']} on {owner['host']}) since "
        f"{owner['since']}"
        if owner
        else "another command that has just begun"
    )
    return InUseError(f"{folder} is in use by {who}: wait for its end, or choose another --output")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
