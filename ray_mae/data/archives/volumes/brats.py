"""BraTS-style cases: co-registered contrasts and a segmentation, in a folder each or side by side.

Both namings are read: CASE_t1ce.nii.gz (to 2021) and CASE-t1c.nii.gz (since 2023). The case is what the
file's name says before the contrast, where a folder holds several; else it is the folder. Cases since 2023
end in the number of the visit: BraTS-GLI-00005-100 and -101 are one patient.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ray_mae.config import IngestConfig
from ray_mae.data.archives.folders import stem_of, volume_files
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_in
from ray_mae.data.archives.volumes.exclusions import check_name, label_map_in
from ray_mae.data.archives.volumes.name_words import name_in
from ray_mae.data.archives.volumes.patient_names import (
    alike,
    check_visits,
    match_people,
)
from ray_mae.data.quarantine import QuarantineError

# BraTS since 2023, UPENN-GBM (00001_11, 00001_21), UCSF-PDGM (0004_FU003d).
_VISIT = re.compile(
    r"^(?P<patient>.+-\d{5})-(?P<visit>\d{3})$|^(?P<upenn>.+-\d{5})_(?P<second>\d\d)$|"
    r"^(?P<ucsf>.+\d)_(?P<later>FU\d+[a-z]?)$"
)
# Folders of BraTS to 2018: the tumour's grade, high or low.
GRADES = {"HGG": 1.0, "LGG": 0.0}
SEGMENTATION = "seg"


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the volumes of all cases. FileNotFoundError if there are none.

    ValueError if their names cannot be told to be patients or visits.
    """
    root, files, passed_over, others = volume_files(config)
    of_case: dict[str, list[str]] = defaultdict(list)
    for path, case in _cases(files).items():
        of_case[case].append(path)
    records: list[VolumeRecord] = []
    counts: Counter[str] = Counter()
    for case, paths in of_case.items():
        images = {path: contrast for path in paths if (contrast := _contrast(path)) != UNKNOWN}
        maps = [path for path in paths if _kind(path) == SEGMENTATION]
        if not maps and images:
            # BraTS 2020 has one case whose label map is called W39_1998.09.19_Segm.nii.
            maps = [path for path in paths if path not in images and label_map_in(stem_of(path))]
            counts["misnamed"] += len(maps) == 1
        maps_of = {path: found for path in images if (found := _label_map_of(path, maps))}
        counts["cases"] += bool(images)
        counts["without"] += bool(images) and not maps_of
        counts["several"] += bool(images) and len(maps) > 1 and not maps_of
        patient, session = _patient(case)
        for path in paths:
            if path in maps_of.values():
                continue
            grade = next((GRADES[part] for part in path.split("/") if part in GRADES), None)
            records.append(
                VolumeRecord(
                    paths=(path,),
                    volume=path,
                    patient=patient,
                    session=session,
                    modality=images.get(path, UNKNOWN),
                    segmentation=maps_of.get(path),
                    labels={} if grade is None else {"high_grade": grade},
                    problem=None if path in images else _problem(path),
                )
            )
    records.sort(key=lambda record: record.volume)
    scans = [record for record in records if not record.problem]
    if not scans:
        raise FileNotFoundError(
            f"{root} holds no cases with files such as CASE_t1.nii.gz or CASE-t1c.nii.gz (source)"
        )
    warnings: list[str] = []
    if config.volumes.patient_pattern:
        people = match_people([r.volume for r in scans], config.volumes.patient_pattern)
        patient_of = dict(zip([r.volume for r in scans], people.patients, strict=True))
        records = [replace(r, patient=patient_of.get(r.volume, r.patient)) for r in records]
    else:
        patients = [record.patient for record in scans]
        check_visits(patients)
        warnings = alike(patients)
    progress(len(records), len(records))
    notes = {
        "files_passed_over": passed_over,
        "cases": counts["cases"],
        "cases_without_segmentation": counts["without"],
        "cases_with_several_segmentations": counts["several"],
        "segmentations_under_another_name": counts["misnamed"],
        "warnings_about_patients": len(warnings),
    }
    return Archive(root, records + others, notes, warnings)


def _label_map_of(path: str, maps: Sequence[str]) -> str | None:
    """The label map of an image among those of its case: the only one beside it, else the only one."""
    beside = [other for other in maps if other.rpartition("/")[0] == path.rpartition("/")[0]]
    found = beside or list(maps)
    return found[0] if len(found) == 1 else None


def _kind(path: str) -> str:
    """The last word of a file's name: t1ce, t2f, seg."""
    return re.split(r"[_-]", stem_of(path))[-1].lower()


def _contrast(path: str) -> str:
    return contrast_in(_kind(path))


def _problem(path: str) -> QuarantineError:
    """Why a file of a case is not taken."""
    try:
        check_name(stem_of(path))
    except QuarantineError as problem:
        return problem
    return QuarantineError("other-modality", "its name ends in no known contrast")


def _cases(files: Iterable[str]) -> dict[str, str]:
    """The case of each file.

    A folder whose files are of several cases by their names only sorts them, as does one that is called
    train or t1; another is the case.
    """
    by_folder: dict[str, dict[str, str]] = defaultdict(dict)
    for path in files:
        by_folder[path.rpartition("/")[0]][path] = _case_in(path)
    several = {folder: _tell_apart(names) for folder, names in by_folder.items()}
    known = {
        name for folder, names in by_folder.items() if several[folder] for name in names.values()
    }
    cases = {}
    for folder, names in by_folder.items():
        own = folder.rpartition("/")[2]
        for path, name in names.items():
            sorts = several[folder] or not name_in(own) or name in known
            cases[path] = name if name and sorts else own
    return cases


def _case_in(path: str) -> str:
    """What a file's name says before its contrast, "" if nothing: t1.nii.gz in the folder of a case."""
    kind, stem = _kind(path), stem_of(path)
    if kind != SEGMENTATION and contrast_in(kind) == UNKNOWN:
        return ""
    case = stem[: len(stem) - len(kind)].rstrip("_-")
    return name_in(case, visits=False) or case


def _tell_apart(names: Mapping[str, str]) -> bool:
    """Whether the files of a folder are of several cases: more than one name, each of them numbered."""
    different = set(names.values()) - {""}
    return len(different) > 1 and all(any(c.isdigit() for c in name) for name in different)


def _patient(case: str) -> tuple[str, str]:
    """Patient and session of a case."""
    if match := _VISIT.match(case):
        patient, visit = filter(None, match.groups())
        return patient, visit
    return case, case
