"""A table that lists images: CSV or Parquet, one row per PNG, JPEG or DICOM file."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader
from ray_mae.data.archives.duplicates import mark_duplicates
from ray_mae.data.archives.label_reader import LabelReader, TableSurvey
from ray_mae.data.archives.records import Archive, ImageRecord, Progress
from ray_mae.data.archives.tables import (
    DamagedRow,
    PlacedRow,
    given_splits,
    iter_table,
    need_columns,
)
from ray_mae.data.decoding.views import NO_VIEW, position_of, view_of
from ray_mae.data.privacy.years import year_of
from ray_mae.data.quarantine import QuarantineError


def read(config: IngestConfig, progress: Progress) -> Archive:
    """List the images of the table. ValueError or FileNotFoundError if it is not such a table."""
    path, columns, encoding = config.source, config.columns, config.table_encoding
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is no file (source): the `table` archive is a CSV or Parquet table, for a "
            "folder of DICOM files use the archive `dicom`"
        )
    damaged: list[DamagedRow] = []
    first = list(islice(iter_table(path, damaged.append, encoding), 1))
    damaged.clear()  # they come again
    needed = ("study", "patient", "path", *config.attributes)
    need_columns(path, first, columns, required=needed)
    survey, attributes = TableSurvey(columns), AttributeReader(config.attributes)
    rows = survey.watch(iter_table(path, damaged.append, encoding))
    splits = given_splits(path, rows, columns.split)
    labels = LabelReader.of_table(path, first[0].header, columns, survey)

    views = Counter[str]()

    def record(row: PlacedRow, split: str | None) -> ImageRecord:
        image, view = row[columns.path].strip(), row.get(columns.view, "")
        not_understood = view_of(view) is None and view.strip().lower() not in NO_VIEW
        views["not understood"] += not_understood
        return ImageRecord(
            path=image,
            study=row[columns.study].strip(),
            patient=row[columns.patient].strip(),
            view=view_of(view) or "unknown",
            position=position_of(view),
            text=row.get(columns.text),
            labels=labels.read(row),
            other_labels=labels.others(row),
            attributes=attributes.of_row(row, vars(columns)),
            split=split,
            year=year_of(row.get(columns.date)) if config.year_bucket else None,
            problem=None if image else QuarantineError("missing", row.without("file")),
        )

    def records_of_rows() -> Iterator[ImageRecord]:
        for row, split in zip(iter_table(path, lambda row: None, encoding), splits, strict=True):
            yield record(row, split)
        for damage in damaged:
            problem = QuarantineError("damaged-row", str(damage))
            yield ImageRecord(path.name, study="", patient="", view="unknown", problem=problem)

    listed = (
        (f"{number:012d}", image.path, image) for number, image in enumerate(records_of_rows())
    )
    records = mark_duplicates(
        listed, lambda first: QuarantineError("duplicate", "the table lists this path before")
    )
    labels.check(path, columns)
    progress(len(records), len(records))
    views_not_understood = {"views_not_understood": views["not understood"]}
    notes = {**views_not_understood, **labels.notes(), **attributes.notes()}
    return Archive(path.parent, records, notes, labels.warnings(path), labels.names)
