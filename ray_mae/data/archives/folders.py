"""Volume files in folders, and labels that are numbers."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ray_mae.config import IngestConfig, VolumeSettings
from ray_mae.data.file_types import VOLUME_SUFFIXES, file_kind
from ray_mae.data.paths import walk


def stem_of(path: str) -> str:
    """The name of a volume file without folder and suffix."""
    name = Path(path).name
    suffix = next((s for s in VOLUME_SUFFIXES if name.lower().endswith(s)), "")
    return name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name


def volume_files(config: IngestConfig) -> tuple[Path, list[str], dict[str, int]]:
    """The source, its volume files as paths below it, sorted, and what else there is, by kind.

    Raises FileNotFoundError where there are none.
    """
    root = config.source
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder (source): the `{config.archive}` archive is a folder of NIfTI "
            "files, for a table that lists them use the archive `volume-table`"
        )
    files, passed_over = [], Counter[str]()
    for folder, names in walk(root, config.output):
        for name in names:
            if name.lower().endswith(VOLUME_SUFFIXES) and not name.startswith("."):
                files.append(os.path.join(folder, name))
            else:
                passed_over[file_kind(name)] += 1
    if not files:
        raise FileNotFoundError(f"{root} holds no {', '.join(VOLUME_SUFFIXES)} files (source)")
    return root, sorted(files), dict(sorted(passed_over.items()))


def read_numbers(
    cells: Mapping[str, object], names: Iterable[str], not_numbers: Counter[str]
) -> dict[str, float]:
    """The cells of these names that are finite numbers; the others that hold something are counted."""
    labels = {}
    for name in names:
        content = cells.get(name)
        text = "" if content is None else str(content).strip()
        try:
            value = float(text)
        except ValueError:
            not_numbers[name] += text.lower() not in ("", "n/a", "na", "none", "null")
            continue
        if math.isfinite(value):
            labels[name] = value
    return labels


@dataclass(frozen=True)
class NumberLabels:
    """Labels of a table's rows: columns that volumes.labels names or that have volumes.label_prefix."""

    columns: Mapping[str, str]
    """The label's name by column."""
    not_numbers: Counter[str]

    @classmethod
    def of(cls, path: Path, header: Iterable[str], settings: VolumeSettings) -> "NumberLabels":
        """Of a table with these columns. ValueError if one that was asked for is not there."""
        names, prefix = list(header), settings.label_prefix
        for name in settings.labels:
            if name not in names:
                raise ValueError(f"{path} has no column {name!r} (volumes.labels)")
        prefixed = {n: n.removeprefix(prefix) for n in names if prefix and n.startswith(prefix)}
        return cls({name: name for name in settings.labels} | prefixed, Counter())

    def read(self, row: Mapping[str, object]) -> dict[str, float]:
        """The labels of a row."""
        values = read_numbers(row, self.columns, self.not_numbers)
        return {self.columns[name]: value for name, value in values.items()}

    def notes(self) -> dict[str, dict[str, int]]:
        """Cells that hold something else than a number, for the summary."""
        return {"labels_not_numbers": counts_above_zero(self.not_numbers)}


def number_columns(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Names of the columns that hold numbers and nothing else: those that may be labels."""
    names, not_numbers = set[str](), Counter[str]()
    for row in rows:
        names |= read_numbers(row, row, not_numbers).keys()
    return sorted(name for name in names if not not_numbers[name])


def counts_above_zero(not_numbers: Counter[str]) -> dict[str, int]:
    """The counts of `not_numbers` without the names that had none, the most frequent first."""
    return {name: count for name, count in not_numbers.most_common() if count}
