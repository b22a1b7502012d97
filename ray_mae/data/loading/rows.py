"""Rows of shards: what passes is waited for, what is damaged is named.

Keys of samples are traced back to their identifiers here, too.
"""

import errno
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.data.loading.arrow_rows import rows_of
from ray_mae.data.loading.integrity import DamagedShard, check_content, checksum_of
from ray_mae.data.loading.order import key_of
from ray_mae.data.parquet import GroupSource, fetch_group, map_files, open_parquet
from ray_mae.data.paths import is_remote, is_transient, resolve_path, resolve_url, sha256_of
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
    source: GroupSource | None = None,
) -> list[Row]:
    """Reads the rows of one row group, and waits for storage that is away.

    Checksums of pages are compared, where the shard has them. On disk that of the whole file is compared
    with the manifest's, too: see `check_content`. Of a file in a store that would fetch all of it: size,
    row groups and the checksum of its footer are compared, see `read_footer`.

    Args:
        path: of the shard.
        shard: its entry in the manifest.
        group: index of the row group.
        columns: to read.
        patience: seconds that the shard may be away.
        wait: for the checksum of a file on disk, before its rows are used.
        source: how a row group in a store is fetched; by default `fetch_group`.

    Raises:
        DamagedShard: the file is damaged or another one, or not there although its folder is.
        OSError: storage was away for longer.
    """

    path = resolve_url(path)

    def read() -> list[Row]:
        if is_remote(path):
            opened = (source or fetch_group)(path, shard, group, columns).open(path)
        else:
            check_content(path, shard, wait)
            opened = pq.ParquetFile(path, page_checksum_verification=True)
        with opened as file:
            return rows_of(file.read_row_group(group, columns=list(columns)))

    try:
        return _retry_away(read, path, patience)
    except (OSError, pa.ArrowException) as error:
        raise damage_by(error, path, shard, f"row group {group}") from error


def _retry_away(read: Callable[[], T], path: Path, patience: float) -> T:
    """What is read, tried again while storage is away: then the manifest is, too."""

    def is_away(error: Exception) -> bool:
        if not isinstance(error, OSError):
            return False
        return is_transient(error, remote=False) or not (path.parent / Manifest.FILE).is_file()

    def timeout(error: Exception, seconds: float) -> TimeoutError:
        return TimeoutError(
            errno.ETIMEDOUT, f"{path} could not be read for {seconds:.0f} s ({error})"
        )

    return retry(read, is_away, timeout, doubling_waits(longest=10.0), patience)


def damage_by(error: Exception, path: Path, shard: Shard, part: str) -> DamagedShard:
    """Returns an error of reading a part of a shard as one of the shard.

    Raises the error itself where it is of the system, and says nothing of the file.
    """
    if isinstance(error, DamagedShard):
        return error
    of_system = isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
    if of_system or isinstance(error, PermissionError):  # which stores raise without a number
        raise error
    return DamagedShard(describe_damage(path, shard, f"{part}: {error}"))


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
    if not path.is_file():
        return ""
    return sha256_of(path) if is_remote(path) else checksum_of(path)


def names_of(shards: Path, keys: Collection[int]) -> dict[int, str]:
    """Returns identifiers of training samples by their keys, as far as the shards can be read.

    Only the column of identifiers is read.

    Args:
        shards: folder of shards.
        keys: by `key_of`.
    """
    shards = resolve_path(shards)
    manifest, keys = Manifest.read(shards), set(keys)
    column = f"{manifest.kind}_id"
    names: dict[int, str] = {}

    def read(path: Path, shard: Shard) -> list[str]:
        # of what is damaged the samples keep their keys
        with suppress(OSError, pa.ArrowException), open_parquet(path, shard) as file:
            return cast(list[str], file.read(columns=[column])[column].to_pylist())
        return []

    files = [(shards / shard.file, shard) for shard in manifest.of_split("train")]
    for of_file in map_files(read, files):
        names |= {key: name for name in of_file if (key := key_of(name)) in keys}
        if len(names) == len(keys):
            break
    return names
