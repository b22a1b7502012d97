"""Files that are no scans, by what their names or headers say: label maps, phase images, subtractions."""

import re
from collections.abc import Iterable

from ray_mae.data.archives.volumes.contrasts import is_contrast
from ray_mae.data.quarantine import QuarantineError

_TOKEN = re.compile(r"[^-_ .+/]+")
# Of label maps and masks: aligned_seg35, T1_synthseg, brain_mask. Before a contrast they are part of another
# name, as in VS-SEG-001_T1.
_LABEL_MAP = re.compile(
    r"[a-z]*(?:seg|masks?)|seg\d{1,2}|segm|segs|segmentations?|labels?\d*|labelmaps?|lbls?|"
    r"groundtruth|annotations?",
    re.IGNORECASE,
)
# FreeSurfer's aparc+aseg, wmparc, lh.hippoAmygLabels-T1; the shares of tissues that SPM (c1T1, mwp1T1) and
# FSL (T1_pve_0) make.
_LABEL_MAP_ANYWHERE = re.compile(
    r"parc|parcellations?|[a-z]*aparc[a-z0-9]*|wmparc|ribbon|hippoamyglabels|[a-z]+nuclei|pve|"
    r"(?:r?c|m?w?r?(?:wc|wp))[1-6](?:t[12]|flair|mprage|sub|s\d).*",
    re.IGNORECASE,
)
# Of these the last word of a name alone counts: elsewhere they may say where or when.
_LABEL_MAP_AT_END = frozenset(
    "roi rois voi gt lesion lesions tumor tumour wmh jacobian probability gm csf".split()
)
_LABEL_FOLDERS = frozenset(
    "labelstr labelsts labelsval labels label masks mask seg segs segmentation segmentations".split()
)
_PART = {
    "phase": "phase", "ph": "phase", "pha": "phase", "real": "real", "re": "real",
    "imag": "imaginary", "im": "imaginary", "imaginary": "imaginary",
}  # fmt: skip
# Phases of the blood, not of the signal: they are scans.
_VASCULAR = frozenset(
    "arterial venous portal portovenous delayed late early equilibrium hepatobiliary excretory "
    "nephrographic corticomedullary parenchymal blood contrast transitional pancreatic".split()
)
_SUBTRACTION = re.compile(
    r"subtract(?:ion|ed)?s?|subtr|subtraktion|soustraction|sustracci[oó]n|sottrazione|subtra[cç][aã]o",
    re.IGNORECASE,
)
# In a description "SUB: T1" and "T1_sub", but neither sub-01 nor sub_01.
_SUB = re.compile(r"(?<![a-z0-9])subs?(?![a-z0-9]|[-_ ]*\d|-)", re.IGNORECASE)


def label_map_in(path: str) -> bool:
    """Whether the name of a file without suffix says that it is a label map or a mask."""
    tokens = _TOKEN.findall(path.rpartition("/")[2])
    at_end = tokens[-1].lower() in _LABEL_MAP_AT_END if tokens else False
    last = max((i for i, token in enumerate(tokens) if is_contrast(token)), default=-1)
    named = any(_LABEL_MAP.fullmatch(token) for token in tokens[last + 1 :])
    return at_end or named or any(map(_LABEL_MAP_ANYWHERE.fullmatch, tokens))


def in_label_folder(path: str) -> bool:
    """Whether a file lies in a folder of label maps."""
    return any(folder.lower() in _LABEL_FOLDERS for folder in path.split("/")[:-1])


def part_in(stem: str) -> str | None:
    """phase, real or imaginary: the part of a complex signal that a file's name says it holds.

    BIDS writes part-phase anywhere; dcm2niix and others put the word at the end.
    """
    tokens = [token.lower() for token in _TOKEN.findall(stem)]
    for before, token in zip(["", *tokens], tokens, strict=False):
        if before == "part" and token in _PART:
            return _PART[token]
    before, last = ["", "", *tokens][-2:]
    if last in ("phase", "ph", "pha", "real", "imag", "imaginary") and before not in _VASCULAR:
        return _PART[last]
    return None


def check_name(stem: str) -> None:
    """Raise QuarantineError if the name of a file without suffix says that it is no scan."""
    if label_map_in(stem):
        raise QuarantineError("label-map", "by its name")
    if part := part_in(stem):
        raise QuarantineError("no-magnitude", f"{part}, by its name")
    tokens = _TOKEN.findall(stem)
    at_end = len(tokens) > 1 and tokens[-1].lower() == "sub"
    if at_end or any(map(_SUBTRACTION.fullmatch, tokens)):
        raise QuarantineError("subtraction", "by its name")


def check_description(words: str, image_type: Iterable[str]) -> None:
    """Raise QuarantineError if the words of a DICOM series, or its ImageType, say that it is no scan.

    The third value of ImageType is the part of the complex signal (PS3.3 C.8.3.1.1.1), for some makers
    a later one.
    """
    values = [value.strip().upper() for value in image_type]
    if any("SUBTRACT" in value or value == "SUB" for value in values[2:]):
        raise QuarantineError("subtraction", "by ImageType")
    if _SUBTRACTION.search(words) or _SUB.search(words):
        raise QuarantineError("subtraction", "by its description")
    parts = {"P": "phase", "PHASE": "phase", "PHASE MAP": "phase", "R": "real", "REAL": "real",
             "I": "imaginary", "IMAGINARY": "imaginary"}  # fmt: skip
    if part := next((parts[value] for value in values[2:] if value in parts), None):
        raise QuarantineError("no-magnitude", f"{part}, by ImageType")
    if "SEGMENTATION" in values[2:]:
        raise QuarantineError("label-map", "by ImageType")
