"""A folder of DICOM files, grouped by StudyInstanceUID, with reports beside it."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ray_mae.config import IngestConfig
from ray_mae.data.archives.duplicates import mark_duplicates
from ray_mae.data.archives.records import Archive, ImageRecord, Progress
from ray_mae.data.archives.report_files import read_report
from ray_mae.data.archives.tables import LabelReader, given_splits, need_columns, read_table
from ray_mae.data.decoding.decoder_process import read_headers_isolated
from ray_mae.data.decoding.dicom import Header, check_header, read_header
from ray_mae.data.disk_list import DiskList
from ray_mae.data.file_types import file_kind
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
_OF_RECORD = ("study", "patient", "view", "position", "instance", "year", "view_understood")


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

    max_pixels, dates = config.max_pixels, config.year_bucket > 0
    reports, matched, of_view = _reports(config), set[str](), Counter[str]()

    def list_images() -> Iterator[tuple[str, str, ImageRecord]]:
        """Each file's path, the name of its image, and what is known of it."""
        done = 0
        for headers in parallel_map(
            lambda paths: _headers(root, paths, max_pixels, dates), chunks_of(files)
        ):
            for fields in headers:
                understood = fields.pop("view_understood")
                of_view["not understood"] += not understood
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
    }
    return Archive(root, records, notes)


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


def _headers(root: Path, paths: list[str], max_pixels: int, dates: bool) -> list[dict[str, Any]]:
    """On a worker: the records of some files as plain fields, since they travel as JSON."""
    headers = _read(root, paths, max_pixels, dates)
    return [_fields(path, header, max_pixels) for path, header in zip(paths, headers, strict=True)]


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


def _read(
    root: Path, paths: list[str], max_pixels: int, dates: bool
) -> Iterator[Header | QuarantineError]:
    if not is_remote(root):
        yield from read_headers_isolated([root / path for path in paths], max_pixels, year=dates)
        return
    for path in paths:
        try:
            yield _read_remote(root / path, max_pixels, dates)
        except QuarantineError as problem:
            yield problem


def _read_remote(path: Path, max_pixels: int, dates: bool) -> Header:
    """The header of a file in a store, of which only the beginning is fetched. Raises QuarantineError."""
    return retry_transient(lambda: read_header(path, max_pixels, year=dates), remote=False)


def _record(fields: dict[str, Any]) -> ImageRecord:
    problem = QuarantineError(*fields["problem"]) if "problem" in fields else None
    return ImageRecord(**{**fields, "problem": problem})


@dataclass(frozen=True)
class _Reports:
    """What a sidecar says about each study, as fields of a record."""

    studies: dict[str, dict[str, Any]]
    notes: dict[str, Any]

    def describe(self, record: ImageRecord) -> ImageRecord:
        """The record with what the sidecar says about its study."""
        return replace(record, **self.studies.get(record.study, {}))


def _reports(config: IngestConfig) -> _Reports:
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

    rows, columns = read_table(path), config.columns
    need_columns(path, rows, columns, required=("study",))
    labels = LabelReader.of(columns.labels, rows[0])
    studies: dict[str, dict[str, Any]] = {}
    repeated = 0
    for row, split in zip(rows, given_splits(path, rows, columns.split), strict=True):
        fields: dict[str, Any] = {
            "text": row.get(columns.text), "labels": labels.read(row), "split": split
        }  # fmt: skip
        if patient := row.get(columns.patient, "").strip():
            fields["patient"] = patient  # for archives whose headers were emptied
        repeated += row[columns.study].strip() in studies
        studies.setdefault(row[columns.study].strip(), fields)
    return _Reports(studies, {"reports_repeated": repeated, **labels.notes()})
