"""Folders that appear as a whole: what is written lies beside its place until it is finished."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUMS = "SHA256SUMS"


@contextmanager
def into(output: Path, *, anew: bool = False) -> Iterator[Path]:
    """Gives an empty folder of the output's name, whose files take their places when the block ends well.

    Args:
        output: on this machine's file systems.
        anew: the folder takes the whole place; else its files join those that are there.
    """
    output = output.resolve()
    place = output.parent if anew else output  # files that join others need no room beside these
    beside = place / f".{output.name}.{uuid.uuid4().hex[:8]}.unfinished"
    folder = beside / output.name  # tools go by the folder's name
    folder.mkdir(parents=True)
    try:
        yield folder
        if anew and output.exists():
            output.rename(beside / "before")
        if anew:
            folder.rename(output)
        else:
            for name in listing(folder):
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder / name, output / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def listing(folder: Path) -> list[str]:
    """Returns the files of a folder and of those in it, by their paths below it."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def checksums(folder: Path) -> str:
    """Returns SHA256SUMS: of every file but itself, as `sha256sum --check` reads it."""
    lines = []
    for name in listing(folder):
        if name != SUMS:
            with (folder / name).open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)
