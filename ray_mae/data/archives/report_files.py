"""Reports that are files of their own, in folders, zip or tar files, read in the driver.

A report has some kilobytes. What lies under its name may be a pipe, or gigabytes that take no room on the
disk: a sparse file, a sparse member of a tar, a well compressed one of a zip.
"""

import stat
from pathlib import Path
from typing import IO

from ray_mae.data.paths import is_remote

MOST_BYTES = 1 << 20


def read_report(path: Path) -> bytes | None:
    """The content of a report's file; None where it is not there, no regular file, or too large."""
    try:
        if not is_remote(path) and not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            return read_member(file)
    except FileNotFoundError:
        return None


def read_member(file: IO[bytes]) -> bytes | None:
    """The content of an open file or member; None where that is too large."""
    content = file.read(MOST_BYTES + 1)
    return content if len(content) <= MOST_BYTES else None
