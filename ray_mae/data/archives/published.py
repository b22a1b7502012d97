"""Published archives: their tables and images in a folder, and cells of their tables."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ray_mae.config import IngestConfig
from ray_mae.data.archives.tables import TableRow, iter_table
from ray_mae.data.file_types import file_kind
from ray_mae.data.paths import list_folder, walk

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")


def word(row: TableRow, column: str) -> str:
    """A cell without white space around; "" also for what pandas and numpy write for nothing."""
    text = row.get(column, "").strip()
    return "" if text.lower() in ("nan", "none", "null") else text


def source_folder(config: IngestConfig, holds: str) -> Path:
    """The source. FileNotFoundError where it is no folder."""
    if not config.source.is_dir():
        raise FileNotFoundError(
            f"{config.source} is no folder (source): the `{config.archive}` archive is a folder with "
            f"{holds}"
        )
    return config.source


def find_published(config: IngestConfig, pattern: str) -> Path | None:
    """The published file whose name matches in full, in `tables` or the source or a folder in it.

    pattern: a regular expression, without the .gz that may follow. ValueError where two match.
    """
    folder = config.tables or config.source
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder (tables)")
    name_pattern = re.compile(rf"(?:{pattern})(?:\.gz)?", re.IGNORECASE)
    here = list_folder(folder)
    inner = [folder / name for name, is_folder in here if is_folder]
    for folders in [[folder], inner]:
        matches = {
            name.removesuffix(".gz"): inside / name
            for inside in folders
            for name, is_folder in reversed(here if inside is folder else list_folder(inside))
            if name_pattern.fullmatch(name) and not is_folder
        }  # of a file and its .gz the file stays, since its name comes last
        if len(matches) > 1:
            raise ValueError(
                f"{folder} holds {' and '.join(sorted(matches))}: leave one of them there, or name a "
                "folder with the tables of one release (tables)"
            )
        if matches:
            return next(iter(matches.values()))
    return None


def require_published(config: IngestConfig, pattern: str, name: str) -> Path:
    """The file of `find_published`. FileNotFoundError, with the name it is published under."""
    if path := find_published(config, pattern):
        return path
    raise FileNotFoundError(
        f"{config.tables or config.source} holds no {name}: the `{config.archive}` archive needs it; "
        "put it there, or name the folder it is in (tables)"
    )


def official_split_file(config: IngestConfig, pattern: str, name: str) -> Path | None:
    """A file of the official split, None where it is not wanted. FileNotFoundError if it is missing."""
    if not config.official_split:
        return None
    if path := find_published(config, pattern):
        return path
    raise FileNotFoundError(
        f"{config.tables or config.source} holds no {name}, which says the official split: put it "
        "there, name the folder it is in (tables), or set official_split to false to split the "
        "patients by hash"
    )


def rows_with(path: Path, *columns: str) -> Iterator[TableRow]:
    """The rows of a table, one by one. ValueError where a column is missing, or there is no row."""
    rows = iter_table(path)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path} has no rows")
    if missing := [column for column in columns if column not in first]:
        raise ValueError(
            f"{path} has no column {missing[0]!r}, it has {', '.join(map(repr, first))}: is it the "
            "published table, unchanged?"
        )
    return chain([first], rows)


@dataclass(frozen=True)
class Images:
    """The images below a folder, by what the archive's tables call them."""

    paths: dict[str, str]
    """Path below the folder, by name."""
    repeated: int
    """Images that are not among them, since an earlier one has the same name."""
    passed_over: dict[str, int]
    """Other files, by kind."""

    @classmethod
    def below(
        cls, root: Path, config: IngestConfig, name_of: Callable[[str], str] = str
    ) -> "Images":
        """All images below root. name_of: makes a file's name what the tables call it."""
        paths: dict[str, str] = {}
        repeated, passed_over = 0, Counter[str]()
        for folder, names in walk(root, config.output):
            for name in names:
                if not name.lower().endswith(IMAGE_SUFFIXES) or name.startswith("."):
                    passed_over[file_kind(name)] += 1
                    continue
                path = os.path.join(folder, name)
                repeated += paths.setdefault(name_of(name), path) != path
        if not paths:
            raise FileNotFoundError(f"{root} holds no {', '.join(IMAGE_SUFFIXES)} files (source)")
        return cls(paths, repeated, dict(sorted(passed_over.items())))

    def notes(self, used: int) -> dict[str, object]:
        """For the summary. used: how many of them the tables list."""
        return {
            "images_without_row": len(self.paths) - used,
            "images_of_a_repeated_name": self.repeated,
            "files_passed_over": self.passed_over,
        }
