"""Folders that commands write to, on disk or in an object store.

A store has no rename, no append, no lock and no part of a file: an object appears whole, under its name. So
files that nobody else reads meanwhile are written on this machine and put into the store as they change, by
`Mirror`; the last one put is what says that the others are there. Paths over fsspec do the rest.
"""

import errno
import fcntl
import functools
import hashlib
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ray_mae.config.urls import as_url
from ray_mae.data.paths import is_remote, resolve_path, retry_transient, with_os_errors
from ray_mae.data.retry import doubling_waits, retry
from ray_mae.files import write_whole
from ray_mae.summary import FILE as SUMMARY

T = TypeVar("T")
C = TypeVar("C")

EVERY_S = 15.0
"""Between two looks of a mirror for what has changed."""
_PREFIX = "ray_mae-"
_TEXTS = {".json", ".jsonl", ".html", ".md", ".yaml", ".txt", ".csv"}
_DATABASES = {".db"}
_UNFINISHED = (".unfinished", ".partial")


def require_store(path: Path) -> None:
    """Looks whether a URL's store can be used, before anything is done; a folder there would make the bucket.

    Raises:
        ValueError: the store's package is not installed.
        FileNotFoundError: there is no such bucket.
        OSError: the store cannot be asked, such as without a key.
    """
    if not is_remote(path):
        return
    resolve_path(path)
    store: Any = path
    bucket = store.path.partition("/")[0]
    if bucket and "://" not in store.path and not retry_transient(lambda: store.fs.exists(bucket)):
        raise FileNotFoundError(
            f"{path}: there is no bucket {bucket}, or this machine may not list what is in it: make it, or "
            "give the machine a key or a role (docs/object_stores.md)"
        )


def remove_folder(folder: Path) -> None:
    """Removes a folder with all that is in it, if it is there; what cannot be removed stays."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    store: Any = folder
    with suppress(OSError):
        retry_transient(lambda: store.fs.rm(store.path, recursive=True))


def rename_folder(folder: Path, name: str) -> None:
    """Gives a folder another name. In a store each object is copied."""
    if not is_remote(folder):
        folder.rename(folder.parent / name)
        return
    store: Any = folder
    target: Any = folder.parent / name
    retry_transient(lambda: store.fs.copy(store.path, target.path, recursive=True))
    remove_folder(folder)


def put_folder(source: Path, target: Path, last: str | None = None) -> None:
    """Copies files of this machine to a folder.

    Args:
        source: folder on this machine.
        target: folder; on disk the one above must be there.
        last: name of the file that is put after all others.

    Raises:
        OSError: with its number, where it cannot.
    """
    paths = sorted(source.rglob("*"), key=lambda path: (path.name == last, path))
    if not is_remote(target):
        target.mkdir(exist_ok=True)
    for path in paths:
        copy: Any = target / path.relative_to(source).as_posix()
        if not is_remote(target):
            if path.is_dir():
                copy.mkdir(exist_ok=True)
            else:
                shutil.copyfile(path, copy)
        elif path.is_file():
            with_os_errors(functools.partial(copy.fs.put_file, str(path), copy.path))


def storage_of(folder: Path) -> tuple[str, Any]:
    """Returns a folder and its file system as Ray takes them: None for that of this machine."""
    if not is_remote(folder):
        return str(folder), None
    import pyarrow.fs

    store: Any = folder
    return store.path, pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(store.fs))


# ------------------------------------------------------------------------------------------ reading


def fetch(path: Path, names: Sequence[str] | None = None) -> Path:
    """Returns a file or folder of this machine: itself, or of one in a store a copy that is kept for a day.

    Processes of a machine share the copy, which is known by the sizes and the times of the objects.

    Args:
        path: of the file or folder.
        names: of the files or folders that are wanted of a folder, as far as they are there; None: all.

    Raises:
        FileNotFoundError: it is not there.
        OSError: the store cannot be read, after several attempts.
    """
    if not is_remote(path):
        return path
    wanted = _objects(path, names)
    version = [
        (inner, facts["size"], *(str(facts.get(k, "")) for k in ("ETag", "LastModified", "mtime")))
        for inner, facts in sorted(wanted.items())
    ]
    key = hashlib.sha256(f"{path} {version}".encode()).hexdigest()[:24]
    shelf = Path(tempfile.gettempdir()) / f"{_PREFIX}fetched-{os.getuid()}"
    shelf.mkdir(mode=0o700, exist_ok=True)
    if shelf.stat().st_uid != os.getuid():
        raise PermissionError(errno.EACCES, "belongs to somebody else", str(shelf))
    _drop_old(shelf)
    place = shelf / key / path.name
    with (shelf / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process fetches, the others take its copy
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=shelf) as beside:
                whole = Path(beside, "whole", path.name)
                _get(path, wanted, whole)
                whole.parent.rename(shelf / key)
    os.utime(shelf / key)
    return place


@contextmanager
def fetched(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """A folder of this machine: itself, or of one in a store a copy of some files as long as the block lasts.

    Args:
        path: of the folder.
        names: of the files or folders in it that are wanted, as far as they are there.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as place:
        _get(path, _objects(path, names), Path(place, path.name))
        yield Path(place, path.name)


def _objects(path: Path, names: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """What fsspec says of the objects at and below a path, by their names below it."""
    store: Any = path
    wanted = {}
    for name, facts in retry_transient(lambda: store.fs.find(store.path, detail=True)).items():
        inner = name[len(store.path) :].strip("/")
        if facts["type"] == "file" and (
            names is None or inner in names or inner.partition("/")[0] in names
        ):
            wanted[inner] = facts
    if not wanted:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return wanted


def _get(path: Path, objects: dict[str, dict[str, Any]], target: Path) -> None:
    """Copies objects to a file or folder of this machine."""
    store: Any = path
    for inner, facts in objects.items():
        copy = target / inner if inner else target
        copy.parent.mkdir(parents=True, exist_ok=True)
        retry_transient(functools.partial(store.fs.get_file, facts["name"], str(copy)))


def _drop_old(shelf: Path) -> None:
    """Removes copies that nobody asked for since a day, with their locks."""
    for place in shelf.iterdir():
        with suppress(OSError):
            if place.stat().st_mtime < time.time() - 86400:
                shutil.rmtree(place) if place.is_dir() else place.unlink()


# ------------------------------------------------------------------------------------------ writing


class Mirror:
    """A folder of this machine whose files are put into a store as they change, and removed as they go.

    Texts right in it that name the folder name its place in the store there; those further below may have
    checksums. A summary is put after all else. An SQLite file is copied by SQLite, so that it is whole.
    Hidden and unfinished files stay here, and links.

    Args:
        folder: over fsspec.
        patience: seconds that the store may be away in the end.
        every: seconds between two looks.
    """

    def __init__(self, folder: Path, patience: float = 60.0, every: float = EVERY_S) -> None:
        self._folder, self._patience, self._every = folder, patience, every
        self._place = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
        self.local = Path(self._place.name, folder.name)
        """The folder on this machine."""
        self.local.mkdir()
        self._put: dict[str, tuple[int, int]] = {}
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Puts what changes, from now on, until `close`."""
        self._thread.start()

    def __enter__(self) -> "Mirror":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fetch(self, names: Sequence[str] | None = None) -> None:
        """Gets what the store has below the folder.

        Args:
            names: of files, where not all are wanted.
        """
        with suppress(FileNotFoundError):  # there is nothing yet
            objects = _objects(self._folder, names)
            _get(self._folder, objects, self.local)
            self._put |= {inner: _version(self.local / inner) for inner in objects}

    def close(self) -> None:
        """Puts what has changed, and removes the folder of this machine.

        Raises:
            OSError: the store was away for longer than `patience`.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            retry(
                lambda: with_os_errors(self.put),
                lambda error: isinstance(error, OSError) and not isinstance(error, PermissionError),
                lambda error, seconds: OSError(
                    errno.EIO,
                    f"{self._folder} could not be written for {seconds:.0f} s ({error}); what was to be put "
                    f"there is kept in {self._keep()}",
                ),
                doubling_waits(5.0),
                self._patience,
                in_time=True,
            )
        finally:
            self._place.cleanup()

    def put(self) -> None:
        """Puts what has changed since the last time."""
        with self._lock:
            there = {
                path.relative_to(self.local).as_posix(): path
                for path in self.local.rglob("*")
                if path.is_file()
                and not path.is_symlink()
                and not _stays(path.relative_to(self.local))
            }
            for name in sorted(there, key=lambda name: (name == SUMMARY, name)):
                with suppress(FileNotFoundError):  # gone since
                    version = _version(there[name])
                    if self._put.get(name) != version:
                        self._put_file(there[name], self._folder / name)
                        self._put[name] = version
            for name in self._put.keys() - there.keys():
                with suppress(FileNotFoundError):
                    (self._folder / name).unlink()
                del self._put[name]

    def _put_file(self, path: Path, target: Any) -> None:
        if path.suffix in _TEXTS and path.parent == self.local:
            here = str(self.local).encode()
            write_whole(target, path.read_bytes().replace(here, as_url(self._folder).encode()))
        elif path.suffix in _DATABASES:
            with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
                copy = Path(folder, path.name)
                source, whole = sqlite3.connect(path), sqlite3.connect(copy)
                source.backup(whole)
                source.close()
                whole.close()
                target.fs.put_file(str(copy), target.path)
        else:
            target.fs.put_file(str(path), target.path)

    def _follow(self) -> None:
        while not self._ended.wait(self._every):
            with suppress(OSError):  # it is away: later
                with_os_errors(self.put)

    def _keep(self) -> Path:
        """Moves the folder of this machine to where its end does not remove it."""
        kept = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}kept-")) / self.local.name
        shutil.move(self.local, kept)
        return kept


def _version(path: Path) -> tuple[int, int]:
    of = path.stat()
    return of.st_size, of.st_mtime_ns


def _stays(inner: Path) -> bool:
    return any(part.startswith(".") for part in inner.parts) or inner.name.endswith(_UNFINISHED)


_MIRRORED: dict[Path, str] = {}
"""Folders of this machine that commands work in, and the URLs that they stand for."""


def writes_to_stores(
    *, goes_on: bool = False
) -> Callable[[Callable[[C], dict[str, Any]]], Callable[[C], dict[str, Any]]]:
    """Lets a command write to a URL whose processes on other nodes write nothing to its output.

    It works in a folder of this machine that is mirrored there.

    Args:
        goes_on: whether the command goes on with what the folder holds, which is fetched first.

    Returns:
        What takes a function from settings with a path `output` to a summary, and gives such a one.
    """

    def decorate(command: Callable[[C], dict[str, Any]]) -> Callable[[C], dict[str, Any]]:
        @functools.wraps(command)
        def wrapped(config: C) -> dict[str, Any]:
            output: Path | None = getattr(config, "output", None)
            if output is None or not is_remote(output):
                return command(config)
            require_store(output)
            with Mirror(output) as mirror:
                if goes_on:
                    mirror.fetch()
                values: Any = config
                _MIRRORED[mirror.local] = as_url(output)
                try:
                    summary = command(replace(values, output=mirror.local))
                finally:
                    del _MIRRORED[mirror.local]
                return _renamed(summary, str(mirror.local), as_url(output))

        return wrapped

    return decorate


def require_one_node(output: Path) -> None:
    """Raises ValueError where tasks on other nodes would write to a folder that is mirrored from this one.

    Args:
        output: of a command, as it was given or by `writes_to_stores`.
    """
    import ray

    place = next((there for here, there in _MIRRORED.items() if here == output), None)
    nodes = sum(node["Alive"] for node in ray.nodes())
    if place is not None and nodes > 1:
        raise ValueError(
            f"--output {place} is a URL, and tasks of this command write to its output from {nodes} nodes: "
            "give a path that every node mounts, or run it on one node"
        )


def _renamed(value: Any, here: str, there: str) -> Any:
    """A summary's value with texts that name another place."""
    if isinstance(value, str):
        return value.replace(here, there)
    if isinstance(value, dict):
        return {name: _renamed(one, here, there) for name, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, here, there) for one in value]
    return value
