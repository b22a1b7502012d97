"""One name for each kind of volume, whatever the archive calls it."""

import re

UNKNOWN = "unknown"
_ALIKE = r"(?:flair|dark.?fluid|tirm)"
# "T1 FLAIR" is T1-weighted; "space-T1w_FLAIR" is a FLAIR on the grid of a T1w.
_T1_FLAIR = (
    rf"(?<!space-)t1[wn]?[ -]*(?:(?:ax|tra|sag|cor|[tf]?se|[23]d|{_ALIKE})[a-z]*[ -]+)*{_ALIKE}"
)
# The first that matches counts: T1 FLAIR before FLAIR, FLAIR before T2, contrast-enhanced before
# plain T1.
_NAMES = [
    ("FLAIR", rf"{_ALIKE}|t2f"),
    ("SWI", r"swi|suscept|t2starw?|t2\*|swan"),
    (
        "T1c",
        r"t1.?(?:c|ce|gd|kat|\+c|post|contrast)|(?:ce|gd|post).?t1|"
        r"t1.*(?:\+ ?c\b|post(?:contrast|gad[a-z]*)?|gad[a-z]*|gd|contrast)",
    ),
    ("T1w", r"t1[wn]?|mp2?.?rage|spgr|bravo|tfl3d|t1fl"),
    ("T2w", r"t2w?"),
    ("PD", r"pdw?|proton"),
    ("DWI", r"dwi|adc|diff|trace"),
    ("CT", r"ct"),
]


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9])(?:{pattern})(?![a-z])", re.IGNORECASE)


_PATTERNS = [(name, _compile(pattern)) for name, pattern in _NAMES]
_WORDS = [(name, re.compile(f"(?:{pattern})", re.IGNORECASE)) for name, pattern in _NAMES]
_T1_WITH_FLAIR = _compile(_T1_FLAIR)
_AGENT = r"(?:contrast|kontrast[a-z]*|gad[a-z]*|gd|km|ce|c)"
_WITHOUT_AGENT = _compile(
    rf"(?:non|no|pre|without|w/?o|before|sans|ohne)[ -]*(?:(?:any|the|iv) )?{_AGENT}|pre"
)

# Kinds of volumes beyond those above that may be kept as they are: DICOM modalities, BIDS suffixes
# and what scanners compute. A list, since a column of free text may hold the names of patients.
CODES = {
    code.lower(): code
    for code in (
        "MR CT PT NM US OT MRA MRV CTA DTI ASL BOLD FA MD MTR MTS MTsat CBF CBV MTT Tmax QSM TOF STIR "
        "DIR angio UNIT1 inplaneT1 inplaneT2 PDT2 T1rho T1map T2map T2starmap R1map R2map R2starmap "
        "PDmap MTRmap T1rhomap TB1map Chimap M0map S0map T2star"
    ).split()
} | {"pet": "PT", "mri": "MR"}


def contrast_of(words: str) -> str:
    """T1w, T1c, T2w, FLAIR, PD, SWI, DWI, CT, or one of CODES; unknown where the words name none.

    Words are a column's value or a file's suffix. What else they say is never passed on.
    """
    contrast = contrast_in(words)
    return CODES.get(words.strip().lower(), UNKNOWN) if contrast == UNKNOWN else contrast


def contrast_in(words: str) -> str:
    """As `contrast_of` without CODES, which a free description may hold by chance."""
    spaced = words.strip().replace("_", " ")
    spaced = _WITHOUT_AGENT.sub(" ", spaced)
    spaced = _T1_WITH_FLAIR.sub("T1", spaced)
    return next((name for name, pattern in _PATTERNS if pattern.search(spaced)), UNKNOWN)


def is_contrast(word: str) -> bool:
    """Whether a word is the name of a contrast, and nothing else: CT is, CT001 is not."""
    return word.lower() in CODES or any(pattern.fullmatch(word) for _, pattern in _WORDS)
