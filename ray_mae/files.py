"""Files that appear as a whole or not at all: what a full disk or a kill interrupts leaves the old one."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path, beside: Path | None = None) -> Iterator[Path]:
    """Gives a path to write to, which takes the target's place when the block ends without an error.

    Args:
        target: a path, also one over fsspec: a store shows an object when it has all of it.
        beside: folder on the target's disk for what is not finished; None: that of the target.
    """
    if not isinstance(target, Path):
        with tempfile.TemporaryDirectory(prefix="ray_mae-") as place:
            unfinished = Path(place, target.name)
            yield unfinished
            target.fs.put_file(str(unfinished), target.path)
        return
    folder = beside or target.parent
    temporary = folder / f".{target.name}.{uuid.uuid4().hex[:8]}.unfinished"
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # on a network file system a full disk may show no sooner
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(target: Path, content: str | bytes) -> None:
    """Writes a file in one step; text as UTF-8, as it is. A store shows an object whole by itself.

    Args:
        target: a path, also one over fsspec.
        content: of the file.
    """
    data = content.encode() if isinstance(content, str) else content
    if not isinstance(target, Path):
        target.write_bytes(data)
        return
    with replacing(target) as temporary:
        temporary.write_bytes(data)
