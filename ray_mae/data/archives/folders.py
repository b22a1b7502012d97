"""Volume files in folders, and labels that are numbers."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ray_mae.config import IngestConfig, VolumeSettings
from ray_mae.data.archives.records import VolumeRecord
from ray_mae.data.file_types import VOLUME_SUFFIXES, file_kind
from ray_mae.data.paths import walk
from ray_mae.data.quarantine import QuarantineError


def stem_of(path: str) -> str:
    """The name of a volume file without folder and suffix."""
    name = Path(path).name
    suffix = next((s for s in VOLUME_SUFFIXES if name.lower().endswith(s)), "")
    return name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name


_BY_ITK = "convert it to NIfTI, as with SimpleITK.WriteImage(SimpleITK.ReadImage('x'), 'x.nii.gz')"
# Volumes that are not read: what they are called, and what to do.
OTHER_FORMATS = {
    ".nrrd": f"NRRD: {_BY_ITK}", ".nhdr": f"NRRD: {_BY_ITK}",
    ".mha": f"MetaImage: {_BY_ITK}", ".mhd": f"MetaImage: {_BY_ITK}",
    ".hdr": "a pair of NIfTI or Analyze: convert it, as with nibabel.save(nibabel.load('x.hdr'), "
    "'x.nii.gz'); Analyze says nothing of left and right, which --volumes.orientation then does",
    ".img": "an .img without its .hdr: bring the header, or rename it to .nii if the file is whole NIfTI",
}  # fmt: skip


def volume_files(
    config: IngestConfig,
) -> tuple[Path, list[str], dict[str, int], list[VolumeRecord]]:
    """The source, its volume files as paths below it, sorted, and what else there is, by kind.

    At last, as records for the quarantine, the volumes in formats that are not read.

    Raises FileNotFoundError where there are none.
    """
    root = config.source
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder (source): the `{config.archive}` archive is a folder of NIfTI "
            "files, for a table that lists them use the archive `volume-table`"
        )
    files, others, passed_over = [], [], Counter[str]()
    for folder, names in walk(root, config.output):
        headers = {_stem(name) for name in names if _suffix(name) == ".hdr"}
        for name in names:
            suffix = _suffix(name)
            if name.lower().endswith(VOLUME_SUFFIXES) and not name.startswith("."):
                files.append(os.path.join(folder, name))
            elif suffix in OTHER_FORMATS and not name.startswith("."):
                if suffix == ".img" and _stem(name) in headers:
                    passed_over[".img"] += 1  # its header stands for it
                else:
                    others.append(_in_another_format(os.path.join(folder, name), suffix))
            else:
                passed_over[file_kind(name)] += 1
    if not files:
        more = f"; {len(others):,} in other formats: {others[0].problem}" if others else ""
        raise FileNotFoundError(
            f"{root} holds no {', '.join(VOLUME_SUFFIXES)} files (source){more}"
        )
    return root, sorted(files), dict(sorted(passed_over.items())), others


def _suffix(name: str) -> str:
    """The last one, without that of gzip."""
    return Path(name.lower().removesuffix(".gz")).suffix


def _stem(name: str) -> str:
    return name[: name.lower().rindex(_suffix(name))]


def _in_another_format(path: str, suffix: str) -> VolumeRecord:
    problem = QuarantineError("other-format", OTHER_FORMATS[suffix])
    return VolumeRecord(paths=(path,), volume=path, patient="", modality="unknown", problem=problem)


_EMPTY = frozenset({"", "n/a", "na", "none", "null", "nan", "."})
_SEX = {"m": 1.0, "male": 1.0, "f": 0.0, "female": 0.0, "w": 0.0}
_WORDS = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "y": 1.0, "n": 0.0}


def number_of(name: str, text: str) -> float:
    """The number in a cell of a column: yes and true are 1, no and false 0; of the sex M is 1, F 0.

    Raises:
        ValueError: it is none of these.
    """
    words = _WORDS | _SEX if name.strip().lower() in ("sex", "gender") else _WORDS
    word = text.strip().lower()
    return words[word] if word in words else float(word)


def read_numbers(
    cells: Mapping[str, object], names: Iterable[str], not_numbers: Counter[str]
) -> dict[str, float]:
    """The cells of these names that `number_of` reads; the others that hold something are counted."""
    labels = {}
    for name in names:
        content = cells.get(name)
        text = "" if content is None else str(content).strip()
        try:
            value = number_of(name, text)
        except ValueError:
            not_numbers[name] += text.lower() not in _EMPTY
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
