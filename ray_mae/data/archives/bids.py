"""A BIDS data set: sub-*/[ses-*/]anat/*_SUFFIX.nii.gz, with participants.tsv beside it.

https://bids-specification.readthedocs.io: the suffix names the contrast. Label maps (*_dseg) of a
session, in the data set or in derivatives, belong to all its images.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ray_mae.config import IngestConfig
from ray_mae.data.archives.folders import noted, numbers, stem_of, volume_files
from ray_mae.data.archives.record import Archive, Progress, VolumeRecord
from ray_mae.data.archives.tables import given_splits, read_table
from ray_mae.data.contrasts import contrast_of

_PLACE = re.compile(r"(?:^|/)(?P<sub>sub-[^/_]+)/(?:(?P<ses>ses-[^/_]+)/)?anat/[^/]+$")
SEGMENTATION = "dseg"
# Suffixes in anat/ that are no images.
NO_IMAGES = frozenset({SEGMENTATION, "mask", "defacemask", "probseg"})


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the anatomical images. FileNotFoundError if it is no BIDS folder, or has none."""
    root, files, passed_over = volume_files(config)
    people, splits, not_numbers = _participants(root, config)
    other: Counter[str] = Counter()
    records: list[VolumeRecord] = []
    segmentations: dict[tuple[str, str | None], list[str]] = {}
    for path in files:
        place, suffix = _PLACE.search(path), stem_of(path).split("_")[-1]
        raw = path.startswith("sub-")
        if place and suffix == SEGMENTATION:
            segmentations.setdefault((place["sub"], place["ses"]), []).append(path)
        elif not (place and raw) or suffix in NO_IMAGES:
            other[suffix if raw else path.split("/")[0]] += 1
        else:
            about = people.get(place["sub"], {})
            records.append(
                VolumeRecord(
                    paths=(path,),
                    volume=path,
                    patient=place["sub"],
                    session=place["ses"] or "ses-",
                    modality=contrast_of(suffix),
                    site=about.get("site") or None,
                    split=splits.get(place["sub"]),
                    labels=_labels(about, config, not_numbers),
                )
            )
    if not records:
        raise FileNotFoundError(f"{root} holds no sub-*/[ses-*/]anat/*.nii.gz (source): no BIDS")
    progress(len(records), len(records))
    several = sum(len(found) > 1 for found in segmentations.values())
    records = [_with(record, segmentations) for record in records]
    notes = {
        "files_passed_over": passed_over,
        "volumes_passed_over": dict(other),
        "sessions_with_several_segmentations": several,
        "labels_not_numbers": noted(not_numbers),
    }
    return Archive(root, records, notes)


def _participants(
    root: Path, config: IngestConfig
) -> tuple[dict[str, dict[str, str]], dict[str, str | None], Counter[str]]:
    """What participants.tsv says, and the split, by participant."""
    path = root / "participants.tsv"
    if not path.is_file():
        return {}, {}, Counter()
    rows = read_table(path)
    if not rows or "participant_id" not in rows[0]:
        raise ValueError(f"{path} has no column 'participant_id': BIDS wants one")
    names = [row["participant_id"].strip() for row in rows]
    names = [name if name.startswith("sub-") else f"sub-{name}" for name in names]
    splits = given_splits(path, rows, config.volumes.columns.split, "volumes.columns")
    return (
        dict(zip(names, rows, strict=True)),
        dict(zip(names, splits, strict=True)),
        Counter(),
    )


def _labels(
    about: Mapping[str, str], config: IngestConfig, not_numbers: Counter[str]
) -> dict[str, float]:
    no_labels = {"participant_id", "site", config.volumes.columns.split}
    names = config.volumes.labels or [name for name in about if name not in no_labels]
    return numbers(about, names, not_numbers)


def _with(
    record: VolumeRecord, segmentations: dict[tuple[str, str | None], list[str]]
) -> VolumeRecord:
    """The record with its session's label map, if there is exactly one."""
    from dataclasses import replace

    session = record.session if record.session != "ses-" else None
    found = segmentations.get((record.patient, session), [])
    return replace(record, segmentation=found[0]) if len(found) == 1 else record
