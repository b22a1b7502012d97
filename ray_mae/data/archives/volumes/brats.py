"""BraTS-style folders: one folder per case, with co-registered contrasts and a segmentation.

Both namings are read: CASE_t1ce.nii.gz (to 2021) and CASE-t1c.nii.gz (since 2023). Cases since 2023
end in the number of the visit: BraTS-GLI-00005-100 and -101 are one patient.
"""

import re
from collections import defaultdict

from ray_mae.config import IngestConfig
from ray_mae.data.archives.folders import stem_of, volume_files
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_in

_VISIT = re.compile(r"^(?P<patient>.+-\d{5})-(?P<visit>\d{3})$")
# Folders of BraTS to 2018: the tumour's grade, high or low.
GRADES = {"HGG": 1.0, "LGG": 0.0}


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the volumes of all cases. FileNotFoundError if there are none."""
    root, files, passed_over = volume_files(config)
    cases: dict[str, list[str]] = defaultdict(list)
    for path in files:
        cases[path.rpartition("/")[0]].append(path)
    records, passed_over_volumes = [], 0
    for folder, paths in cases.items():
        kinds = {path: re.split(r"[_-]", stem_of(path))[-1] for path in paths}
        segmentations = [path for path, kind in kinds.items() if kind.lower() == "seg"]
        case = folder.rpartition("/")[2]
        visit = _VISIT.match(case)
        grade = next((GRADES[part] for part in folder.split("/") if part in GRADES), None)
        for path, kind in kinds.items():
            modality = contrast_in(kind)
            if modality == UNKNOWN:
                passed_over_volumes += path not in segmentations
                continue
            records.append(
                VolumeRecord(
                    paths=(path,),
                    volume=path,
                    patient=visit["patient"] if visit else case,
                    session=visit["visit"] if visit else case,
                    modality=modality,
                    segmentation=segmentations[0] if segmentations else None,
                    labels={} if grade is None else {"high_grade": grade},
                )
            )
    if not records:
        raise FileNotFoundError(
            f"{root} holds no case folders with files such as CASE_t1.nii.gz or CASE-t1c.nii.gz "
            "(source)"
        )
    progress(len(records), len(records))
    notes = {
        "files_passed_over": passed_over,
        # no kinds: the last word of a file's name may be a part of a patient's
        "volumes_passed_over": {"no known contrast": passed_over_volumes},
    }
    return Archive(root, records, notes)
