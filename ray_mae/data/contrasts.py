"""One name for each kind of volume, whatever the archive calls it."""

import re

UNKNOWN = "unknown"
# The first that matches counts: FLAIR before T2, contrast-enhanced before plain T1.
_NAMES = [
    ("FLAIR", r"flair|dark.?fluid|tirm|t2f"),
    ("SWI", r"swi|suscept|t2starw?|t2\*|swan"),
    (
        "T1c",
        r"t1.?(c|ce|gd|kat|\+c|post|contrast)|(ce|gd|post).?t1|t1.*(\+ ?c\b|post|gad|contrast)",
    ),
    ("T1w", r"t1[wn]?|mp2?.?rage|spgr|bravo|tfl3d|t1fl"),
    ("T2w", r"t2w?"),
    ("PD", r"pdw?|proton"),
    ("DWI", r"dwi|adc|diff|trace"),
    ("CT", r"ct"),
]
_PATTERNS = [(n, re.compile(rf"(?<![a-z0-9])({p})(?![a-z])", re.IGNORECASE)) for n, p in _NAMES]


def contrast_of(words: str) -> str:
    """T1w, T1c, T2w, FLAIR, PD, SWI, DWI or CT where the words name one; else the words as they are.

    Words are a column's value, a file's suffix or the name of a DICOM series; "" gives unknown.
    """
    spaced = words.strip().replace("_", " ")
    for name, pattern in _PATTERNS:
        if pattern.search(spaced):
            return name
    return words.strip() or UNKNOWN


def contrast_in(words: str) -> str:
    """As `contrast_of`, but unknown where the words, a free description, name none."""
    found = contrast_of(words)
    return found if found in {name for name, _ in _NAMES} else UNKNOWN
