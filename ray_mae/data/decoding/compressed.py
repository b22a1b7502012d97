"""Files that may be compressed: by their first bytes, whatever their suffix, and read to the end.

A gzip file ends in a checksum of its content. Who stops at the last byte needed never compares it, and
takes a damaged file for a whole one.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ray_mae.data.quarantine import QuarantineError

GZIP = b"\x1f\x8b"
MOST_LEVELS = 2
"""Times that a file may be compressed: some are twice, by a tool that did not look."""
CHUNK = 1 << 20
# First bytes of what lies under the name of a volume and is none, and what to do.
SIGNATURES = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "bzip2: decompress it with bunzip2",
    b"\xfd7zXZ": "xz: decompress it with unxz",
    b"\x28\xb5\x2f\xfd": "zstd: decompress it with unzstd",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"NRRD": "NRRD: convert it to NIfTI",
    b"ObjectType": "MetaImage: convert it to NIfTI",
    b"NDims": "MetaImage: convert it to NIfTI",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the content with `git lfs pull`",
    b"/annex/": "a pointer of git-annex: fetch the content with `git annex get`",
    b"../.git/annex": "a pointer of git-annex: fetch the content with `git annex get`",
    b"<": "HTML or XML, such as the page of a download that failed",
    b"{": "JSON",
}


@contextmanager
def open_by_content(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file, decompressed if it is gzip.

    Yields:
        The stream, and how many times it is compressed: 0, 1 or 2.
    """
    with path.open("rb") as file:
        stream: Any = file
        levels = 0
        while levels < MOST_LEVELS and stream.peek(len(GZIP))[: len(GZIP)] == GZIP:
            stream, levels = gzip.GzipFile(fileobj=stream, mode="rb"), levels + 1
        yield stream, levels


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """The next bytes. Raises QuarantineError where there are fewer."""
    data = stream.read(count)
    if len(data) < count:
        raise QuarantineError("undecodable", f"{count - len(data):,} bytes are missing at the end")
    return data


def read_to_end(stream: BinaryIO, most: int) -> int:
    """Read what is left, so that the checksum of a compressed file is compared; how many bytes it was.

    Raises QuarantineError where it is more than `most`, and what the stream raises where it is damaged.
    """
    count = 0
    while part := stream.read(CHUNK):
        count += len(part)
        if count > most:
            raise QuarantineError("undecodable", f"more than {most:,} bytes behind the last voxel")
    return count


def check_to_end(path: Path) -> None:
    """Read a file to its end, and so compare the checksum if it is compressed. Raises one of DAMAGE."""
    with open_by_content(path) as (stream, _):
        while stream.read(CHUNK):
            pass


DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
"""What a gzip stream raises where it is cut, changed, or does not agree with its checksum."""


def called(start: bytes) -> str:
    """What a file is by its first bytes, and what to do; "" where they say nothing."""
    start = start.lstrip(b"\xef\xbb\xbf \r\n\t")
    return next((text for sign, text in SIGNATURES.items() if start.startswith(sign)), "")
