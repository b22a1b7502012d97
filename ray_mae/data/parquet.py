"""Parquet files on disk or in an object store: of one in a store only the ranges that are wanted.

The footer of a file says where each column of each row group lies. What is wanted of a row group is therefore
one request, as a rule, and several row groups are fetched at a time.
"""

import hashlib
import io
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from ray_mae.data.loading.integrity import DamagedShard, describe_exchange, describe_size
from ray_mae.data.paths import is_remote, resolve_path, resolve_url, retry_transient, with_os_errors
from ray_mae.data.schema import Manifest, Shard

T = TypeVar("T")
AT_A_TIME = 8
"""Requests at the same time: enough to hide a store's delay behind its speed."""
TAIL = 1 << 16
"""Bytes of the end of a file that are fetched first: most footers."""
GAP = 1 << 17
"""Bytes between two wanted ranges that are fetched along: less work than another request."""
PART = 8 << 20
"""Bytes of one request: longer ranges are several at a time."""
_FOOTERS_HELD = 64 << 20  # bytes, packed: of some 8 million studies
_MAGIC, _END = b"PAR1", 8

Range = tuple[int, int]
"""First byte in a file, and the one after the last."""
Piece = tuple[int, bytes]
"""First byte in a file, and the bytes from there on."""
Fetch = Callable[[Path, Shard | None, Sequence[Range]], list[Piece]]
"""How ranges of a file in a store are had."""


class Footer(NamedTuple):
    """What the end of a Parquet file tells."""

    metadata: pq.FileMetaData
    size: int
    """Bytes of the file."""
    length: int
    """Bytes of the footer, with its own length and the magic number."""
    sha256: str
    """Of these bytes. They name place and size of every column of every row group."""


def footer_sha256(file: Path) -> str:
    """Returns the SHA-256 of the footer of a Parquet file on disk, in hexadecimal."""
    with file.open("rb") as opened:
        opened.seek(-_END, os.SEEK_END)
        length = _footer_length(opened.read(_END))
        assert length is not None, f"{file} is no Parquet file"
        opened.seek(-length, os.SEEK_END)
        return hashlib.sha256(opened.read(length)).hexdigest()


def open_parquet(path: Path, shard: Shard | None = None) -> pq.ParquetFile:
    """Opens a Parquet file to read columns; what is in a store is fetched by ranges.

    Args:
        path: of the file.
        shard: its entry in the manifest: a file of a store that is another one is refused.

    Raises:
        DamagedShard: what lies in the store is not the shard.
        OSError: it cannot be read, of a store after several attempts.
    """
    path = resolve_path(path)
    if not is_remote(path):
        return pq.ParquetFile(path)
    return _RemoteParquet(path, retry_transient(lambda: read_footer(path, shard), remote=False))


def map_files(work: Callable[[Path, Shard], T], files: Sequence[tuple[Path, Shard]]) -> Iterator[T]:
    """Yields what is made of each file in order; several in a store are read at a time.

    Args:
        work: of a file's path and its entry in the manifest.
        files: to read.
    """
    if not any(is_remote(resolve_url(path)) for path, _ in files):
        yield from (work(*file) for file in files)
        return
    threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="fetch")
    ahead: deque[Future[T]] = deque()
    try:
        for file in files:
            ahead.append(threads.submit(work, *file))
            if len(ahead) > 2 * AT_A_TIME:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def read_columns(files: Sequence[tuple[Path, Shard]], columns: list[str]) -> Iterator[pa.Table]:
    """Yields some columns of each file, in order.

    Args:
        files: paths and entries in the manifest.
        columns: names, of parts of a column with dots.

    Raises:
        DamagedShard: a file in a store is not the shard.
        OSError: a file cannot be read.
    """

    def read(path: Path, shard: Shard) -> pa.Table:
        with open_parquet(path, shard) as file:
            return file.read(columns=columns)

    return map_files(read, files)


class _RemoteParquet(pq.ParquetFile):
    """A Parquet file in a store. Each reading fetches all its ranges at once."""

    def __init__(self, path: Path, footer: Footer) -> None:
        self._path, self._footer = path, footer
        self._pieces = _Pieces(path, footer.size)
        super().__init__(self._pieces, metadata=footer.metadata, page_checksum_verification=True)

    def read(self, columns: list[str] | None = None, **options: Any) -> pa.Table:
        """As of a file on disk."""
        return self.read_row_groups(range(self.num_row_groups), columns, **options)

    def read_row_group(self, i: int, columns: list[str] | None = None, **options: Any) -> pa.Table:
        """As of a file on disk."""
        return self.read_row_groups([i], columns, **options)

    def read_row_groups(
        self, row_groups: Sequence[int], columns: list[str] | None = None, **options: Any
    ) -> pa.Table:
        """As of a file on disk."""
        wanted = ranges_of(self._footer.metadata, row_groups, columns)
        self._pieces.held = retry_transient(lambda: fetch(self._path, None, wanted), remote=False)
        try:
            return super().read_row_groups(row_groups, columns, **options)
        finally:
            self._pieces.held = []


class GroupPieces(NamedTuple):
    """What was fetched of a file in a store to read a row group."""

    footer: Footer
    pieces: list[Piece]

    def open(self, path: Path) -> pq.ParquetFile:
        """Opens the file at a path, to read what was fetched."""
        file = _Pieces(path, self.footer.size, self.pieces)
        return pq.ParquetFile(file, metadata=self.footer.metadata, page_checksum_verification=True)


GroupSource = Callable[[Path, Shard, int, Sequence[str]], GroupPieces]
"""How a row group of a shard in a store is fetched."""


def fetch_group(
    path: Path, shard: Shard, group: int, columns: Sequence[str], how: Fetch | None = None
) -> GroupPieces:
    """Fetches the columns of a row group of a shard in a store, and the footer where it is not known.

    Args:
        path: over fsspec.
        shard: its entry in the manifest.
        group: index of the row group.
        columns: names of top-level columns.
        how: ranges are fetched; by default from the store.

    Raises:
        DamagedShard: what lies in the store is not the shard.
        OSError: of the store.
    """
    how = how or fetch
    footer = read_footer(path, shard, how)
    return GroupPieces(footer, how(path, shard, ranges_of(footer.metadata, [group], columns)))


def read_footer(path: Path, shard: Shard | None = None, how: Fetch | None = None) -> Footer:
    """Reads the footer of a Parquet file in a store, and compares it with the manifest.

    That of a shard is kept, so that this process asks the store for rows alone from then on.

    Args:
        path: over fsspec.
        shard: its entry in the manifest.
        how: ranges are fetched; by default from the store.

    Raises:
        DamagedShard: it is another file than the manifest says, or none of Parquet.
        OSError: of the store.
    """
    if shard is None:
        return _read_footer(path, None, how or fetch)[1]
    key = (str(path), shard.bytes, shard.sha256)
    with _FOOTERS.reading(key):  # readers of several row groups ask for it at the same time
        if (footer := _FOOTERS.get(key)) is None:
            content, footer = _read_footer(path, shard, how or fetch)
            _compare(path, footer, shard)
            _FOOTERS.add(key, content, footer)
    return footer


def _read_footer(path: Path, shard: Shard | None, how: Fetch) -> tuple[bytes, Footer]:
    store: Any = path
    size = shard.bytes if shard else with_os_errors(lambda: store.fs.info(store.path)["size"])
    start = max(size - TAIL, 0)
    ((_, tail),) = how(path, shard, [(start, size)])
    length = _footer_length(tail[-_END:])
    if length is not None and len(tail) < length <= size:
        ((_, front),) = how(path, shard, [(size - length, start)])
        tail = front + tail
    try:
        if length is None or length > size:
            raise pa.ArrowInvalid("it does not end as a Parquet file does")
        content = tail[-length:]
        metadata = _metadata(content)
    except pa.ArrowException as error:
        raise DamagedShard(describe_exchange(path, f"{error}")) from error
    return content, Footer(metadata, size, length, hashlib.sha256(content).hexdigest())


def ranges_of(
    metadata: pq.FileMetaData, groups: Iterable[int], columns: Sequence[str] | None
) -> list[tuple[int, int]]:
    """Returns where columns of row groups lie: rising ranges, those near each other as one, of PART at most.

    Args:
        metadata: of the file.
        groups: indices of the row groups.
        columns: names, of parts of a column with dots; None: all.
    """
    wanted = None if columns is None else tuple(f"{name}." for name in columns)
    chunks = []
    for index in groups:
        group = metadata.row_group(index)
        for i in range(group.num_columns):
            column = group.column(i)
            if wanted is None or f"{column.path_in_schema}.".startswith(wanted):
                begins = [column.data_page_offset]
                if column.has_dictionary_page and column.dictionary_page_offset:
                    begins.append(column.dictionary_page_offset)
                chunks.append((min(begins), min(begins) + column.total_compressed_size))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(chunks):
        if merged and start - merged[-1][1] <= GAP:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [
        (first, min(first + PART, end))
        for start, end in merged
        for first in range(start, end, PART)
    ]


def fetch(path: Path, shard: Shard | None, ranges: Sequence[Range]) -> list[Piece]:
    """Fetches ranges of a file in a store, at the same time where the store's package can.

    Args:
        path: over fsspec.
        shard: its entry in the manifest, for the text of an error.
        ranges: of the file.

    Raises:
        DamagedShard: the file ends before them.
        OSError: of the store.
    """
    if not ranges:
        return []
    store: Any = path
    starts, ends = zip(*ranges, strict=True)
    try:
        contents = with_os_errors(
            lambda: store.fs.cat_ranges(
                [store.path] * len(ranges), list(starts), list(ends), on_error="raise"
            )
        )
    except FileNotFoundError:
        raise
    except OSError as error:  # a range behind the end of a file is an error as any other
        if shard and (size := _size_now(path)) not in (None, shard.bytes):
            raise DamagedShard(describe_exchange(path, describe_size(size, shard))) from error
        raise
    for start, end, content in zip(starts, ends, contents, strict=True):
        if len(content) != end - start:
            size = start + len(content)
            problem = describe_size(size, shard) if shard else f"{size:,} bytes"
            raise DamagedShard(describe_exchange(path, problem))
    return list(zip(starts, contents, strict=True))


def _size_now(path: Path) -> int | None:
    """Bytes of a file in a store; None where that cannot be told."""
    store: Any = path
    with suppress(Exception):
        store.fs.invalidate_cache(store.path)
        return int(store.fs.info(store.path)["size"])
    return None


class _Pieces(io.RawIOBase):
    """A file of which some pieces are in memory; what is not is fetched when it is read."""

    def __init__(self, path: Path, size: int, held: Sequence[Piece] = ()) -> None:
        self._path, self._size, self._at = path, size, 0
        self.held = list(held)
        """In the order of the file."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> Any:
        """Bytes, or a view of those that are held."""
        at = self._at
        self._at = end = self._size if size < 0 else min(at + size, self._size)
        parts = []
        for start, content in self.held:
            if start <= at < min(end, start + len(content)):
                parts.append(memoryview(content)[at - start : end - start])
                at += len(parts[-1])
        if at < end:
            missing = (at, end)
            ((_, content),) = retry_transient(
                lambda: fetch(self._path, None, [missing]), remote=False
            )
            parts.append(memoryview(content))
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Footers:
    """Footers of shards that this process has read, packed; the one not used for longest goes.

    One of 512 studies has 27 kB, packed 4 and parsed 215; it is parsed in 0.3 ms.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple, tuple[int, str, bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._reading = [threading.Lock() for _ in range(64)]

    def reading(self, key: tuple) -> threading.Lock:
        """What is held while the footer is fetched."""
        return self._reading[hash(key) % len(self._reading)]

    def get(self, key: tuple) -> Footer | None:
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            size, sha256, packed = self._held[key]
        content = zstandard.decompress(packed)
        return Footer(_metadata(content), size, len(content), sha256)

    def add(self, key: tuple, content: bytes, footer: Footer) -> None:
        packed = zstandard.compress(content, level=1)
        with self._lock:
            self._held[key] = footer.size, footer.sha256, packed
            self._bytes += len(packed)
            while self._bytes > _FOOTERS_HELD and len(self._held) > 1:
                self._bytes -= len(self._held.popitem(last=False)[1][2])


def _metadata(footer: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(_MAGIC + footer))


_FOOTERS = _Footers()


def _footer_length(end: bytes) -> int | None:
    """Bytes of the footer by the last ones of the file; None where it is none of Parquet."""
    return int.from_bytes(end[:4], "little") + _END if end[4:] == _MAGIC else None


def _compare(path: Path, footer: Footer, shard: Shard) -> None:
    groups = [footer.metadata.row_group(i).num_rows for i in range(footer.metadata.num_row_groups)]
    if groups != shard.row_groups:
        problem = f"row groups of {groups} rows, {Manifest.FILE} says {shard.row_groups}"
    elif shard.footer and shard.footer != footer.sha256:
        problem = f"sha256 {footer.sha256} of its footer, {Manifest.FILE} says {shard.footer}"
    else:
        return
    raise DamagedShard(describe_exchange(path, problem))
