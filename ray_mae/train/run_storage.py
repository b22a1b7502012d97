"""The disk of a run: an outage is waited for, a full disk ends the run, a record is replaced whole."""

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pyarrow
import pyarrow.fs

from ray_mae.data.paths import is_remote, with_os_errors
from ray_mae.data.retry import doubling_waits, retry
from ray_mae.files import write_whole
from ray_mae.train.errors import FatalError

T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST = 5.0  # seconds between two attempts, at most


class FullDisk(FatalError):
    """No room for a checkpoint: the run ends, and its last one stays as it is."""


class StorageAway(FatalError):
    """Storage did not come back in the time that the settings give it."""


def is_full(error: BaseException, folder: Path) -> bool:
    """Returns whether something could not be written because `folder` has no room left."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    if not isinstance(folder, Path):  # of an object store, which has no size
        return False
    if any(os.strerror(number) in str(error) for number in _FULL):  # as safetensors says
        return True
    if is_remote(folder):
        return False
    try:  # PyTorch's own error does not tell
        return shutil.disk_usage(folder).free < 1 << 20
    except OSError:
        return False


def outlast(
    work: Callable[[], T],
    patience: float,
    folder: Path,
    back: Callable[[str], None] | None = None,
) -> T:
    """Returns the result of `work`, called again while it raises OSError.

    A folder whose file system is not mounted is empty: what is missing is waited for, too. A full disk
    is not.

    Args:
        work: what reads or writes.
        patience: seconds.
        folder: that is named where the time is over.
        back: called with a sentence about a wait that is over.

    Raises:
        StorageAway: after `patience` seconds.
        OSError: the disk is full.
    """

    def storage_away(error: Exception, seconds: float) -> StorageAway:
        return StorageAway(
            f"{folder} could not be reached for {seconds:.0f} s ({error}): start the same command "
            "again when it is back; scaling.storage_patience is how long a run waits"
        )

    def recovered(error: Exception, seconds: float) -> None:
        if back:
            back(f"{folder} was away for {seconds:.1f} s ({error})")

    return retry(
        work if not is_remote(folder) else lambda: with_os_errors(work),
        lambda error: isinstance(error, OSError) and error.errno not in _FULL,
        storage_away,
        doubling_waits(_LONGEST),
        patience,
        in_time=True,
        on_recovery=recovered,
    )


def require(folder: Path) -> None:
    """Raises FileNotFoundError where the folder is not there, as that of a file system not mounted.

    A store has no folders, and says itself when it is away.
    """
    if not is_remote(folder) and not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def storage_of(run: Path, record: str, patience: float) -> tuple[str, pyarrow.fs.FileSystem]:
    """Returns the path of the folder that a run lies in, and the file system, as Ray Train takes them.

    Args:
        run: folder of the run.
        record: name of Ray Train's file about checkpoints.
        patience: seconds that the storage may be away.
    """
    if is_remote(run):
        store: Any = run
        handler = StoreHandler(store, patience)
        return store.parent.path, pyarrow.fs.PyFileSystem(handler)
    return str(run.parent), RunStorage(run, record, patience)


class StoreHandler(pyarrow.fs.FSSpecHandler):
    """What Ray Train sees of the store that a run lies in: it is waited for, as a disk is.

    An object appears whole when its stream is closed, Ray Train's record of checkpoints as well.
    """

    def __init__(self, run: Path, patience: float) -> None:
        """run: over fsspec; patience: seconds."""
        store: Any = run
        super().__init__(store.fs)
        self._arguments = run, patience

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreHandler, self._arguments

    def _retry(self, work: Callable[[], T]) -> T:
        run, patience = self._arguments
        return outlast(work, patience, run)

    def get_file_info(self, paths: Any) -> Any:
        """As of the base class."""
        base = super().get_file_info
        return self._retry(lambda: base(paths))

    def open_input_stream(self, path: str) -> Any:
        """As of the base class."""
        base = super().open_input_stream
        return self._retry(lambda: base(path))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        """As of the base class, but that all is put when the stream is closed."""
        return pyarrow.PythonFile(_Object(path, self), mode="w")

    def put(self, path: str, content: bytes) -> None:
        """Writes an object."""
        self._retry(lambda: self.fs.pipe_file(path, content))

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing: the store has no folders."""


class _Object(io.BytesIO):
    """A small object that appears in its place as a whole."""

    def __init__(self, path: str, handler: StoreHandler) -> None:
        super().__init__()
        self._path, self._handler = path, handler

    def close(self) -> None:
        """Puts it."""
        if not self.closed:
            self._handler.put(self._path, self.getvalue())
        super().close()


class RunStorage(pyarrow.fs.LocalFileSystem):
    """What Ray Train sees of the disk that a run lies on.

    Its workers and its controller wait for storage that is away, and its record of checkpoints, which
    it would write over, is replaced in one step: a full disk leaves the old one as it was.
    """

    def __init__(self, run: Path, record: str, patience: float) -> None:
        """run: folder, which exists; record: name of the file; patience: seconds."""
        super().__init__()
        self._arguments = run, record, patience

    def __reduce__(self) -> tuple[Any, ...]:
        return RunStorage, self._arguments

    def _retry(self, work: Callable[[], T]) -> T:
        run, _, patience = self._arguments
        return outlast(work, patience, run)

    def get_file_info(self, paths: Any) -> Any:
        """As of the base class, once the run's folder is there."""

        def look() -> Any:
            require(self._arguments[0])
            return pyarrow.fs.LocalFileSystem.get_file_info(self, paths)

        return self._retry(look)

    def open_input_stream(self, path: str, *more: Any, **options: Any) -> Any:
        """As of the base class."""
        base = super().open_input_stream
        return self._retry(lambda: base(path, *more, **options))

    def open_output_stream(self, path: str, *more: Any, **options: Any) -> Any:
        """As of the base class; the record appears when the stream is closed."""
        if Path(path).name == self._arguments[1]:
            return _WholeFile(Path(path), self._retry)
        base = super().open_output_stream
        return self._retry(lambda: base(path, *more, **options))


class _WholeFile:
    """A small file that appears in its place as a whole."""

    def __init__(self, path: Path, retry_away: Callable[[Callable[[], None]], None]) -> None:
        self._path, self._retry = path, retry_away
        self._content = bytearray()

    def __enter__(self) -> "_WholeFile":
        return self

    def write(self, content: bytes) -> None:
        """Kept until the end of the block."""
        self._content += content

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._retry(lambda: write_whole(self._path, bytes(self._content)))
