"""What kind of picture a DICOM file holds, and of what, as far as its header says.

Whether text is burned in, a form or a screenshot, a detector's raw values, the part of the body, the view.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset

from ray_mae.data.decoding.body_parts import UNKNOWN, body_part_of
from ray_mae.data.decoding.views import position_of, view_from_orientation, view_of
from ray_mae.data.decoding.words import plain

DESCRIPTIONS = ["SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription"]
VIEW_TAGS = ["ViewPosition", "ViewCodeSequence", "PatientOrientation", *DESCRIPTIONS]
# What kind of a picture it is, and of what.
CONTENT_TAGS = [
    "BurnedInAnnotation", "ConversionType", "ImageType", "PresentationIntentType",
    "BodyPartExamined", "AnatomicRegionSequence", "StudyDescription", "QualityControlImage",
]  # fmt: skip

# Of a detector's own values: X-ray, mammography, intraoral.
FOR_PROCESSING_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.1.{n}.1" for n in (1, 2, 3))
SECONDARY_CAPTURE = r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.7(\.[1-4])?"
# Of ConversionType (PS3.3 C.8.6.1) those that no exposure comes in by.
CONVERSIONS = {"SD": "a scanned document", "DRW": "a drawing", "SYN": "a synthetic picture"}
SCREENSHOT = re.compile(
    r"\bscreen[ _-]?(save|shot|cap\w*|grab|dump|copy|image)|\bsnap ?shot|\bbildschirm|\bcapture d.ecran"
)
DOCUMENT = re.compile(
    r"\b(scanned (doc\w*|form|page)|document|consent|requisition|questionnaire|formular|anforderung)\b"
)
# What a class of files says of the body part.
PARTS_BY_CLASS = {
    **{f"1.2.840.10008.5.1.4.1.1.1.2{end}": "breast" for end in ("", ".1")},
    **{f"1.2.840.10008.5.1.4.1.1.1.3{end}": "tooth" for end in ("", ".1")},
}
# Views of CID 4010 by code (SNOMED CT, and the older SNOMED RT), whatever language names them.
VIEW_CODES = {
    "399033003": "frontal", "399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-10214": "PA",
    "399067008": "lateral", "399173006": "left lateral", "R-10236": "left lateral",
    "399198007": "right lateral", "R-10232": "right lateral", "399182000": "oblique",
}  # fmt: skip


def _term(ds: Dataset, tag: str) -> str:
    """A tag's value as one upper-case term."""
    return str(ds.get(tag) or "").strip().upper()


def burned_in(ds: Dataset) -> bool:
    """Whether the header does not deny that text is burned into the pixels: all but NO or nothing."""
    return _term(ds, "BurnedInAnnotation") not in ("", "NO")


def _sop_class(ds: Dataset) -> str:
    return str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID") or "")


def for_processing(ds: Dataset) -> bool:
    """Whether the pixels are a detector's values, of which a picture to look at is made elsewhere."""
    return (
        _term(ds, "PresentationIntentType") == "FOR PROCESSING"
        or _sop_class(ds) in FOR_PROCESSING_CLASSES
    )


def capture_of(ds: Dataset) -> str:
    """What says that this is a scanned form, a drawing or a screenshot, "" if nothing does.

    Radiographs are converted to secondary captures as well: those are films that were digitised, and
    those whose header names the view of an exposure.
    """
    description = plain(str(ds.get("SeriesDescription") or ""))
    if SCREENSHOT.search(plain(" ".join(values_of(ds.get("ImageType"))))):
        return "a screenshot by ImageType"
    if SCREENSHOT.search(description) or DOCUMENT.search(description):
        return "a screenshot or a document by SeriesDescription"
    conversion, modality = _term(ds, "ConversionType"), _term(ds, "Modality")
    if conversion in CONVERSIONS:
        return f"{CONVERSIONS[conversion]} by ConversionType {conversion}"
    secondary = re.fullmatch(SECONDARY_CAPTURE, _sop_class(ds)) or modality == "SC"
    if secondary and conversion != "DF" and _named_view(ds) is None:
        return "a Secondary Capture that names no view"
    return ""


def values_of(value: Any) -> list[str]:
    """The values of a tag that may have none, one or several."""
    several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return [str(each) for each in value] if several else [str(value or "")]


def body_part_in(ds: Dataset) -> str:
    if _term(ds, "QualityControlImage") == "YES":
        return "phantom"
    codes = [str(item.get("CodeMeaning") or "") for item in ds.get("AnatomicRegionSequence") or []]
    texts = [str(ds.get(tag) or "") for tag in ("BodyPartExamined", *DESCRIPTIONS[:2])]
    part = body_part_of(PARTS_BY_CLASS.get(_sop_class(ds), ""), *codes, *texts)
    # A study may hold images of other parts, too: its description counts where nothing else does.
    return part if part != UNKNOWN else body_part_of(str(ds.get("StudyDescription") or ""))


def view_in(ds: Dataset) -> tuple[str, str | None, bool]:
    """The view by the most reliable tag that names one, its words, and whether those were understood."""
    if named := _named_view(ds):
        return *named, True
    understood = not (ds.get("ViewPosition") or ds.get("ViewCodeSequence"))
    for tag in DESCRIPTIONS:
        text = str(ds.get(tag) or "")
        if view := view_of(text):
            return view, position_of(text), True
    return "unknown", None, understood


def _named_view(ds: Dataset) -> tuple[str, str | None] | None:
    """The view and its words by the tags that are there to name it."""
    items = ds.get("ViewCodeSequence") or []
    codes = [str(item.get("CodeMeaning") or "") for item in items]
    for text in [str(ds.get("ViewPosition") or ""), *codes]:
        if view := view_of(text):
            return view, position_of(text)
    for item in items:
        if text := VIEW_CODES.get(str(item.get("CodeValue") or "").strip(), ""):
            return view_of(text) or "unknown", position_of(text)
    if view := view_from_orientation(ds.get("PatientOrientation")):
        return view, None
    return None
