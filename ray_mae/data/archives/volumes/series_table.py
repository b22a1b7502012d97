"""The table beside a folder of DICOM series: what their headers do not say.

A row belongs to the series whose SeriesInstanceUID is its volume, else to the one that lies alone in
the folder of its path. A row that belongs to none, and is its patient's only one, says labels, split
and site of what is left of the patient's series: modality and session may differ among them.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader
from ray_mae.data.archives.folders import NumberLabels
from ray_mae.data.archives.records import VolumeRecord
from ray_mae.data.archives.tables import TableRow, cell, given_splits, need_columns, read_table
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_of


def describe(
    series: Sequence[VolumeRecord], root: Path, config: IngestConfig, attributes: AttributeReader
) -> tuple[list[VolumeRecord], dict[str, Any]]:
    """The series with what volumes.table says of them, and counts for the summary.

    attributes: reads the cells of those that are asked for; what the table leaves open the headers say.

    FileNotFoundError or ValueError if it is no such table. Without one everything stays as it is.
    """
    if config.volumes.table is None:
        return list(series), {}
    table = _Table.read(config.volumes.table, root, config, attributes)
    alone = Counter(folder for folder, _ in {(_folder(s), _series(s)) for s in series})
    rows = [table.row_of(s, _folder(s) if alone[_folder(s)] == 1 else None) for s in series]
    renamed = table.names_of_patients(series, rows)

    unmatched = 0
    described, of_series, of_patients = [], {number for number in rows if number is not None}, set()
    for record, number in zip(series, rows, strict=True):
        person = table.only_row_of(record.patient)
        renaming: dict[str, Any] = {"patient": renamed.get(record.patient, record.patient)}
        if number is not None:
            changes = renaming | table.of_series(number)
        elif person is not None and person not in of_series:
            changes = renaming | table.of_patient(person)
            of_patients.add(person)
        else:
            changes = renaming
            unmatched += 1
        if known := changes.pop("attributes", None):
            changes["attributes"] = (record.attributes or {}) | known
        described.append(replace(record, **changes))
    notes = {
        "table_rows_without_series": len(table.rows) - len(of_series | of_patients),
        "series_without_table_row": unmatched,
        **table.labels.notes(),
    }
    return described, notes


def _series(record: VolumeRecord) -> str:
    """The SeriesInstanceUID: of a series with several volumes each has it, and more."""
    return record.volume.partition("/")[0]


def _folder(record: VolumeRecord) -> str:
    """The folder of a series' files, below the source."""
    return os.path.normpath(os.path.commonpath([os.path.dirname(path) for path in record.paths]))


@dataclass(frozen=True)
class _Table:
    """The rows, and where to find those of a series or a patient, by number."""

    config: IngestConfig
    attributes: AttributeReader
    rows: Sequence[TableRow]
    splits: list[str | None]
    labels: NumberLabels
    by_volume: dict[str, int]
    by_path: dict[str, int]
    by_patient: dict[str, list[int]]

    @classmethod
    def read(
        cls, path: Path, root: Path, config: IngestConfig, attributes: AttributeReader
    ) -> "_Table":
        columns = config.volumes.columns
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist (volumes.table): a CSV or Parquet table, one row per series"
            )
        rows = read_table(path, encoding=config.table_encoding)
        need_columns(path, rows, columns, (), "volumes.columns")
        if not {columns.volume, columns.path, columns.patient} & rows[0].keys():
            raise ValueError(
                f"{path} (volumes.table) has none of the columns {columns.volume!r} "
                f"(SeriesInstanceUID), {columns.path!r} (folder of the series) and "
                f"{columns.patient!r}: name one with volumes.columns"
            )
        by_volume: dict[str, int] = {}
        by_path: dict[str, int] = {}
        by_patient: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(rows):
            if volume := cell(row, columns.volume):
                by_volume.setdefault(volume, number)
            if folder := cell(row, columns.path):
                by_path.setdefault(os.path.relpath(root / folder, root), number)
            if patient := cell(row, columns.patient):
                by_patient[patient].append(number)
        return cls(
            config,
            attributes,
            rows,
            given_splits(path, rows, columns.split, "volumes.columns"),
            NumberLabels.of(path, rows[0], config.volumes),
            by_volume,
            by_path,
            by_patient,
        )

    def row_of(self, series: VolumeRecord, folder: str | None) -> int | None:
        """The row of this very series. folder: None where it is not alone in it."""
        number = self.by_volume.get(series.volume, self.by_volume.get(_series(series)))
        return number if number is not None or folder is None else self.by_path.get(folder)

    def only_row_of(self, patient: str) -> int | None:
        """The row of a patient who has one."""
        numbers = self.by_patient.get(patient, [])
        return numbers[0] if len(numbers) == 1 else None

    def names_of_patients(
        self, series: Sequence[VolumeRecord], rows: Sequence[int | None]
    ) -> dict[str, str]:
        """What the table calls a patient of the headers, where it has one name for all their series.

        Series that the table leaves out follow: otherwise one person would be two patients.
        """
        names: dict[str, set[str]] = defaultdict(set)
        for record, number in zip(series, rows, strict=True):
            if record.patient and number is not None and (name := self._cell(number, "patient")):
                names[record.patient].add(name)
        return {patient: next(iter(new)) for patient, new in names.items() if len(new) == 1}

    def of_series(self, number: int) -> dict[str, Any]:
        """What a row says of its series; what it leaves open stays as the headers say."""
        modality = contrast_of(self._cell(number, "modality") or "")
        values = {
            "patient": self._cell(number, "patient"),
            "session": self._cell(number, "session"),
            "modality": None if modality == UNKNOWN else modality,
        }
        return self.of_patient(number) | {k: v for k, v in values.items() if v is not None}

    def of_patient(self, number: int) -> dict[str, Any]:
        """What a row says of its patient."""
        return {
            "site": self._cell(number, "site"),
            "split": self.splits[number],
            "labels": self.labels.read(self.rows[number]),
            "attributes": self.attributes.of_row(
                self.rows[number], vars(self.config.volumes.columns)
            ),
        }

    def _cell(self, number: int, name: str) -> str | None:
        return cell(self.rows[number], getattr(self.config.volumes.columns, name))
