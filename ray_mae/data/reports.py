"""Findings and Impression of a radiology report, as they are written, and nothing else of it."""

import re
from typing import NamedTuple

_FINDINGS = r"findings?|findings?(?: and |/| / )impressions?|imaging notes"
_IMPRESSION = (
    r"impressions?|final impression|conclusions?|opinion|summary|assessment|(?:final )?diagnosis"
)
# These only end the section before them.
_STAFF = (
    r"(?:electronically )?signed(?: by)?|(?:dictated|transcribed|reported|read|reviewed|approved"
    r"|verified)(?: by)?|(?:interpreting |attending |reading )?(?:radiologists?|physicians?|doctors?)"
    r"|attending|resident|fellow|cc"
)
_OTHER = (
    r"(?:clinical )?(?:indications?|history|information|data|details)|presentation"
    r"|reason for (?:the )?(?:exam(?:ination)?|study|visit)|technique|comparisons?"
    r"|comparison studies|prior studies|procedure"
    r"|exam(?:ination)?s?|exam type|study|views?|contrast|recommendations?|notifications?"
    r"|communication|discussion|wet read|(?:final |preliminary )?report|addendum|attestation|"
    + _STAFF
)
# A header starts its line and has a colon or the line to itself, or it stands within a line …
_HEADERS = re.compile(
    rf"(?P<line>^[ \t#*>]*)?(?<!\S)(?:(?P<findings>{_FINDINGS})|(?P<impression>{_IMPRESSION})"
    rf"|(?P<other>{_OTHER}))[ \t*]*(?P<end>:|$)",
    re.IGNORECASE | re.MULTILINE,
)


def _is_header(match: re.Match[str]) -> bool:
    """… and then it has a colon, and is in capitals or a capitalised word after a sentence."""
    words = match.group().strip(" \t*:#>")
    if match["line"] is not None:  # a lone "study" in lower case is a sentence that was wrapped
        return match["end"] == ":" or words[0].isupper()
    before = match.string[: match.start()].rstrip()
    after_sentence = before.endswith((".", ";", "!", "?", ":", "]"))
    return match["end"] == ":" and (words.isupper() or (words[0].isupper() and after_sentence))


# Who and when: lines that are dropped wherever they stand.
_IDENTITY_LINES = re.compile(
    r"^[ \t#*>]*(?:(?:patient(?:'?s)?|medical record|accession|visit|account)? ?"
    r"(?:name|id|no\.?|number|mrn|dob|patient|accession)|date of (?:birth|exam(?:ination)?|service"
    r"|study)|birth ?date|(?:(?:study|exam|service|report) )?(?:date|time)|age|sex|gender|address"
    r"|(?:tele)?phone|(?:(?:referring|ordering|requesting) )?(?:physician|doctor|clinician|provider"
    r"|md)|referrer|hospital|institution|department|ward|location)(?:[ \t]*:|[ \t]+[-–—=][ \t]).*$"
    rf"|^[^\w\n]*(?:{_STAFF})[ \t]*(?::|[-–—][ \t]|(?<=by)[ \t]|\bon\b).*$"
    # a signature: a short line of a name and a degree, perhaps with a date
    r"|^[^.\n]{0,40}(?:\b\w\.[^.\n]{0,40})?,?[ \t]+(?:M\.?D|D\.?O|MBBS|MBChB|FRCR|FRCPC|FACR|Ph\.?D)\b"
    r"\.?,?[^.\n]{0,40}$",
    re.IGNORECASE | re.MULTILINE,
)


class Sections(NamedTuple):
    """The two sections that describe the images; None where a report has none."""

    findings: str | None
    impression: str | None


def sections(report: str | None) -> Sections:
    """Findings and Impression of a report, word for word, white space normalised.

    A text without any known header is taken as findings, and so is a joint "Findings and
    impression", and sentences that run into a lone other header ("… is clear. View: PA."). Else what
    stands before the first header is dropped, since names, numbers and dates stand there, and so are
    lines such as "Name: …" or "Signed by …". A section that is written twice (an addendum) is
    joined in order.
    """
    text = _IDENTITY_LINES.sub("", "\n".join((report or "").splitlines()))
    headers = [match for match in _HEADERS.finditer(text) if _is_header(match)]
    if not headers:
        return Sections(_normalised(text), None)
    described = any(header["findings"] or header["impression"] for header in headers)
    if not described and headers[0]["line"] is None:
        return Sections(_normalised(text[: headers[0].start()]), None)
    parts: dict[str, list[str]] = {"findings": [], "impression": [], "other": []}
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=True):
        kind = next(kind for kind in parts if header[kind])
        parts[kind].append(text[header.end() : end].lstrip(" .:-"))
    return Sections(*(_normalised(" ".join(parts[kind])) for kind in Sections._fields))


def _normalised(text: str) -> str | None:
    """Single spaces; None for a text without a single letter or digit."""
    text = " ".join(text.split())
    return text if any(c.isalnum() for c in text) else None
