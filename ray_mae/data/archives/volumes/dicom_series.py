"""A folder of DICOM series: every SeriesInstanceUID is a volume, or in quarantine with the reason.

A series with several slices at each position is as many volumes where its files differ in the echo time
or another of PARTS.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.studies.dicom import chunks_of, files_below
from ray_mae.data.archives.volumes import series_table
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_in, is_agent
from ray_mae.data.archives.volumes.exclusions import check_description
from ray_mae.data.decoding.decoder_process import read_frames_isolated
from ray_mae.data.decoding.dicom_frames import PARTS, SliceFile, read_frames, voxels_in
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

    wanted = _Wanted(config.volumes.max_voxels, tuple(config.attributes))
    attributes = AttributeReader(config.attributes)
    headers: dict[str, SliceFile] = {}
    records: list[VolumeRecord] = []
    for headers_of_chunk in parallel_map(
        lambda paths: _headers(root, paths, wanted), chunks_of(files)
    ):
        for path, fields in headers_of_chunk:
            try:
                headers[path] = _header(fields)
            except QuarantineError as error:
                records.append(_alone(path, error))
        progress(len(headers) + len(records), len(files))
    series, duplicates = _group_by_series(dict(sorted(headers.items())))
    volumes = [_volumes_of(slices, config, attributes) for slices in series.values()]
    described, of_table = series_table.describe(list(chain(*volumes)), root, config, attributes)
    records += described
    records += [_duplicates(of_series) for of_series in duplicates.values()]
    records.sort(key=lambda record: record.paths)
    notes = {
        "files": len(files),
        "series": len(series),
        "series_of_several_volumes": sum(len(of_series) > 1 for of_series in volumes),
        "series_with_burned_in_text": sum(map(_burned_in, series.values())),
        "duplicate_files": sum(map(len, duplicates.values())),
        "files_passed_over": passed_over,
        **of_table,
        **attributes.notes(),
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


class _Wanted(NamedTuple):
    """What is read of headers."""

    max_voxels: int
    attributes: tuple[str, ...]


def _headers(root: Path, paths: list[str], wanted: _Wanted) -> list[tuple[str, dict[str, Any]]]:
    """On a worker: the headers of some files as plain fields, since they travel as JSON."""
    return [
        (
            path,
            {"problem": [file.reason, file.detail]}
            if isinstance(file, QuarantineError)
            else asdict(file),
        )
        for path, file in zip(paths, _read(root, paths, wanted), strict=True)
    ]


def _read(root: Path, paths: list[str], wanted: _Wanted) -> Iterator[SliceFile | QuarantineError]:
    if not is_remote(root):
        yield from read_frames_isolated([root / path for path in paths], *wanted)
        return
    for path in paths:  # only their beginning is fetched: the decoder process reads files
        try:
            yield retry_transient(partial(read_frames, root / path, *wanted), remote=False)
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


MOST_PARTS = 8
"""Volumes of one series. What has more is a time series, or something else that is no scan of anatomy."""


def _volumes_of(
    slices: dict[str, SliceFile], config: IngestConfig, attributes: AttributeReader
) -> list[VolumeRecord]:
    """The volumes of one series; slices by path."""
    parts = _parts(slices)
    if parts is None:
        return [_record(slices, config, attributes)]
    name, of_value = parts
    return [
        _record(of_part, config, attributes, part=f"/{name} {value}")
        for value, of_part in of_value.items()
    ]


def _parts(slices: dict[str, SliceFile]) -> tuple[str, dict[str, dict[str, SliceFile]]] | None:
    """The tag that tells several volumes of a series apart, and the slices of each by its value.

    None where the series is one volume, or none of the tags leaves one regular volume for each value.
    """
    if _problem_of(slices) != "repeated-positions":
        return None
    for index, name in enumerate(PARTS):
        of_value: dict[str, dict[str, SliceFile]] = defaultdict(dict)
        for path, file in slices.items():
            of_value[file.parts[index] if file.parts else ""][path] = file
        if 1 < len(of_value) <= MOST_PARTS and not any(map(_problem_of, of_value.values())):
            return name, dict(sorted(of_value.items()))
    return None


def _problem_of(slices: dict[str, SliceFile]) -> str | None:
    """Why these slices are not one regular volume, None if they are."""
    try:
        arrange(list(slices.values()))
    except QuarantineError as problem:
        return problem.reason
    return None


def _record(
    slices: dict[str, SliceFile],
    config: IngestConfig,
    attributes: AttributeReader,
    part: str = "",
) -> VolumeRecord:
    """One volume; slices by path.

    part: which of its series' volumes it is.
    """
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
        check_description(files[0].words, files[0].image_type)
        arrange(files)
    except QuarantineError as error:
        problem = error
        if error.reason == "repeated-positions":
            problem = QuarantineError(error.reason, f"{error.detail}; {_SEVERAL}")
    contrast = contrast_in(files[0].words, agent=any(is_agent(file.agent) for file in files))
    if part.startswith("/EchoTime"):
        contrast = _contrast_of_echo(files[0], contrast)
    return VolumeRecord(
        paths=tuple(slices),
        volume=files[0].series + part,
        patient=files[0].patient,
        session=files[0].study or None,
        modality=contrast if contrast != UNKNOWN else (files[0].modality or UNKNOWN),
        said_of_face=_said_of_face(files),
        attributes=attributes.read(_cells(files)),
        problem=problem,
    )


def _cells(files: Sequence[SliceFile]) -> dict[str, str]:
    """What the first slice that says something says of each attribute."""
    cells: dict[str, str] = {}
    for file in files:
        for name, cell in file.attributes.items():
            cells[name] = cells.get(name) or cell
    return cells


def _said_of_face(files: Sequence[SliceFile]) -> str | None:
    """What the headers say, as one of FACES: one slice with a face is enough, none only if all say so."""
    words = {file.recognizable for file in files}
    if "YES" in words:
        return "head"
    return "defaced" if words == {"NO"} else None


_SEVERAL = "if it holds several volumes, write each into a file of its own with dcm2niix (`nifti`)"
# Milliseconds between the short echo of a double-echo series, which shows proton density, and the long.
SHORT_ECHO_MS = 60.0


def _contrast_of_echo(file: SliceFile, contrast: str) -> str:
    """PD or T2w by the echo time, where the description of a series with several echoes names both."""
    echo = file.parts[PARTS.index("EchoTime")]
    both = contrast_in(f"{file.words} T2") == "T2w" and contrast_in(_without_t2(file.words)) == "PD"
    if not both:
        return contrast
    return "PD" if float(echo) < SHORT_ECHO_MS else "T2w"


def _without_t2(words: str) -> str:
    return re.sub("t2w?", " ", words, flags=re.IGNORECASE)
