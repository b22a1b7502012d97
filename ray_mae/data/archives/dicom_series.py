"""A folder of DICOM series: every SeriesInstanceUID is a volume, or refused with the reason."""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray_mae.config import IngestConfig
from ray_mae.data.archives.dicom import FILES_PER_TASK, files_below
from ray_mae.data.archives.record import Archive, Progress, VolumeRecord
from ray_mae.data.contrasts import UNKNOWN, contrast_in
from ray_mae.data.distribute import distribute
from ray_mae.data.frames import SliceFile, read_frames, total
from ray_mae.data.quarantine import Unusable
from ray_mae.data.series import arrange


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the series of the folder. FileNotFoundError if it holds no files.

    A file that cannot be read stands for itself in the list, as it belongs to no series.
    """
    root = config.source.absolute()  # workers may have another working folder
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is no folder (source): the `dicom-series` archive is a folder of DICOM files"
        )
    files, passed_over = files_below(root, config.output)
    if not files:
        raise FileNotFoundError(f"{root} holds no files that could be DICOM (source)")

    max_voxels = config.volumes.max_voxels
    chunks = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
    series: dict[str, dict[str, SliceFile]] = defaultdict(dict)
    records: list[VolumeRecord] = []
    first: dict[str, str] = {}
    done = 0
    for found in distribute(lambda paths: _headers(root, paths, max_voxels), chunks):
        for path, fields in found:
            done += 1
            try:
                file = _header(fields)
                if file.instance and (other := first.setdefault(file.instance, path)) != path:
                    raise Unusable("duplicate", f"same SOPInstanceUID as {other}")
                series[file.series][path] = file
            except Unusable as why:
                records.append(_alone(path, why))
        progress(done, len(files))
    records += [_record(dict(sorted(slices.items())), max_voxels) for slices in series.values()]
    records.sort(key=lambda record: record.paths)
    notes = {"files": len(files), "series": len(series), "files_passed_over": passed_over}
    return Archive(root, records, notes)


def _headers(root: Path, paths: list[str], max_voxels: int) -> list[tuple[str, dict[str, Any]]]:
    """On a worker: the headers of some files as plain fields, since they travel as JSON."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path in paths:
        try:
            found.append((path, asdict(read_frames(root / path, max_voxels))))
        except Unusable as why:
            found.append((path, {"problem": [why.reason, why.detail]}))
    return found


def _header(fields: dict[str, Any]) -> SliceFile:
    if "problem" in fields:
        raise Unusable(*fields["problem"])
    file = SliceFile.from_json(fields)
    if not file.series:
        raise Unusable("no-series")
    return file


def _alone(path: str, problem: Unusable) -> VolumeRecord:
    """A file that is part of no volume."""
    return VolumeRecord(paths=(path,), volume=path, patient="", modality=UNKNOWN, problem=problem)


def _record(slices: dict[str, SliceFile], max_voxels: int) -> VolumeRecord:
    """One series; slices by path."""
    files = list(slices.values())
    problem = None
    try:
        if len({(file.patient, file.study) for file in files}) > 1:
            raise Unusable("patient-conflict", "one series, several patients or studies")
        if total(files) > max_voxels:
            raise Unusable("too-large", f"{total(files):,} voxels, at most {max_voxels:,}")
        arrange(files)
    except Unusable as why:
        problem = why
    contrast = contrast_in(files[0].words)
    return VolumeRecord(
        paths=tuple(slices),
        volume=files[0].series,
        patient=files[0].patient,
        session=files[0].study or None,
        modality=contrast if contrast != UNKNOWN else (files[0].modality or UNKNOWN),
        problem=problem,
    )
