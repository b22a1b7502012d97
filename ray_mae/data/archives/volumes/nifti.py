"""A folder of NIfTI files: patients by folder or by file name, see patient_names.

The label maps of nnU-Net's raw folders (labelsTr beside imagesTr) belong to their images, and its
dataset.json says what the channels are. Other files whose names say that they are label maps, phase
images or subtractions go to quarantine.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray_mae.config import IngestConfig
from ray_mae.data.archives.folders import stem_of, volume_files
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_in, contrast_of, is_contrast
from ray_mae.data.archives.volumes.exclusions import check_name, in_label_folder, label_map_in
from ray_mae.data.archives.volumes.name_words import words_of
from ray_mae.data.archives.volumes.patient_names import (
    CHANNEL,
    case_of,
    match_people,
    people_of,
)
from ray_mae.data.quarantine import QuarantineError

# A patient with more volumes than this is no patient but a folder of many.
MOST_VOLUMES_PER_PATIENT = 50


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the volumes. FileNotFoundError if there are none, ValueError for a wrong pattern.

    ValueError as well where no pattern is given, and what comes out cannot be patients.
    """
    root, files, passed_over, others = volume_files(config)
    pattern = config.volumes.patient_pattern
    label_maps = _nnunet_label_maps(files)
    channels = _nnunet_channels(root, files)
    images = [path for path in files if path not in set(label_maps.values())]
    problems = _problems(images)
    scans = [path for path in images if problems[path] is None]
    people = people_of(scans) if pattern is None else match_people(scans, pattern)
    of_image = dict(zip(scans, zip(people.patients, people.sessions, strict=True), strict=True))
    records = []
    for path in images:
        patient, session = of_image.get(path, ("", None))
        records.append(
            VolumeRecord(
                paths=(path,),
                volume=path,
                patient=patient,
                session=session,
                modality=channels.get(path) or _modality(path),
                segmentation=label_maps.get(path),
                problem=problems[path],
            )
        )
    volumes = Counter(record.patient for record in records if record.patient)
    most = max(volumes.values(), default=len(records))
    if pattern is None and scans and (not volumes or most > MOST_VOLUMES_PER_PATIENT):
        name = volumes.most_common(1)[0][0] if volumes else ""
        one = next(record.paths[0] for record in records if record.patient == name)
        raise ValueError(
            f"{root}: {len(records):,} volumes of {len(volumes)} patients, as far as folders and file "
            f"names tell, one of them with {most} ({one} and so on): say where the patient's name is "
            "with volumes.patient_pattern"
        )
    progress(len(records), len(records))
    notes = {
        "files_passed_over": passed_over,
        "patients": len(volumes),
        "volumes_per_patient": {
            "mean": round(volumes.total() / max(1, len(volumes)), 2),
            "most": most,
        },
        "label_maps_of_images": len(set(label_maps.values())),
        "warnings_about_patients": len(people.warnings),
    }
    return Archive(root, records + others, notes, people.warnings)


def _problems(paths: Sequence[str]) -> dict[str, QuarantineError | None]:
    """What the names say against each file. What they say of all files is part of their common name."""
    problems: dict[str, QuarantineError | None] = {}
    folders_tell = not all(map(in_label_folder, paths))
    names_tell = not all(label_map_in(stem_of(path)) for path in paths)
    for path in paths:
        problems[path] = None
        try:
            if folders_tell and in_label_folder(path):
                raise QuarantineError("label-map", "by its folder")
            if names_tell or not label_map_in(stem_of(path)):
                check_name(stem_of(path))
        except QuarantineError as problem:
            problems[path] = problem
    return problems


# ------------------------------------------------------------------------------- nnU-Net's raw folders

_IMAGES = re.compile(r"^(?P<root>.*?)(?P<folder>images(?P<part>tr|ts|val))/[^/]+$", re.IGNORECASE)


def _nnunet_label_maps(files: Sequence[str]) -> dict[str, str]:
    """The label map of each image: labelsTr/CASE.nii.gz of imagesTr/CASE_0000.nii.gz."""
    by_case = {
        (path.rpartition("/")[0].lower(), stem_of(path)): path
        for path in files
        if in_label_folder(path)
    }
    maps = {}
    for path in files:
        if match := _IMAGES.match(path):
            folder = f"{match['root']}labels{match['part']}".lower()
            if label_map := by_case.get((folder, case_of(path))):
                maps[path] = label_map
    return maps


def _nnunet_channels(root: Path, files: Sequence[str]) -> dict[str, str]:
    """The contrast of each image by its channel, as dataset.json beside imagesTr names it."""
    names: dict[str, dict[str, Any]] = {}
    contrasts = {}
    for path in files:
        match, channel = _IMAGES.match(path), CHANNEL.search(stem_of(path))
        if not match or not channel:
            continue
        if match["root"] not in names:
            names[match["root"]] = _channel_names(root / match["root"] / "dataset.json")
        contrast = contrast_of(str(names[match["root"]].get(str(int(channel[1])), "")))
        if contrast != UNKNOWN:
            contrasts[path] = contrast
    return contrasts


def _channel_names(path: Path) -> dict[str, Any]:
    """What dataset.json calls the channels, by number; nothing if there is none that can be read."""
    try:
        content = json.loads(path.read_text())
        names = content.get("channel_names") or content.get("modality") or {}
        return dict(names)
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _modality(path: str) -> str:
    """The contrast in the file's name, else in that of its folders, from the nearest."""
    for name in [stem_of(path), *reversed(path.split("/")[:-1])]:
        if (contrast := contrast_in(name)) != UNKNOWN:
            return contrast
        if code := next(filter(is_contrast, words_of(name)), None):
            return contrast_of(code)
    return UNKNOWN
