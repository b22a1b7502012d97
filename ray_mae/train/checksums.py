"""Whether the files of a checkpoint are what was written."""

import hashlib
import json
from pathlib import Path

FOLDER = "checksums"
"""Of a checkpoint: one JSON file per worker, with the SHA-256 of each file that it wrote."""


def write_checksums(folder: Path, rank: int) -> None:
    """Of all files in `folder`, which hold this worker's part of a checkpoint."""
    found = {
        str(path.relative_to(folder)): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / FOLDER).mkdir()
    (folder / FOLDER / f"worker-{rank:04d}.json").write_text(json.dumps(found, indent=1) + "\n")


def damage(checkpoint: Path, workers: int) -> list[str]:
    """What is wrong with the files of a checkpoint that so many workers wrote, a line each; none if whole."""
    wrong = []
    for rank in range(workers):
        list_of_one = checkpoint / FOLDER / f"worker-{rank:04d}.json"
        if not list_of_one.is_file():
            wrong.append(f"{list_of_one.relative_to(checkpoint)} is missing")
            continue
        for name, told in json.loads(list_of_one.read_text()).items():
            path = checkpoint / name
            if not path.is_file():
                wrong.append(f"{name} is missing")
            elif _sha256(path) != told:
                wrong.append(f"{name} was changed or damaged")
    return wrong


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
