"""Records: one per image or volume of an archive, before any pixel is read."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from ray_mae.data.disk_list import DiskList
from ray_mae.data.labels import CHEXPERT_LABELS
from ray_mae.data.quarantine import QuarantineError

NOT_TEST = "train or val"
"""The split of a patient whom an archive without validation patients has put outside its test split:
the hash takes some of them for validation."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of an archive, with what the archive says about its study."""

    path: str
    """Relative to the archive's root, or absolute where a table says so."""
    study: str
    """The archive's own identifier, "" if there is none. Never leaves the driver unpseudonymised."""
    patient: str
    """The archive's own identifier, "" if there is none."""
    view: str
    """frontal, lateral or unknown."""
    position: str | None = None
    """The archive's own words for the position."""
    text: str | None = None
    """The report as it is, headers and all."""
    labels: tuple[int, ...] | None = None
    """A state for each of the archive's label_names, see ray_mae.data.labels; None: not labelled."""
    other_labels: tuple[str, ...] = ()
    """The archive's own names of findings that are none of these."""
    attributes: dict[str, Any] | None = None
    """See ray_mae.data.archives.attributes."""
    split: str | None = None
    """train, val, test, NOT_TEST, or None where the archive leaves it open."""
    year: int | None = None
    """Of the study's date."""
    instance: str | None = None
    """Identifier of the image (SOPInstanceUID), to find what is there twice."""
    problem: QuarantineError | None = None
    """What is already known to be wrong with it."""

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), _in_order(self)  # a DiskList pickles millions


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """One volume of an archive. Paths are relative to the archive's root, or absolute."""

    paths: tuple[str, ...]
    """One file, or the DICOM files of one series."""
    volume: str
    """The archive's own identifier, never empty."""
    patient: str
    """The archive's own identifier, "" if there is none. Never leaves the driver unpseudonymised."""
    modality: str
    """See ray_mae.data.archives.volumes.contrasts."""
    session: str | None = None
    """Volumes of one session are of one visit."""
    site: str | None = None
    """The archive's own word for where it was taken."""
    split: str | None = None
    """train, val, test, or None where the archive leaves it open."""
    valid: str | None = None
    """A mask: other than 0 where the voxels are valid."""
    anonymised: str | None = None
    """A mask: other than 0 where the voxels were changed to hide the person: not valid."""
    anatomy: str | None = None
    """A mask: other than 0 where the anatomy is. Without it the foreground is found."""
    segmentation: str | None = None
    """A label map."""
    attributes: dict[str, Any] | None = None
    """See ray_mae.data.archives.attributes; its site counts where the field has none."""
    face: str | None = None
    """A mask by which the face is taken out: of the face, or of the brain; see volumes.faces."""
    said_of_face: str | None = None
    """head or defaced, where the archive says whether somebody can be recognised."""
    labels: dict[str, float] = field(default_factory=dict)
    problem: QuarantineError | None = None
    """What is already known to be wrong with it."""


_in_order = attrgetter(*(field.name for field in fields(ImageRecord)))

R = TypeVar("R", ImageRecord, VolumeRecord)


@dataclass(frozen=True)
class Archive(Generic[R]):
    """A whole archive, listed."""

    root: Path
    """Absolute, since workers may have another working folder."""
    records: list[R] | DiskList[R]
    """In the archive's own order (by row, or by path). On disk where an archive has no bounds."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Counts that belong into the summary: label names not mapped, files passed over …"""
    warnings: list[str] = field(default_factory=list)
    """For whoever runs the job, and for the terminal alone: they may name files and patients."""
    label_names: tuple[str, ...] = CHEXPERT_LABELS
    """Of the states of studies, in their order."""


Progress = Callable[[int, int], None]
"""Shows how far a listing is: files done, files in all."""
