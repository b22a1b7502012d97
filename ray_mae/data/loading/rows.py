"""Rows of shards from disk: what passes is waited for, what is damaged is named.

Keys of samples are traced back to their identifiers here, too.
"""

import errno
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.data.loading.arrow_rows import rows_of
from ray_mae.data.loading.integrity import DamagedShard, check_content, checksum_of
from ray_mae.data.loading.order import key_of
from ray_mae.data.paths import is_transient
from ray_mae.data.retry import doubling_waits, retry
from ray_mae.data.schema import Manifest, Row, Shard

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds that shards may be away where no setting says so."""


def read_rows(
    path: Path,
    shard: Shard,
    group: int,
    columns: Sequence[str],
    patience: float = PATIENCE,
    wait: bool = False,
) -> list[Row]:
    """Reads the rows of one row group, and waits for storage that is away.

    Checksums of pages are compared, where the shard has them, and that of the whole file with the
    manifest's: see `check_content`.

    Args:
        path: of the shard.
        shard: its entry in the manifest.
        group: index of the row group.
        columns: to read.
        patience: seconds that the shard may be away.
        wait: for the checksum of the file, before its rows are used.

    Raises:
        DamagedShard: the file is damaged or another one, or not there although its folder is.
        OSError: storage was away for longer.
    """

    def read() -> list[Row]:
        check_content(path, shard, wait)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return rows_of(file.read_row_group(group, columns=list(columns)))

    try:
        return _retry_away(read, path, patience)
    except DamagedShard:
        raise
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise  # of the system, not of Parquet
        raise DamagedShard(describe_damage(path, shard, f"row group {group}: {error}")) from error


def _retry_away(read: Callable[[], T], path: Path, patience: float) -> T:
    """What is read, tried again while storage is away: then the manifest is, too."""

    def is_away(error: Exception) -> bool:
        if not isinstance(error, OSError):
            return False
        return not (path.parent / Manifest.FILE).is_file() or is_transient(error, remote=False)

    def timeout(error: Exception, seconds: float) -> TimeoutError:
        return TimeoutError(
            errno.ETIMEDOUT, f"{path} could not be read for {seconds:.0f} s ({error})"
        )

    return retry(read, is_away, timeout, doubling_waits(longest=10.0), patience)


def describe_damage(path: Path, shard: Shard, problem: str) -> str:
    """Returns the text of an error: the file, the checksum it should have and has, and what to do."""
    expected, actual = shard.sha256, _actual_sha256(path)
    compared = f"sha256 {actual or 'of no file'}, {Manifest.FILE} says {expected or 'none'}"
    if expected and expected == actual:
        compared = f"sha256 {actual}, as {Manifest.FILE} says: ingest wrote it so"
    return (
        f"{path} cannot be read ({' '.join(problem.split())}; {compared}): restore it from a copy or ingest "
        "it again; with data.corrupt skip a run goes on without what is damaged"
    )


def is_damaged(path: Path, shard: Shard) -> bool:
    """Returns whether the file's checksum is known and another one than it has."""
    return bool(shard.sha256) and shard.sha256 != _actual_sha256(path)


def _actual_sha256(path: Path) -> str:
    return checksum_of(path) if path.is_file() else ""


def names_of(shards: Path, keys: Collection[int]) -> dict[int, str]:
    """Returns identifiers of training samples by their keys, as far as the shards can be read.

    Only the column of identifiers is read.

    Args:
        shards: folder of shards.
        keys: by `key_of`.
    """
    manifest, keys = Manifest.read(shards), set(keys)
    column = f"{manifest.kind}_id"
    names: dict[int, str] = {}
    for shard in manifest.of_split("train"):
        if len(names) == len(keys):
            break
        try:
            table = pq.read_table(shards / shard.file, columns=[column])
        except (OSError, pa.ArrowException):  # damaged: its samples keep their keys
            continue
        for name in table[column].to_pylist():
            if (key := key_of(name)) in keys:
                names[key] = name
    return names
