"""A BIDS data set: sub-*/[ses-*/]anat/*_SUFFIX.nii.gz, with participants.tsv beside it.

https://bids-specification.readthedocs.io: the suffix names the contrast. A label map (*_dseg) of a
session, in the data set or in derivatives, belongs to all its images, as far as it lies in their
space: without the entity space- it lies where the session was scanned. The entity ce- names a contrast
agent; part- other than mag is no picture of anatomy. Of participants.tsv only the columns that
volumes.labels and attributes name are taken, of the images' JSON files what attributes names of the scanner.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader
from ray_mae.data.archives.folders import (
    counts_above_zero,
    number_columns,
    read_numbers,
    stem_of,
    volume_files,
)
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.tables import TableRow, given_splits, nearest, read_table
from ray_mae.data.archives.volumes.bids_sidecars import KEYS, Sidecars
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_of, is_agent, with_agent
from ray_mae.data.archives.volumes.exclusions import check_name
from ray_mae.data.paths import local_file
from ray_mae.data.quarantine import QuarantineError

_IMAGE_PATH = re.compile(r"(?:^|/)(?P<sub>sub-[^/_]+)/(?:(?P<ses>ses-[^/_]+)/)?anat/[^/]+$")
_SPACE = re.compile(r"_space-([^_]+)_")
_AGENT = re.compile(r"_ce-([^_]+)(?=_)", re.IGNORECASE)
SEGMENTATION = "dseg"
PARTICIPANT = "participant_id"
PERSONAL = ("sex", "age")
"""Attributes that participants.tsv says."""
# Suffixes in anat/ that are no images.
NO_IMAGES = frozenset({SEGMENTATION, "mask", "defacemask", "probseg"})
OTHER_NAMES = {"label-map": "label map", "no-magnitude": "phase, real or imaginary part"}
# Suffixes and folders that may be named in the summary; any other may be a part of a name.
KNOWN_SUFFIXES = NO_IMAGES | frozenset(
    "bold sbref epi dwi cbv phase magnitude magnitude1 magnitude2 phasediff phase1 phase2 fieldmap "
    "asl m0scan pet".split()
)
KNOWN_FOLDERS = frozenset({"derivatives", "sourcedata", "rawdata", "code", "stimuli", "phenotype"})


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the anatomical images. FileNotFoundError if it is no BIDS folder, or has none."""
    root, files, passed_over, others = volume_files(config)
    people = _Participants.of(root, config)
    attributes = AttributeReader(config.attributes)
    sidecars = Sidecars(root) if KEYS.keys() & set(config.attributes) else None
    not_numbers: Counter[str] = Counter()
    other: Counter[str] = Counter()
    records: list[VolumeRecord] = []
    segmentations: dict[tuple[str, str, str], list[str]] = {}
    for path in files:
        match, suffix = _IMAGE_PATH.search(path), stem_of(path).split("_")[-1]
        raw = path.startswith("sub-")
        session = (match["ses"] or "ses-") if match else ""
        if match and suffix == SEGMENTATION:
            where = (match["sub"], session, _space(path))
            segmentations.setdefault(where, []).append(path)
        elif not (match and raw) or suffix in NO_IMAGES:
            other[_kind(path, suffix, raw)] += 1
        elif problem := _problem(path):
            other[OTHER_NAMES.get(problem, problem)] += 1
        else:
            about = people.rows.get(match["sub"], {})
            cells = {name: about.get(column, "") for name, column in people.attributes.items()}
            cells |= sidecars.cells(path) if sidecars else {}
            records.append(
                VolumeRecord(
                    paths=(path,),
                    volume=path,
                    patient=match["sub"],
                    session=session,
                    modality=_modality(path, suffix),
                    site=about.get("site") or None,
                    split=people.splits.get(match["sub"]),
                    labels=read_numbers(about, config.volumes.labels, not_numbers),
                    attributes=attributes.read(cells),
                )
            )
    if not records:
        raise FileNotFoundError(f"{root} holds no sub-*/[ses-*/]anat/*.nii.gz (source): no BIDS")
    people.check({record.patient for record in records}, config)
    progress(len(records), len(records))
    image_keys = {_where(record) for record in records}
    records = [_with(record, segmentations) for record in records]
    notes = {
        "files_passed_over": passed_over,
        "volumes_passed_over": dict(other),
        "sessions_with_several_segmentations": sum(
            len(paths) > 1 and where in image_keys for where, paths in segmentations.items()
        ),
        "segmentations_in_another_space": sum(
            len(paths)
            for where, paths in segmentations.items()
            if where not in image_keys and where[2]
        ),
        "labels_not_numbers": counts_above_zero(not_numbers),
        "columns_of_numbers": people.columns_of_numbers,
        **people.notes({record.patient for record in records}),
        **attributes.notes(),
        **(sidecars.notes() if sidecars else {}),
    }
    return Archive(root, records + others, notes)


def _problem(path: str) -> str | None:
    """The reason why the name of an image says that it is none, None if it does not."""
    try:
        check_name(stem_of(path))
    except QuarantineError as problem:
        return problem.reason
    return None


def _modality(path: str, suffix: str) -> str:
    """The contrast of the suffix, with contrast agent where the entity ce- names one."""
    agent = _AGENT.search(Path(path).name)
    contrast = contrast_of(suffix)
    return with_agent(contrast) if agent and is_agent(agent[1]) else contrast


def _space(path: str) -> str:
    """The space that the file's name says it was moved into, "" if it says none."""
    match = _SPACE.search(Path(path).name)
    return match[1] if match else ""


def _kind(path: str, suffix: str, raw: bool) -> str:
    """What the summary calls a volume that is passed over: only words of BIDS."""
    if not raw:
        folder = path.split("/")[0]
        return folder if folder in KNOWN_FOLDERS else "other folder"
    contrast = contrast_of(suffix)
    known = suffix if suffix in KNOWN_SUFFIXES else contrast
    return "other suffix" if known == UNKNOWN else known


@dataclass(frozen=True)
class _Participants:
    """What participants.tsv says, by participant."""

    path: Path
    rows: Mapping[str, TableRow]
    splits: Mapping[str, str | None]
    columns_of_numbers: list[str]
    repeated: int
    """Rows of participants who have one before."""
    attributes: Mapping[str, str]
    """Columns of those that are asked for, by attribute."""

    @classmethod
    def of(cls, root: Path, config: IngestConfig) -> "_Participants":
        """The table of this data set; nothing if there is none."""
        path, columns = root / "participants.tsv", config.volumes.columns
        asked: dict[str, str] = {n: getattr(columns, n) for n in PERSONAL if n in config.attributes}
        settings = dict.fromkeys(asked.values(), "attributes")
        settings |= dict.fromkeys(config.volumes.labels, "volumes.labels")
        wanted, split = list(settings), columns.split
        if not path.is_file():
            if wanted:
                asking = " and ".join(sorted(set(settings.values())))
                raise ValueError(f"{path} is missing: {asking} names columns of it")
            return cls(path, {}, {}, [], 0, asked)
        _check_columns(path, {PARTICIPANT, "site", *wanted} | ({split} if split else set()))
        rows = read_table(path)
        if not rows or PARTICIPANT not in rows[0]:
            raise ValueError(f"{path} has no column {PARTICIPANT!r}: BIDS wants one")
        for name, setting in settings.items():
            if name not in rows[0]:
                raise ValueError(
                    f"{path} has no column {name!r} ({setting}); it has {nearest(name, list(rows[0]))}"
                )
        splits = given_splits(path, rows, split, "volumes.columns")
        by_name: dict[str, TableRow] = {}
        split_of: dict[str, str | None] = {}
        for row, of_row in zip(rows, splits, strict=True):
            name = row[PARTICIPANT].strip()
            name = name if name.startswith("sub-") else f"sub-{name}"
            first = by_name.setdefault(name, row)
            split_of.setdefault(name, of_row)
            for column in wanted:
                if first.get(column) != row.get(column):
                    raise ValueError(
                        f"{path}: {name} has several rows with different {column!r} ({settings[column]}): "
                        "keep one row of each participant"
                    )
        others = {PARTICIPANT, "site", split}
        numbers = [name for name in number_columns(rows) if name not in others]
        return cls(path, by_name, split_of, numbers, len(rows) - len(by_name), asked)

    def check(self, subjects: set[str], config: IngestConfig) -> None:
        """Raise ValueError if something of them is wanted and the table knows none of the subjects."""
        wanted = config.volumes.labels or self.attributes
        if wanted and not subjects & self.rows.keys():
            one, other = min(subjects), next(iter(self.rows), "nobody")
            raise ValueError(
                f"{self.path} knows none of the {len(subjects):,} subjects, such as {one}, and speaks of "
                f"{len(self.rows):,} others, such as {other}: no image would have what "
                "volumes.labels and attributes ask for; write the folders' names into participant_id"
            )

    def notes(self, subjects: set[str]) -> dict[str, int]:
        """How many of the subjects and of the table's rows have no other half."""
        if not self.rows:
            return {}
        return {
            "subjects_without_participants_row": len(subjects - self.rows.keys()),
            "participants_without_images": len(self.rows.keys() - subjects),
            "participants_repeated": self.repeated,
        }


def _check_columns(path: Path, names: set[str]) -> None:
    """Raise ValueError if one of the columns that are read is there twice: which one is meant?"""
    with local_file(path) as file, file.open(encoding="utf-8-sig", errors="replace") as lines:
        header = [name.strip('"') for name in lines.readline().rstrip("\r\n").split("\t")]
    for name, times in Counter(header).items():
        if times > 1 and name in names:
            raise ValueError(f"{path} has {times} columns {name!r}: keep one of them")


def _where(record: VolumeRecord) -> tuple[str, str, str]:
    """What a label map must share with an image to belong to it: person, session and space."""
    return record.patient, record.session or "", _space(record.volume)


def _with(
    record: VolumeRecord, segmentations: Mapping[tuple[str, str, str], list[str]]
) -> VolumeRecord:
    """The record with its label map, if there is exactly one."""
    paths = segmentations.get(_where(record), [])
    return replace(record, segmentation=paths[0]) if len(paths) == 1 else record
