"""A table that lists volumes: CSV or Parquet, one row per file."""

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader
from ray_mae.data.archives.folders import NumberLabels
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.tables import (
    DamagedRow,
    cell,
    given_splits,
    need_columns,
    read_table,
)
from ray_mae.data.archives.volumes.contrasts import contrast_of
from ray_mae.data.quarantine import QuarantineError


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the volumes of the table. ValueError or FileNotFoundError if it is not such a table."""
    path, columns = config.source, config.volumes.columns
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is no file (source): the `volume-table` archive is a CSV or Parquet table, for "
            "a folder use `nifti`, `bids`, `brats` or `dicom-series`"
        )
    damaged: list[DamagedRow] = []
    rows = read_table(path, damaged.append, config.table_encoding)
    needed = ("path", "patient", *config.attributes)
    need_columns(path, rows, columns, needed, "volumes.columns")
    splits = given_splits(path, rows, columns.split, "volumes.columns")
    labels = NumberLabels.of(path, rows[0], config.volumes)
    attributes = AttributeReader(config.attributes)

    records = []
    for row, split in zip(rows, splits, strict=True):
        file = row[columns.path].strip()
        records.append(
            VolumeRecord(
                paths=(file,),
                volume=cell(row, columns.volume) or file or row.place,
                patient=row[columns.patient].strip(),
                session=cell(row, columns.session),
                modality=contrast_of(cell(row, columns.modality) or ""),
                site=cell(row, columns.site),
                split=split,
                valid=cell(row, columns.valid),
                anonymised=cell(row, columns.anonymised),
                anatomy=cell(row, columns.anatomy),
                segmentation=cell(row, columns.segmentation),
                attributes=attributes.of_row(row, vars(columns)),
                labels=labels.read(row),
                problem=None if file else QuarantineError("missing", row.without("file")),
            )
        )
    for damage in damaged:
        problem = QuarantineError("damaged-row", str(damage))
        records.append(
            VolumeRecord(
                (path.name,), f"{path.name}, {damage.place}", "", "unknown", problem=problem
            )
        )
    progress(len(records), len(records))
    return Archive(path.parent, records, {**labels.notes(), **attributes.notes()})
