"""Small trees in the form of public archives for the tests, and where the real tables lie."""

import csv
import gzip
import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ray_mae.config import IngestConfig
from ray_mae.data.archives import READERS
from ray_mae.data.archives.records import Archive, ImageRecord
from ray_mae.data.labels import CHEXPERT_LABELS, NOT_MENTIONED


def _tables() -> Path | None:
    """The data folder of torchxrayvision: of TORCHXRAYVISION_DATA, or of the installed package.

    The package need not be imported, nor its dependencies installed: `uv pip download --no-deps
    torchxrayvision`, unzip it, and set TORCHXRAYVISION_DATA to its torchxrayvision/data.
    """
    if given := os.environ.get("TORCHXRAYVISION_DATA"):
        return Path(given)
    package = importlib.util.find_spec("torchxrayvision")
    return Path(package.origin).parent / "data" if package and package.origin else None


REAL_TABLES = _tables()
needs_real_tables = pytest.mark.skipif(
    REAL_TABLES is None or not REAL_TABLES.is_dir(),
    reason="the tables of torchxrayvision are not here (TORCHXRAYVISION_DATA)",
)


def touch(root: Path, *paths: str) -> None:
    """Empty files: a listing never opens an image."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A table as it is published, compressed if it is named so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def listed(name: str, source: Path, **settings: Any) -> Archive[ImageRecord]:
    """The archive as its reader lists it."""
    config = IngestConfig(archive=name, source=source, output=source / "out", **settings)
    return READERS[name](config, lambda done, of: None)


def states(labels: Iterable[int] | None) -> dict[str, int]:
    """The labels of a record that are mentioned."""
    assert labels is not None
    named = zip(CHEXPERT_LABELS, labels, strict=True)
    return {name: state for name, state in named if state != NOT_MENTIONED}


def problems(archive: Archive[ImageRecord]) -> dict[str, str]:
    """What is wrong with which image."""
    return {r.path: r.problem.reason for r in archive.records if r.problem}


def label_states(all_labels: Iterable[Sequence[int] | None]) -> dict[str, list[int]]:
    """How often each label is positive, negative, uncertain, not mentioned."""
    counts: dict[str, Counter[int]] = {name: Counter() for name in CHEXPERT_LABELS}
    for labels in all_labels:
        for name, state in zip(CHEXPERT_LABELS, labels or [NOT_MENTIONED] * 14, strict=True):
            counts[name][state] += 1
    return {name: [count[state] for state in (1, 0, -1, -2)] for name, count in counts.items()}
