"""Quarantine: why an image, a study or a volume is not used.

A reason is a short code to count; a detail beside it is for reading. What cannot be used is raised as
QuarantineError and written as QuarantineRow.
"""

import re
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

QUARANTINE_REASONS = {
    "missing": "there is no such file",
    "unreadable": "the file system refused to read the file",
    "not-dicom": "the file in a DICOM folder is not DICOM",
    "not-an-image": "the file is no PNG, JPEG or DICOM image",
    "modality": "the DICOM file is not a projection image (CT, MR, a report …)",
    "no-pixels": "the DICOM file holds no pixels",
    "too-large": "more pixels or bytes than max_pixels allows; refused before memory is taken",
    "multi-frame": "several frames in one file: a sequence or a volume, not a view",
    "undecodable": "the pixels cannot be decoded, or contradict the file's own header",
    "decoder-ended": "the decoder crashed, took too long or found no memory, twice: the file, or the node",
    "constant": "all pixels have the same value",
    "secondary-capture": "a scanned form, a drawing or a screenshot; secondary_captures keeps it",
    "for-processing": "a detector's raw values beside the picture made of them; for_processing keeps it",
    "body-part": "the header names another part of the body than body_parts wants, or a phantom",
    "elongated": "longer than max_aspect times its width: a strip, a ruler, a part of a film",
    "duplicate": "the same image (SOPInstanceUID, or path) was listed before",
    "burned-in": "the header does not deny text burned into the pixels, often a name; burned_in keeps it",
    "excluded": "the archive itself marks the image as not to be used",
    "damaged-row": "the table's row cannot be read: a quote or a delimiter too many, a NUL, too long",
    "not-text": "half of a character (a lone surrogate) in what the archive says of it",
    "other-store": "the table names a URL in a store that neither source nor `stores` names",
    "no-patient": "no patient identifier, so no split can be kept apart by patient: a table of --reports"
    " with the columns study and patient brings it",
    "no-sections": "the report has neither findings nor an impression",
    "name-found": "a detector finds a name in the report, or a person withholds it: see names_to_review.csv",
    "no-study": "no study identifier",
    "patient-conflict": "the study is listed under more than one patient",
    "split-conflict": "the archive puts the patient into more than one split",
    "too-many-images": "the study has more images than max_views",
    "no-usable-image": "none of the study's images could be used",
    # volumes
    "not-a-volume-file": "the file is no NIfTI or MGH volume",
    "four-dimensional": "several volumes in one file (time, echoes, directions, colours)",
    "non-finite": "some values are infinite or no numbers",
    "wrong-range": "a handful of values (a mask or label map), or some absurdly far from the rest",
    "too-few-slices": "fewer slices along one axis than volumes.min_slices",
    "implausible-size": "spacing or extent that no scan of a person has",
    "no-anatomy": "nothing solid in the foreground: noise, a grid, an empty skull",
    "no-series": "no series identifier",
    "no-geometry": "position, orientation or pixel spacing is missing or impossible",
    "mixed-sizes": "slices of different sizes or pixel spacings in one series",
    "mixed-orientations": "slices of different orientations in one series: a localizer, or several scans",
    "repeated-positions": "several slices at one position: several echoes, phases or scans in one series",
    "missing-slices": "the slices of the series are not evenly spaced: some are missing",
    "gantry-tilt": "the slices are shifted against each other: a tilted gantry",
    "sheared": "the axes of the volume are not at right angles",
    "localizer": "the series is a localizer",
    "other-modality": "a modality that volumes.modalities or the archive's layout leaves out",
    "wrong-mask": "the mask of volumes.face_mask is empty, or holds all of the volume",
    "label-map": "a label map or a mask, by its name, its folder or its flat regions of whole numbers",
    "no-magnitude": "the phase, the real or the imaginary part of a signal: no picture of anatomy",
    "subtraction": "a subtraction map: the difference of two scans",
    "other-format": "a volume in a format that is not read: the detail says how to convert it",
    "low-quality": "the archive's own score is above volumes.max_quality_score",
    "derived": "computed from another scan of the archive (volumes.derived)",
}

TRANSIENT_REASONS = frozenset({"missing", "unreadable", "decoder-ended"})
"""Reasons that may be gone when the job is started again: the shards with them are written anew."""
MOST_STARTS = {"decoder-ended": 3}
"""At how many starts, by reason: a file at which every decoder ends is no reason to go on for ever."""


class QuarantineError(Exception):
    """An image, study or volume that goes to the quarantine table. It never stops the job.

    Args:
        reason: one of QUARANTINE_REASONS.
        detail: what to know besides, in words that name no person. 300 characters of it are kept.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in QUARANTINE_REASONS, reason
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail[:300]

    def __reduce__(self) -> tuple[type["QuarantineError"], tuple[str, str]]:
        # an exception's own would pass on its message
        return type(self), (self.reason, self.detail)


# A quote begins and ends outside of words: the one in "doesn't" does neither.
_QUOTED = re.compile(r"""(?<!\w)b?(?:'.*?(?:'(?!\w)|$)|".*?(?:"(?!\w)|$)|`.*?(?:`|$))""")


def error_text(error: BaseException) -> str:
    """Type and message of an error, less what it quotes: libraries quote headers, even names."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {_QUOTED.sub('…', message)}"


def undecodable(error: BaseException, where: str = "") -> QuarantineError:
    """The quarantine error for a reader's error.

    Where memory was short, that is no verdict on the file: the reason is then decoder-ended.
    """
    reason = "decoder-ended" if isinstance(error, MemoryError) else "undecodable"
    return QuarantineError(reason, where + error_text(error))


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One row of the quarantine table."""

    kind: Literal["image", "study", "volume", "report"]
    path: str | None
    """Relative to the source, null for a study or its report; of a DICOM series its first file. Paths
    often hold names or numbers of patients: the quarantine table stays with the owner of the archive, the
    shards never carry a path."""
    sample_id: str | None
    """Pseudonym of the study or volume; null where it is not known."""
    reason: str
    detail: str


QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("sample_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
