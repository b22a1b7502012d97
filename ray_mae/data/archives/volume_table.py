"""A table that lists volumes: CSV or Parquet, one row per file."""

from collections import Counter

from ray_mae.config import IngestConfig
from ray_mae.data.archives.folders import noted, numbers
from ray_mae.data.archives.record import Archive, Progress, VolumeRecord
from ray_mae.data.archives.tables import Row, given_splits, need_columns, read_table
from ray_mae.data.contrasts import contrast_of
from ray_mae.data.quarantine import Unusable


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the volumes of the table. ValueError or FileNotFoundError if it is not such a table."""
    path, columns = config.source, config.volumes.columns
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is no file (source): the `volume-table` archive is a CSV or Parquet table, for "
            "a folder use `nifti`, `bids`, `brats` or `dicom-series`"
        )
    rows = read_table(path)
    need_columns(path, rows, columns, ("path", "patient"), "volumes.columns")
    missing = [name for name in config.volumes.labels if name not in rows[0]]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r} (volumes.labels)")
    splits = given_splits(path, rows, columns.split, "volumes.columns")
    prefix = config.volumes.label_prefix
    prefixed = {n: n.removeprefix(prefix) for n in rows[0] if prefix and n.startswith(prefix)}
    not_numbers: Counter[str] = Counter()

    records = []
    for number, (row, split) in enumerate(zip(rows, splits, strict=True), start=2):
        file = row[columns.path].strip()
        found = numbers(row, [*config.volumes.labels, *prefixed], not_numbers)
        records.append(
            VolumeRecord(
                paths=(file,),
                volume=_cell(row, columns.volume) or file or f"row {number}",
                patient=row[columns.patient].strip(),
                session=_cell(row, columns.session),
                modality=contrast_of(_cell(row, columns.modality) or ""),
                site=_cell(row, columns.site),
                split=split,
                valid=_cell(row, columns.valid),
                anonymised=_cell(row, columns.anonymised),
                anatomy=_cell(row, columns.anatomy),
                segmentation=_cell(row, columns.segmentation),
                labels={prefixed.get(name, name): value for name, value in found.items()},
                problem=None if file else Unusable("missing", f"row {number} names no file"),
            )
        )
    progress(len(records), len(records))
    return Archive(path.absolute().parent, records, {"labels_not_numbers": noted(not_numbers)})


def _cell(row: Row, column: str | None) -> str | None:
    """A row's cell, None where it is empty or there is no such column."""
    return (row.get(column, "").strip() or None) if column else None
