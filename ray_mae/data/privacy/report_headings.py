"""Headings of a radiology report: their words, as they should be and as they are typed."""

import re
from functools import lru_cache

_AND = r"[ \t]*(?:\band\b|/|&)[ \t]*"
FINDINGS = (
    rf"findings?(?:{_AND}(?:impressions?|conclusions?))?"
    r"|befunde?(?: und beurteilung)?|hallazgos|r[ée]sultats?|reperti|referto|achados|bevindingen"
)
IMPRESSION = (
    rf"(?:final )?impressions?(?:{_AND}(?:recommendations?|plan|conclusions?))?|imp|conclusions?"
    r"|summary|beurteilung|zusammenfassung|impresi[oó]n(?: diagn[oó]stica)?|conclusi[oó]n(?:es)?"
    r"|conclusioni|conclus[aã]o|impress[aã]o|conclusie"
)
ASSESSMENT = rf"opinion|assessment(?:{_AND}plan)?|(?:final )?diagnosis"
CIRCUMSTANCES = r"exam(?:ination)?s?|study|views?"
"""Below an empty FINDINGS they may say how it was looked at, and what was seen follows."""
REMARK = r"(?:[ \t]*\([^()\n]{0,60}\))?"
"""After a header, as in IMPRESSION (PRELIMINARY)."""

# ------------------------------------------------------------------------ the name of the examination

_IMAGES = (
    r"(?:views?|films?|radiographs?|x-?rays?|images?|projections?|exam(?:ination)?s?|stud(?:y|ies)"
    r"|series|chest|cxr|abdomen|kub|portable)"
)
_WORDS = (
    r"(?:chest|thorax|lungs?|abdomen|abdominal|kub|cxr|pelvis|ribs?|hands?|wrists?|elbows?|shoulders?"
    r"|humerus|forearms?|clavicles?|scapula|sternum|spine|cervical|thoracic|lumbar|hips?|femur|knees?"
    r"|ankles?|foot|feet|tibia|fibula|skull|neck|fingers?|thumb|toes?"
    r"|ap|pa|lat|lateral|frontal|oblique|decubitus|lordotic|postero-?anterior|antero-?posterior|upright"
    r"|erect|supine|prone|semi|semi-?erect|semi-?upright|standing|sitting|inspiratory|expiratory"
    r"|portable|bedside|mobile|plain|limited|repeat|follow-?up|additional|single|one|two|three|four|five"
    r"|six|multiple|left|right|both|bilateral|views?|films?|radiographs?|x-?rays?|images?|projections?"
    r"|exam(?:ination)?s?|stud(?:y|ies)|series|of|the|and|with|at|on|in|a|[ap]\.?m\.?|hours?"
    r"|\d{1,2}:\d\d|[\d_]+)"
)
_OTHER_PHRASE = (
    r"(?:COMPAR|PRIOR|PREVIOUS|TECHNI|HISTORY|INDICAT|REASON|DATE|TYPE|CLINICAL|PHYSICAL|REQUEST|ORDER"
    r"|FINDING|IMPRESSION|CONCLUSION|RECOMMEND|CONTRAST|REPORT|READ|NAME|PATIENT)"
)
EXAMINATION = (  # of words that are known, anywhere
    rf"(?=[^\n]{{0,80}}?\b{_IMAGES}\b)(?:{_WORDS}(?![^\W_])[ \t,./&()-]*+)++(?=:)"
)
"""As in PA AND LATERAL VIEWS:, CHEST, TWO VIEWS: or Portable AP film: (ignoring case)."""
EXAMINATION_LINE = (  # of any words, in capitals
    rf"(?-i:(?![^\n:]{{0,80}}{_OTHER_PHRASE})(?=[^\n:]{{0,80}}?\b(?i:{_IMAGES})\b)"
    r"[A-Z][A-Z0-9_ \t,/&()'-]{1,80}(?=:))"
)
"""As in LEFT MANDIBLE, TWO VIEWS: (at the beginning of a line)."""

# ------------------------------------------------------------------------------------ misspelt words

_NAMES = (
    *("findings", "finding", "impression", "impressions", "conclusion", "conclusions"),
    *("indication", "indications", "comparison", "comparisons", "technique", "history"),
    *("examination", "recommendation", "recommendations", "addendum"),
)
_TYPED = re.compile(
    r"(?P<line>^[ \t#*>]*)?(?<!\S)(?P<before>(?i:final|clinical)[ \t]+)?"
    r"(?P<word>[A-Za-z]{5,16})(?=[ \t]*(?P<end>[:;：]|$))[ \t]*[;：]?",
    re.MULTILINE,
)


def mend_headings(report: str) -> str:
    """The report with headings as they should be: FINDNGS: and IMPRESSOIN; are FINDINGS: and IMPRESSION:.

    One letter too many or too few, a wrong one or two that changed places; of FINDINGS and IMPRESSION two
    of these, behind a right beginning. "Contusion:" and "Compression:" are headings of no section.
    """

    def mended(typed: re.Match[str]) -> str:
        word, end = typed["word"], typed["end"]
        name = _meant(word.lower())
        loud, line = word.isupper(), typed["line"] is not None
        if name is None or not (end in (":", "：") or (loud and line)):
            return typed[0]
        if not line and not word[0].isupper():
            return typed[0]
        name = name.upper() if loud else name.capitalize() if word[0].isupper() else name
        before = (typed["line"] or "") + (typed["before"] or "")
        return before + name + (":" if end in (";", "：") else "")

    return _TYPED.sub(mended, report)


@lru_cache(maxsize=4096)
def _meant(word: str) -> str | None:
    """The heading that a word in lower case is, or is typed for."""
    if word in _NAMES:
        return word
    edits = {name: _edits(word, name) for name in _NAMES if abs(len(word) - len(name)) <= 2}
    near = [name for name, number in edits.items() if number == 1 and name[0] in word[:2]]
    near += [
        name
        for name, number in edits.items()
        if number == 2 and word[:3] == name[:3] and name[:3] in ("fin", "imp")
    ]
    return min(near, key=edits.__getitem__, default=None)


def _edits(word: str, name: str) -> int:
    """Letters put in, left out, changed, or exchanged with their neighbour (optimal string alignment)."""
    rows = [list(range(len(name) + 1))]
    for i, letter in enumerate(word, start=1):
        row = [i]
        for j, other in enumerate(name, start=1):
            changed = rows[-1][j - 1] + (letter != other)
            row.append(min(rows[-1][j] + 1, row[-1] + 1, changed))
            if i > 1 and j > 1 and letter == name[j - 2] and word[i - 2] == other:
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
