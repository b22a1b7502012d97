"""Folders and files of archives and shards: on disk, or over fsspec in an object store.

Everywhere else they are paths. One in a store is a `UPath`, which joins, lists, reads and writes as
pathlib's do. What needs a file of its own on this machine (decoders, Parquet, zip) gets a copy for as
long as it takes. What may have passed a moment later is tried again.
"""

import errno
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow.parquet as pq

from ray_mae.data.quarantine import Unusable, said

T = TypeVar("T")

_URL = re.compile(r"(?P<store>[a-z][a-z0-9+.-]+):/+(?P<rest>.*)", re.DOTALL)
_ON_DISK = {"file", "local"}
# What a file system of a network says while a server or a line is away for a moment.
_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        "EIO ESTALE EAGAIN EINTR ETIMEDOUT EBUSY ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET"
        " ECONNREFUSED EHOSTDOWN EHOSTUNREACH ENOTCONN EREMOTEIO"
    ).split()
)
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
BLOCK = 1 << 17
"""Bytes that are fetched of a file in a store at a time: the headers of most files."""
WAITS = (0.5, 2.0, 8.0)
"""Seconds before each further attempt."""


def place(path: Path) -> Path:
    """The path, absolute, since workers may have another working folder; of a URL the path over fsspec.

    ValueError where a URL's store is not known, or its package is not installed.
    """
    found = _URL.fullmatch(str(path))
    if not found:
        return path.absolute()
    from upath import UPath

    # pathlib has folded the two slashes of the URL into one
    root = "/" if found["store"] in _ON_DISK else ""
    url = f"{found['store']}://{root}{found['rest']}"
    try:
        made: Path = UPath(url)
        _ = made.fs  # type: ignore[attr-defined]  # imports the store's package
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{url} cannot be opened ({error}): a path on disk or a URL of fsspec is expected, and the "
            "package of its store must be installed on every node (s3fs for s3, gcsfs for gs, adlfs for az)"
        ) from error
    return made


def joined(root: Path, inner: str) -> Path:
    """A path below root, unless it is an absolute one or a URL."""
    return place(Path(inner)) if _URL.fullmatch(inner) else root / inner


def place_of(root: Path, inner: str) -> Path:
    """`joined`, of what an archive lists. Raises Unusable for a URL of a store that is not known."""
    try:
        return joined(root, inner)
    except ValueError as error:
        raise Unusable("missing", "a URL of a store that is not known or not installed") from error


def is_remote(path: Path) -> bool:
    """Whether the path is one over fsspec."""
    return not isinstance(path, Path)


def entries(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, sorted, and whether each is a folder."""
    if not is_remote(folder):
        with os.scandir(folder) as found:
            return sorted((entry.name, entry.is_dir()) for entry in found)
    store: Any = folder
    listed = patiently(lambda: store.fs.ls(store.path, detail=True))
    named = ((item["name"].rstrip("/").rpartition("/")[2], item["type"]) for item in listed)
    return sorted((name, kind == "directory") for name, kind in named if name)


def walk(root: Path, output: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder below root, as its path from there, and the names of its files; links are followed.

    Each folder comes once. Left out are the output, which may lie below the source, and hidden folders,
    which belong to other programs. A folder that cannot be listed stands among the files of the one it is in,
    so that its reader refuses it and nothing is lost unsaid. Raises OSError for root itself.
    """
    seen = {_real(root), _real(output)}
    to_do = [""]
    while to_do:
        inner = to_do.pop()
        try:
            found = patiently(partial(entries, root / inner if inner else root), remote=False)
        except OSError:
            if not inner:
                raise
            yield os.path.dirname(inner), [os.path.basename(inner)]
            continue
        yield inner, [name for name, folder in found if not folder]
        for name in reversed([name for name, folder in found if folder]):
            below = os.path.join(inner, name)
            real = _real(root / below)
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                to_do.append(below)


def _real(path: Path) -> str:
    return str(path) if is_remote(path) else os.path.realpath(path)


@contextmanager
def on_disk(path: Path, most_bytes: int | None = None) -> Iterator[Path]:
    """A file as one of this machine: itself, or a copy of it as long as the block lasts.

    Raises Unusable for one in a store that has more bytes, before it is fetched.
    """
    if not is_remote(path):
        yield path
        return
    store: Any = path
    size = patiently(lambda: store.fs.info(store.path)["size"])
    if most_bytes is not None and size is not None and size > most_bytes:
        raise Unusable("too-large", f"{size} bytes, at most {most_bytes}")
    with tempfile.TemporaryDirectory(prefix="ray_mae-") as folder:
        copy = os.path.join(folder, path.name)
        patiently(lambda: store.fs.get_file(store.path, copy))
        yield Path(copy)


def parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file; of one in a store what is asked for is read by range."""
    if not is_remote(path):
        return pq.ParquetFile(path)
    store: Any = path
    return pq.ParquetFile(store.path, filesystem=store.fs)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to be read in parts: of one in a store only the blocks that are asked for are fetched."""
    if not is_remote(path):
        with path.open("rb") as file:
            yield file
        return
    store: Any = path
    with _told_apart(lambda: store.fs.open(store.path, "rb", block_size=BLOCK)) as file:
        yield cast(BinaryIO, _InStore(file))


class _InStore:
    """A file of a store whose errors are those of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        return _told_apart(lambda: self._file.read(size))


def _told_apart(work: Callable[[], T]) -> T:
    """The result of work with a store. What may pass is raised as EIO, whatever its library calls it."""
    try:
        return work()
    except _LASTING:
        raise
    except Exception as error:
        raise OSError(errno.EIO, said(error)) from error


@contextmanager
def appearing(target: Path, beside: Path) -> Iterator[Path]:
    """A path of this machine to write to; when the block ends, what is there appears as `target`.

    It appears as a whole or not at all: by renaming it, or as an object, which a store shows when it
    has all of it. beside: a folder on the target's disk for what is not finished.
    """
    if is_remote(target):
        store: Any = target
        with tempfile.TemporaryDirectory(prefix="ray_mae-") as folder:
            made = Path(folder, target.name)
            yield made
            patiently(lambda: store.fs.put_file(str(made), store.path))
        return
    beside.mkdir(parents=True, exist_ok=True)
    made = beside / f"{target.name}.{uuid.uuid4().hex[:8]}.unfinished"
    try:
        yield made
        os.replace(made, target)
    finally:
        made.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        path.unlink()


def is_passing(error: BaseException, remote: bool) -> bool:
    """Whether what went wrong may go well a moment later.

    Of a store everything may, but what says that a file is not there or not ours to read: its library
    raises errors of its own.
    """
    if isinstance(error, Unusable):
        return error.__cause__ is not None and is_passing(error.__cause__, remote=False)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    return remote and isinstance(error, Exception) and not isinstance(error, _LASTING)


def patiently(work: Callable[[], T], remote: bool = True) -> T:
    """The result of `work`, tried again after each of WAITS while what goes wrong may pass.

    remote: whether the work is that of a store. Raises OSError for what such a one still raises then.
    """
    for wait in (*WAITS, None):
        try:
            return work()
        except Exception as error:
            if not is_passing(error, remote):
                raise
            if wait is None:
                if isinstance(error, (OSError, Unusable)):
                    raise
                raise OSError(errno.EIO, said(error)) from error
        time.sleep(wait)
    raise AssertionError("unreachable")
