"""A folder of NIfTI files: patients by folder or by file name."""

import re

from ray_mae.config import IngestConfig
from ray_mae.data.archives.folders import stem_of, volume_files
from ray_mae.data.archives.record import Archive, Progress, VolumeRecord
from ray_mae.data.contrasts import UNKNOWN, contrast_in

_SESSION = re.compile(r"(?i)^(ses|session|visit|tp|time|run|acq)[-_]?\w*$")


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the volumes. FileNotFoundError if there are none, ValueError for a wrong pattern."""
    root, files, passed_over = volume_files(config)
    pattern = _pattern(config.volumes.patient_pattern)
    records = []
    for path in files:
        patient, session = _person(path, pattern)
        records.append(
            VolumeRecord(
                paths=(path,),
                volume=path,
                patient=patient,
                session=session,
                modality=contrast_in(stem_of(path)),
            )
        )
    progress(len(records), len(records))
    return Archive(root, records, {"files_passed_over": passed_over})


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(
            f"{text!r} is no regular expression ({error}) (volumes.patient_pattern)"
        ) from error
    if "patient" not in pattern.groupindex:
        raise ValueError(f"{text!r} has no group (?P<patient>…) (volumes.patient_pattern)")
    return pattern


def _person(path: str, pattern: re.Pattern[str] | None) -> tuple[str, str | None]:
    """Patient and session; "" where the pattern is not found."""
    if pattern:
        found = pattern.search(path)
        groups = found.groupdict() if found else {}
        return groups.get("patient") or "", groups.get("session")
    folders, words = path.split("/")[:-1], stem_of(path).split("_")
    rest = folders[1:] if folders else words[1:]
    session = next((word for word in [*rest, *words[1:]] if _SESSION.match(word)), None)
    if folders:
        return folders[0], session
    # The first word always counts; the patient ends where session or contrast are named.
    ends = [
        i for i, word in enumerate(words)
        if i and (_SESSION.match(word) or contrast_in(word) != UNKNOWN)
    ]  # fmt: skip
    return "_".join(words[: ends[0] if ends else None]), session
