"""A folder of DICOM series: every SeriesInstanceUID is a volume, or in quarantine with the reason."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ray_mae.config import IngestConfig
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.studies.dicom import chunks_of, files_below
from ray_mae.data.archives.volumes import series_table
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_in
from ray_mae.data.decoding.decoder_process import read_frames_isolated
from ray_mae.data.decoding.dicom_frames import SliceFile, read_frames, voxels_in
from ray_mae.data.decoding.dicom_series import arrange, check_burned_in
from ray_mae.data.parallel_map import parallel_map
from ray_mae.data.paths import is_remote, retry_transient
from ray_mae.data.quarantine import QuarantineError


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the series of the folder. FileNotFoundError if it holds no files.

    A file that cannot be read stands for itself in the list, as it belongs to no series. The files
    of a series that are there twice stand there once more, as one entry in quarantine.
    """
    root = config.source
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder (source): the `dicom-series` archive is a folder of DICOM files"
        )
    files, passed_over = files_below(root, config.output)
    if not files:
        raise FileNotFoundError(f"{root} holds no files that could be DICOM (source)")

    max_voxels = config.volumes.max_voxels
    headers: dict[str, SliceFile] = {}
    records: list[VolumeRecord] = []
    for headers_of_chunk in parallel_map(
        lambda paths: _headers(root, paths, max_voxels), chunks_of(files)
    ):
        for path, fields in headers_of_chunk:
            try:
                headers[path] = _header(fields)
            except QuarantineError as error:
                records.append(_alone(path, error))
        progress(len(headers) + len(records), len(files))
    series, duplicates = _group_by_series(dict(sorted(headers.items())))
    described, of_table = series_table.describe(
        [_record(slices, config) for slices in series.values()], root, config
    )
    records += described
    records += [_duplicates(of_series) for of_series in duplicates.values()]
    records.sort(key=lambda record: record.paths)
    notes = {
        "files": len(files),
        "series": len(series),
        "series_with_burned_in_text": sum(map(_burned_in, series.values())),
        "duplicate_files": sum(map(len, duplicates.values())),
        "files_passed_over": passed_over,
        **of_table,
    }
    return Archive(root, records, notes)


def _group_by_series(
    headers: dict[str, SliceFile],
) -> tuple[dict[str, dict[str, SliceFile]], dict[str, dict[str, str]]]:
    """The headers by series and path; and, by series, the paths that repeat another's SOPInstanceUID.

    Of files that share one the first stays: headers come in the order of their paths, so that this
    does not depend on which worker is done first.
    """
    series: dict[str, dict[str, SliceFile]] = defaultdict(dict)
    duplicates: dict[str, dict[str, str]] = defaultdict(dict)
    first: dict[str, str] = {}
    for path, file in headers.items():
        other = first.setdefault(file.instance, path) if file.instance else path
        if other == path:
            series[file.series][path] = file
        else:
            duplicates[file.series][path] = other
    return series, duplicates


def _headers(root: Path, paths: list[str], max_voxels: int) -> list[tuple[str, dict[str, Any]]]:
    """On a worker: the headers of some files as plain fields, since they travel as JSON."""
    return [
        (
            path,
            {"problem": [file.reason, file.detail]}
            if isinstance(file, QuarantineError)
            else asdict(file),
        )
        for path, file in zip(paths, _read(root, paths, max_voxels), strict=True)
    ]


def _read(root: Path, paths: list[str], max_voxels: int) -> Iterator[SliceFile | QuarantineError]:
    if not is_remote(root):
        yield from read_frames_isolated([root / path for path in paths], max_voxels)
        return
    for path in paths:  # only their beginning is fetched: the decoder process reads files
        try:
            yield retry_transient(partial(read_frames, root / path, max_voxels), remote=False)
        except QuarantineError as problem:
            yield problem


def _header(fields: dict[str, Any]) -> SliceFile:
    if "problem" in fields:
        raise QuarantineError(*fields["problem"])
    file = SliceFile.from_json(fields)
    if not file.series:
        raise QuarantineError("no-series")
    return file


def _alone(path: str, problem: QuarantineError) -> VolumeRecord:
    """A file that is part of no volume."""
    return VolumeRecord(paths=(path,), volume=path, patient="", modality=UNKNOWN, problem=problem)


def _duplicates(others: dict[str, str]) -> VolumeRecord:
    """The duplicates in one series, as one entry: the file that was there before by path."""
    path, other = next(iter(others.items()))
    return _alone(path, QuarantineError("duplicate", f"{len(others)} files, as {other}"))


def _burned_in(slices: dict[str, SliceFile]) -> bool:
    return any(file.burned_in for file in slices.values())


def _record(slices: dict[str, SliceFile], config: IngestConfig) -> VolumeRecord:
    """One series; slices by path."""
    files, max_voxels = list(slices.values()), config.volumes.max_voxels
    problem = None
    try:
        if len({(file.patient, file.study) for file in files}) > 1:
            raise QuarantineError("patient-conflict", "one series, several patients or studies")
        if voxels_in(files) > max_voxels:
            raise QuarantineError(
                "too-large", f"{voxels_in(files):,} voxels, at most {max_voxels:,}"
            )
        if config.burned_in == "quarantine":
            check_burned_in(files)
        arrange(files)
    except QuarantineError as error:
        problem = error
    contrast = contrast_in(files[0].words)
    return VolumeRecord(
        paths=tuple(slices),
        volume=files[0].series,
        patient=files[0].patient,
        session=files[0].study or None,
        modality=contrast if contrast != UNKNOWN else (files[0].modality or UNKNOWN),
        problem=problem,
    )
