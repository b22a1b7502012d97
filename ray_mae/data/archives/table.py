"""A table that lists images: CSV or Parquet, one row per PNG, JPEG or DICOM file."""

from ray_mae.config import IngestConfig
from ray_mae.data.archives.record import Archive, ImageRecord, Progress
from ray_mae.data.archives.tables import LabelReader, given_splits, need_columns, read_table
from ray_mae.data.quarantine import Unusable
from ray_mae.data.views import position_of, view_of
from ray_mae.data.years import year_of


def read(config: IngestConfig, progress: Progress) -> Archive:
    """List the images of the table. ValueError or FileNotFoundError if it is not such a table."""
    path, columns = config.source, config.columns
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is no file (source): the `table` archive is a CSV or Parquet table, for a "
            "folder of DICOM files use the archive `dicom`"
        )
    rows = read_table(path)
    need_columns(path, rows, columns, required=("study", "patient", "path"))
    labels = LabelReader.of(columns.labels, rows[0])
    splits = given_splits(path, rows, columns.split)

    seen: set[str] = set()
    records = []
    for row, split in zip(rows, splits, strict=True):
        image, view = row[columns.path].strip(), row.get(columns.view, "")
        problem = None
        if not image:
            problem = Unusable("missing", "the row names no file")
        elif image in seen:
            problem = Unusable("duplicate", "the table lists this path before")
        seen.add(image)
        records.append(
            ImageRecord(
                path=image,
                study=row[columns.study].strip(),
                patient=row[columns.patient].strip(),
                view=view_of(view) or "unknown",
                position=position_of(view),
                text=row.get(columns.text),
                labels=labels.read(row),
                other_labels=labels.others(row),
                split=split,
                year=year_of(row.get(columns.date)) if config.year_bucket else None,
                problem=problem,
            )
        )
    progress(len(records), len(records))
    return Archive(path.parent, records, labels.notes())
