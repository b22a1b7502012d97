"""Paths of archives and shards: on disk, or over fsspec in an object store.

A path in a store is a `UPath`, which joins, lists, reads and writes as pathlib's do. What needs a file
of its own on this machine (decoders, Parquet, zip) gets a copy for as long as it takes. Errors that may
be gone a moment later are waited for.
"""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from ray_mae.cluster.proxies import describe_proxy
from ray_mae.data.quarantine import QuarantineError, error_text
from ray_mae.data.retry import retry
from ray_mae.files import replacing

T = TypeVar("T")

_URL = re.compile(r"(?P<store>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.*)", re.DOTALL)
_ON_DISK = {"file", "local"}
# Errors of a network file system while a server or a line is away for a moment.
_TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        "EIO ESTALE EAGAIN EINTR ETIMEDOUT EBUSY ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET"
        " ECONNREFUSED EHOSTDOWN EHOSTUNREACH ENOTCONN EREMOTEIO"
    ).split()
)
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
BLOCK = 1 << 17
"""Bytes that are fetched of a file in a store at a time: the headers of most files."""
WAITS = (0.5, 2.0, 8.0)
"""Seconds before each further attempt at what may be gone a moment later."""


def store_of(path: str) -> str | None:
    """The store of a URL (s3, gs, https …); None for a path on disk."""
    match = _URL.fullmatch(path)
    store = match["store"].lower() if match else None
    return None if store in _ON_DISK else store


def resolve_path(path: Path | str) -> Path:
    """Make a path absolute, since workers may have another working folder.

    Args:
        path: on disk, a URL of fsspec (s3://, gs://, file:// …) as a `Path`, or a `UPath`.

    Returns:
        The absolute path; of a URL a `UPath`.

    Raises:
        ValueError: the URL's store is not known, or its package is not installed.
    """
    if not isinstance(path, (str, Path)):
        return path
    match = _URL.fullmatch(str(path))
    if not match:
        return Path(path).absolute()
    from upath import UPath

    # pathlib has folded the two slashes of the URL into one
    store = match["store"].lower()
    root = "/" if store in _ON_DISK else ""
    url = f"{store}://{root}{match['rest']}"
    try:
        remote: Path = UPath(url)
        _ = remote.fs  # type: ignore[attr-defined]  # imports the store's package
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{url} cannot be opened ({error}): a path on disk or a URL of fsspec is expected, and the "
            "package of its store must be installed on every node (s3fs for s3, gcsfs for gs, adlfs for az)"
        ) from error
    return remote


def join_path(root: Path, inner: str) -> Path:
    """Return the path below root, or `inner` itself where it is an absolute path or a URL."""
    return resolve_path(Path(inner)) if _URL.fullmatch(inner) else root / inner


def source_path(root: Path, listed: str) -> Path:
    """`join_path` for what an archive lists. QuarantineError for a URL of a store that is not known."""
    try:
        return join_path(root, listed)
    except ValueError as error:
        raise QuarantineError(
            "missing", "a URL of a store that is not known or not installed"
        ) from error


def real_path(path: Path | str) -> Path:
    """`resolve_path` of what must be the same on every node: links of a path on disk are followed."""
    resolved = resolve_path(path)
    return resolved if is_remote(resolved) else resolved.resolve()


def resolve_url(path: Path) -> Path:
    """Return the `UPath` of a URL; a path on disk as it is. Raises ValueError as `resolve_path`."""
    resolved = resolve_path(path)
    return resolved if is_remote(resolved) else path


def is_remote(path: Path) -> bool:
    """Whether the path is one over fsspec."""
    return not isinstance(path, Path)


def list_folder(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, sorted, and whether each is a folder."""
    if not is_remote(folder):
        with os.scandir(folder) as local:
            return sorted((entry.name, entry.is_dir()) for entry in local)
    store: Any = folder
    entries = retry_transient(lambda: store.fs.ls(store.path, detail=True))
    kinds = ((entry["name"].rstrip("/").rpartition("/")[2], entry["type"]) for entry in entries)
    return sorted((name, kind == "directory") for name, kind in kinds if name)


def list_sizes(folder: Path) -> dict[str, int]:
    """Sizes in bytes of the files in a folder, by name: of a store by one listing."""
    if not is_remote(folder):
        with os.scandir(folder) as local:
            return {entry.name: entry.stat().st_size for entry in local if entry.is_file()}
    store: Any = folder
    store.fs.invalidate_cache(store.path)  # of what was there before
    entries = retry_transient(lambda: store.fs.ls(store.path, detail=True))
    return {
        entry["name"].rpartition("/")[2]: entry["size"]
        for entry in entries
        if entry["type"] == "file"
    }


def walk(root: Path, output: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder below root, as its path from there, and the names of its files; links are followed.

    Each folder comes once. Left out are the output, which may lie below the source, and hidden folders,
    which belong to other programs. A folder that cannot be listed stands among the files of the one it is
    in, so that its reader quarantines it and nothing is lost unsaid. Raises OSError for root itself.
    """
    seen = {_real(root), _real(output)}
    to_do = [""]
    while to_do:
        inner = to_do.pop()
        try:
            entries = retry_transient(
                partial(list_folder, root / inner if inner else root), remote=False
            )
        except OSError:
            if not inner:
                raise
            yield os.path.dirname(inner), [os.path.basename(inner)]
            continue
        yield inner, [name for name, is_folder in entries if not is_folder]
        for name in reversed([name for name, is_folder in entries if is_folder]):
            below = os.path.join(inner, name)
            real = _real(root / below)
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                to_do.append(below)


def _real(path: Path) -> str:
    return str(path) if is_remote(path) else os.path.realpath(path)


@contextmanager
def local_file(path: Path, most_bytes: int | None = None) -> Iterator[Path]:
    """A file as one of this machine: itself, or of one in a store a copy as long as the block lasts.

    Args:
        path: of the file.
        most_bytes: size from which a file in a store is not fetched.

    Raises:
        QuarantineError: the file in the store has more bytes.
        OSError: the store cannot be read, after several attempts.
    """
    if not is_remote(path):
        yield path
        return
    store: Any = path
    size = retry_transient(lambda: store.fs.info(store.path)["size"])
    if most_bytes is not None and size is not None and size > most_bytes:
        raise QuarantineError("too-large", f"{size} bytes, at most {most_bytes}")
    with tempfile.TemporaryDirectory(prefix="ray_mae-") as folder:
        copy = os.path.join(folder, path.name)
        retry_transient(lambda: store.fs.get_file(store.path, copy))
        yield Path(copy)


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read parts of it: of one in a store only their blocks are fetched."""
    if not is_remote(path):
        with path.open("rb") as file:
            yield file
        return
    store: Any = path
    with with_os_errors(lambda: store.fs.open(store.path, "rb", block_size=BLOCK)) as file:
        yield cast(BinaryIO, _InStore(file))


class _InStore:
    """A file of a store whose errors are those of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        return with_os_errors(lambda: self._file.read(size))


def with_os_errors(work: Callable[[], T]) -> T:
    """Return the result of work with a store, whose library's own errors are raised as EIO.

    Args:
        work: what to do. Our own errors and those of a wrong value stay what they are.

    Raises:
        OSError: as of a file; EIO for all that has no number, which may be gone a moment later.
    """
    try:
        return work()
    except (*_PERMANENT, ValueError):
        raise
    except Exception as error:
        known = isinstance(error, OSError) and error.errno is not None
        if known or type(error).__module__.startswith("ray_mae."):
            raise
        raise OSError(errno.EIO, error_text(error)) from error


def make_private_folder(folder: Path) -> None:
    """Make a folder that its owner alone can look into; of a store that is the bucket's own matter."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_remote(folder):
        with suppress(PermissionError):  # somebody else's, who made it so
            folder.chmod(0o700)


@contextmanager
def atomic_write(target: Path, beside: Path, private: bool = False) -> Iterator[Path]:
    """Write a file as a whole or not at all: the block gets a path of this machine to write to.

    When the block ends, what is there becomes `target`: by renaming it, or as an object, which a store
    shows when it has all of it.

    Args:
        target: path of the finished file.
        beside: a folder on the target's disk for what is not finished.
        private: for the owner of the file alone (0600).
    """
    if is_remote(target):
        store: Any = target
        with tempfile.TemporaryDirectory(prefix="ray_mae-") as folder:
            unfinished = Path(folder, target.name)
            yield unfinished
            retry_transient(lambda: store.fs.put_file(str(unfinished), store.path))
        return
    beside.mkdir(parents=True, exist_ok=True)
    with replacing(target, beside) as unfinished:
        yield unfinished
        if private:
            unfinished.chmod(0o600)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        path.unlink()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_transient(error: BaseException, remote: bool) -> bool:
    """Whether an error may be gone a moment later.

    Args:
        error: of a disk or a store.
        remote: whether it is of a store, whose library raises errors of its own: they all may, but
            those that a file is not there or not ours to read.
    """
    if isinstance(error, QuarantineError):
        return error.__cause__ is not None and is_transient(error.__cause__, remote=False)
    if isinstance(error, OSError) and error.errno in _TRANSIENT:
        return True
    return remote and isinstance(error, Exception) and not isinstance(error, _PERMANENT)


def retry_transient(work: Callable[[], T], remote: bool = True) -> T:
    """Return the result of `work`, tried again after each of WAITS while its errors are transient.

    Args:
        work: what to do.
        remote: whether it works with a store.

    Raises:
        OSError: what a store still raises after the last attempt. Other errors stay what they are.
    """

    def last_error(error: Exception, _: float) -> Exception:
        if isinstance(error, (OSError, QuarantineError)):
            return error
        text = error_text(error)
        if any(word in type(error).__name__ for word in ("Connect", "Proxy", "Timeout")):
            text = f"{text} ({describe_proxy('https://')})"
        return OSError(errno.EIO, text)

    return retry(work, lambda error: is_transient(error, remote), last_error, WAITS)
