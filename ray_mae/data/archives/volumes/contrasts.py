"""One name for each kind of volume, whatever the archive calls it."""

import re

UNKNOWN = "unknown"
_ALIKE = r"(?:flair|dark.?fluid|tirm)"
# "T1 FLAIR" is T1-weighted; "space-T1w_FLAIR" is a FLAIR on the grid of a T1w.
_T1_FLAIR = (
    rf"(?<!space-)t1[wn]?[ -]*(?:(?:ax|tra|sag|cor|[tf]?se|[23]d|{_ALIKE})[a-z]*[ -]+)*{_ALIKE}"
)
_POST = r"post(?![ -]*(?:op|surg|rt|treat))"  # after contrast agent, not after an operation
# The first that matches counts: T1 FLAIR before FLAIR, FLAIR before T2, contrast-enhanced before
# plain T1.
_NAMES = [
    ("FLAIR", rf"{_ALIKE}|t2f"),
    ("SWI", r"swi|suscept|t2starw?|t2\*|swan"),
    (
        "T1c",
        rf"t1w?.?(?:c|ce|gd|kat|km|\+c|{_POST}|contrast)|(?:ce|gd|{_POST}).?t1|"
        r"t1.*(?:\+ ?c\b|post(?:contrast|gad[a-z]*)|gad[a-z]*|gd|contrast)",
    ),
    ("T1w", r"t1[wn]?|mp2?.?rage|spgr|bravo|tfl3d|t1fl"),
    ("T2w", r"t2w?"),
    ("PD", r"pdw?|proton"),
    ("DWI", r"dwi|adc|diff|trace"),
    ("CT", r"ct"),
]
# What a contrast is called with contrast agent. Diffusion has none: its maps do not show it.
_WITH_AGENT = {
    "T1w": "T1c", "T2w": "T2c", "FLAIR": "FLAIRc", "PD": "PDc", "SWI": "SWIc", "CT": "CTc",
}  # fmt: skip


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9])(?:{pattern})(?![a-z])", re.IGNORECASE)


# Before a contrast: sT1W and eT2W of Philips, 3DT1.
_PREFIX = r"(?:[se]|[23]d)?"
_PATTERNS = [(name, _compile(rf"{_PREFIX}(?:{pattern})")) for name, pattern in _NAMES]
_WORDS = [(name, re.compile(f"(?:{pattern})", re.IGNORECASE)) for name, pattern in _NAMES]
_T1_WITH_FLAIR = _compile(_T1_FLAIR)

# The agent, in words of English, German, French, Italian, Spanish and Portuguese, and by product.
_AGENT = (
    r"(?:[ck]ontrast[a-z]*|gad[a-z]*|gd|gbca|km|mdc|inj[a-zé]*|"
    r"dotarem|clariscan|magnevist|multihance|prohance|primovist|eovist|omniscan|optimark|ablavar|"
    r"elucirem|vueway|ferumoxytol|feraheme)"
)
_WITHOUT_AGENT = _compile(
    r"(?:non|no|not|pre|without|w/?o|before|sans|ohne|vor|avant|sin|sem|senza|prima|s/)[ -]*"
    rf"(?:(?:any|the|de|di|iv|i\.v\.|mdc|medio) )*(?:{_AGENT}|enhance[a-z]*|ce|c)|"
    r"pre|native?|unenhanced|(?:gad[a-z]*|gd|km|ce|c)-"
)
_AGENT_GIVEN = _compile(rf"(?:post|with|w)?[ /-]*{_AGENT}|ce|post[ck]|c ?\+|\+ ?[ck]")
# Of a T1 these say as much; of another contrast they may say "after surgery" or "of better quality".
_AGENT_GIVEN_IN_T1 = _compile(rf"{_POST}|enh(?:anced)?")
_T1_LIKE = frozenset({"T1w", "T1c"})

# Kinds of volumes beyond those above that may be kept as they are: DICOM modalities, BIDS suffixes
# and what scanners compute. A list, since a column of free text may hold the names of patients.
CODES = {
    code.lower(): code
    for code in (
        "MR CT PT NM US OT MRA MRV CTA DTI ASL BOLD FA MD MTR MTS MTsat CBF CBV MTT Tmax QSM TOF STIR "
        "DIR angio UNIT1 inplaneT1 inplaneT2 PDT2 T1rho T1map T2map T2starmap R1map R2map R2starmap "
        "PDmap MTRmap T1rhomap TB1map Chimap M0map S0map T2star"
    ).split()
} | {"pet": "PT", "mri": "MR"} | {name.lower(): name for name in _WITH_AGENT.values()}  # fmt: skip


def contrast_of(words: str) -> str:
    """T1w, T1c, T2w, FLAIR, PD, SWI, DWI, CT, or one of CODES; unknown where the words name none.

    A contrast with contrast agent is T1c, T2c, FLAIRc … Words are a column's value or a file's suffix.
    What else they say is never passed on.
    """
    contrast = contrast_in(words)
    return CODES.get(words.strip().lower(), UNKNOWN) if contrast == UNKNOWN else contrast


def contrast_in(words: str, agent: bool = False) -> str:
    """As `contrast_of` without CODES, which a free description may hold by chance.

    agent: whether it is known that a contrast agent was given. Words that say there was none count more.
    """
    spaced = words.strip().replace("_", " ")
    plain = _WITHOUT_AGENT.sub(" ", spaced)
    without = plain != spaced
    plain = _T1_WITH_FLAIR.sub("T1", plain)
    contrast = next((name for name, pattern in _PATTERNS if pattern.search(plain)), UNKNOWN)
    given = _AGENT_GIVEN.search(plain) is not None
    if contrast in _T1_LIKE:
        given = given or _AGENT_GIVEN_IN_T1.search(plain) is not None
    return with_agent(contrast) if given or (agent and not without) else contrast


def with_agent(contrast: str) -> str:
    """The name of a contrast with contrast agent; itself where there is no such name."""
    return _WITH_AGENT.get(contrast, contrast)


def is_agent(value: str) -> bool:
    """Whether a field for the contrast agent (ContrastBolusAgent, BIDS' ce-) names one."""
    word = value.strip().lower()
    return bool(word) and not _NO_AGENT.fullmatch(word)


_NO_AGENT = re.compile(
    r"[-. ]*|0+(?:[.,]0+)?(?: ?ml)?|n/?a|n|no|none?|null|nil|unknown|false|"
    r"non[- ]?contrast.*|(?:no|without|w/?o|ohne|sans|sin|sem|senza|pre)\b.*|nativ[a-z]*|unenhanced|"
    r"oral.*",
)


def is_contrast(word: str) -> bool:
    """Whether a word is the name of a contrast, and nothing else: CT is, CT001 is not."""
    return word.lower() in CODES or any(pattern.fullmatch(word) for _, pattern in _WORDS)
