"""A folder of DICOM files, grouped by StudyInstanceUID, with reports beside it."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader
from ray_mae.data.archives.duplicates import mark_duplicates
from ray_mae.data.archives.label_reader import LabelReader, TableSurvey
from ray_mae.data.archives.records import Archive, ImageRecord, Progress
from ray_mae.data.archives.report_files import read_report
from ray_mae.data.archives.tables import given_splits, need_columns, read_table
from ray_mae.data.decoding.decoder_process import read_headers_isolated
from ray_mae.data.decoding.dicom import Header, check_header, read_header
from ray_mae.data.disk_list import DiskList
from ray_mae.data.file_types import file_kind
from ray_mae.data.labels import CHEXPERT_LABELS
from ray_mae.data.parallel_map import parallel_map
from ray_mae.data.paths import is_remote, list_folder, retry_transient, walk
from ray_mae.data.quarantine import QuarantineError

# What lies beside DICOM files and is none. Everything else is read, whatever its name: many
# archives have no suffix, and a file that is passed over in silence would be missed by nobody.
NOT_IMAGES = frozenset(
    ".csv .tsv .parquet .txt .json .xml .html .htm .md .pdf .yaml .yml .log .zip .gz .tgz .tar .py"
    .split()
)  # fmt: skip
FILES_PER_TASK = 256
_OF_RECORD = (
    "study", "patient", "view", "position", "instance", "year", "view_understood", "attributes"
)  # fmt: skip


def read(config: IngestConfig, progress: Progress) -> Archive:
    """List the images of the folder. ValueError or FileNotFoundError if there are none."""
    root = config.source
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder (source): the `dicom` archive is a folder of DICOM files, for a "
            "table of images use the archive `table`"
        )
    files, passed_over = files_below(root, config.output)
    if not files:
        raise FileNotFoundError(f"{root} holds no files that could be DICOM (source)")

    wanted = _Wanted(config.max_pixels, config.year_bucket > 0, tuple(config.attributes))
    attributes = AttributeReader(config.attributes)
    reports, matched, of_view = _reports(config, attributes), set[str](), Counter[str]()

    def list_images() -> Iterator[tuple[str, str, ImageRecord]]:
        """Each file's path, the name of its image, and what is known of it."""
        done = 0
        for headers in parallel_map(lambda paths: _headers(root, paths, wanted), chunks_of(files)):
            for fields in headers:
                understood = fields.pop("view_understood")
                of_view["not understood"] += not understood
                fields["attributes"] = attributes.read(fields.pop("attributes", {}))
                record = reports.describe(_record(fields))
                if record.study in reports.studies:
                    matched.add(record.study)
                yield record.path, record.instance or "", record
            done += len(headers)
            progress(done, len(files))

    records = mark_duplicates(
        list_images(),
        lambda first: QuarantineError("duplicate", f"same SOPInstanceUID as {first.path}"),
    )
    notes = {
        "files_passed_over": passed_over,
        "views_not_understood": of_view["not understood"],
        "reports_without_images": len(reports.studies) - len(matched),
        **reports.notes,
        **attributes.notes(),
    }
    return Archive(root, records, notes, reports.warnings, reports.label_names)


def files_below(root: Path, output: Path) -> tuple[DiskList[str], dict[str, int]]:
    """Paths below root that may be DICOM; and how many others there are, by kind."""
    files, passed_over = DiskList[str](), Counter[str]()
    for folder, names in walk(root, output):
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in NOT_IMAGES or name.startswith(".") or name.upper() == "DICOMDIR":
                passed_over[file_kind(name)] += 1
            else:
                files.add(os.path.join(folder, name))
    return files, dict(sorted(passed_over.items()))


def chunks_of(files: Iterable[str]) -> Iterator[list[str]]:
    """The files by task."""
    left = iter(files)
    while chunk := list(islice(left, FILES_PER_TASK)):
        yield chunk


class _Wanted(NamedTuple):
    """What is read of headers."""

    max_pixels: int
    year: bool
    attributes: tuple[str, ...]


def _headers(root: Path, paths: list[str], wanted: _Wanted) -> list[dict[str, Any]]:
    """On a worker: the records of some files as plain fields, since they travel as JSON."""
    headers, most = _read(root, paths, wanted), wanted.max_pixels
    return [_fields(path, header, most) for path, header in zip(paths, headers, strict=True)]


def _fields(path: str, header: Header | QuarantineError, max_pixels: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "path": path, "study": "", "patient": "", "view": "unknown", "view_understood": True
    }  # fmt: skip
    try:
        if isinstance(header, QuarantineError):
            raise header
        fields |= {name: getattr(header, name) for name in _OF_RECORD}
        check_header(header, max_pixels)
    except QuarantineError as problem:
        fields["problem"] = [problem.reason, problem.detail]
    return fields


def _read(root: Path, paths: list[str], wanted: _Wanted) -> Iterator[Header | QuarantineError]:
    if not is_remote(root):
        yield from read_headers_isolated(
            [root / path for path in paths],
            wanted.max_pixels,
            year=wanted.year,
            attributes=wanted.attributes,
        )
        return
    for path in paths:
        try:
            yield _read_remote(root / path, wanted)
        except QuarantineError as problem:
            yield problem


def _read_remote(path: Path, wanted: _Wanted) -> Header:
    """The header of a file in a store, of which only the beginning is fetched. Raises QuarantineError."""
    return retry_transient(
        lambda: read_header(
            path, wanted.max_pixels, year=wanted.year, attributes=wanted.attributes
        ),
        remote=False,
    )


def _record(fields: dict[str, Any]) -> ImageRecord:
    problem = QuarantineError(*fields["problem"]) if "problem" in fields else None
    return ImageRecord(**{**fields, "problem": problem})


@dataclass(frozen=True)
class _Reports:
    """What a sidecar says about each study, as fields of a record."""

    studies: dict[str, dict[str, Any]]
    notes: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    label_names: tuple[str, ...] = CHEXPERT_LABELS

    def describe(self, record: ImageRecord) -> ImageRecord:
        """The record with what the sidecar says about its study; of attributes it may say some."""
        said = dict(self.studies.get(record.study, {}))
        if attributes := said.pop("attributes", None):
            said["attributes"] = (record.attributes or {}) | attributes
        return replace(record, **said)


def _reports(config: IngestConfig, attributes: AttributeReader) -> _Reports:
    """The sidecar: a table, a folder of STUDY.txt, or nothing."""
    path = config.reports
    if path is None:
        path = config.source / "reports.csv"
        if not path.is_file():
            return _Reports({}, {})
    if path.is_dir():
        texts, unreadable = dict[str, dict[str, Any]](), 0
        for name, folder in list_folder(path):
            if name.endswith(".txt") and not folder:
                content = read_report(path / name)
                unreadable += content is None
                if content is not None:
                    text = content.decode(errors="replace")
                    texts[name.removesuffix(".txt")] = {"text": text}
        if not texts:
            raise FileNotFoundError(
                f"{path} holds no .txt files (reports): one STUDY.txt per study"
            )
        return _Reports(texts, {"reports_not_readable": unreadable} if unreadable else {})
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist (reports): a table, or a folder of STUDY.txt"
        )

    rows, columns = read_table(path, encoding=config.table_encoding), config.columns
    need_columns(path, rows, columns, required=("study",))
    survey = TableSurvey(columns)
    for _ in survey.watch(rows):
        pass
    labels = LabelReader.of_table(path, rows[0].header, columns, survey)
    studies: dict[str, dict[str, Any]] = {}
    repeated = 0
    for row, split in zip(rows, given_splits(path, rows, columns.split), strict=True):
        fields: dict[str, Any] = {
            "text": row.get(columns.text), "labels": labels.read(row), "split": split,
            "other_labels": labels.others(row), "attributes": attributes.of_row(row, vars(columns)),
        }  # fmt: skip
        if patient := row.get(columns.patient, "").strip():
            fields["patient"] = patient  # for archives whose headers were emptied
        repeated += row[columns.study].strip() in studies
        studies.setdefault(row[columns.study].strip(), fields)
    labels.check(path, columns)
    notes = {"reports_repeated": repeated, **labels.notes()}
    return _Reports(studies, notes, labels.warnings(path), labels.names)
