"""Findings and Impression of a radiology report, as they are written, and nothing else of it."""

import re
from typing import NamedTuple

from ray_mae.data.privacy.deidentify import STAFF, without_identity

_AND = r"[ \t]*(?:\band\b|/|&)[ \t]*"
FINDINGS = rf"findings?(?:{_AND}(?:impressions?|conclusions?))?"
IMPRESSION = (
    rf"(?:final )?impressions?(?:{_AND}(?:recommendations?|plan|conclusions?))?|imp|conclusions?"
    "|summary"
)
REMARK = r"(?:[ \t]*\([^()\n]{0,60}\))?"
"""After a header, as in IMPRESSION (PRELIMINARY)."""
_IMPRESSION = rf"{IMPRESSION}|opinion|assessment(?:{_AND}plan)?|(?:final )?diagnosis"
# These only end the section before them.
_OTHER = (
    r"(?:clinical )?(?:indications?|history|information|data|details)|presentation"
    r"|reason for (?:the )?(?:exam(?:ination)?|study|visit)|technique|comparisons?"
    r"|comparison studies|prior studies|procedure"
    r"|exam(?:ination)?s?|exam type|study|views?|contrast|recommendations?|notifications?"
    r"|communication|discussion|wet read|(?:final |preliminary )?report|addendum|attestation|"
    + STAFF
)
# A header starts its line and has a colon or the line to itself, or it stands within a line …
_HEADERS = re.compile(
    rf"(?P<line>^[ \t#*>]*)?(?<!\S)(?:(?P<findings>{FINDINGS}|imaging notes)|(?P<impression>{_IMPRESSION})"
    rf"|(?P<other>{_OTHER})){REMARK}[ \t*]*(?P<end>:|$)",
    re.IGNORECASE | re.MULTILINE,
)


def _is_header(match: re.Match[str]) -> bool:
    """… and then it has a colon, and is in capitals or a capitalised word after a sentence."""
    words = next(name for name in match.group("findings", "impression", "other") if name)
    if match["line"] is not None:  # a lone "study" in lower case is a sentence that was wrapped
        return match["end"] == ":" or words[0].isupper()
    before = match.string[max(match.start() - 99, 0) : match.start()].rstrip()
    after_sentence = before.endswith((".", ";", "!", "?", ":", "]"))
    return match["end"] == ":" and (words.isupper() or (words[0].isupper() and after_sentence))


def _next_section(line: str, start: int, end: int) -> int:
    """Where the next section begins in the rest of a line that is a field of who, when and where."""
    for match in _HEADERS.finditer(line, start, end):
        name = match["findings"] or match["impression"] or ""
        if _is_header(match) or (match["end"] == ":" and name[:1].isupper()):
            return match.start()
    return end


class Sections(NamedTuple):
    """The two sections that describe the images; None where a report has none."""

    findings: str | None
    impression: str | None


def sections(report: str | None) -> Sections:
    """Find Findings and Impression in a report, word for word, white space normalised.

    A text without any known header is taken as findings, and so is a joint "Findings and
    impression", and sentences that run into a lone other header ("… is clear. View: PA."). Else what
    stands before the first header is dropped, since names, numbers and dates stand there, and so is
    what else identifies a person (deidentify.py). A section that is written twice (an addendum) is
    joined in order.
    """
    text = without_identity(report or "", _next_section)
    headers = [match for match in _HEADERS.finditer(text) if _is_header(match)]
    if not headers:
        return Sections(_normalise(text), None)
    described = any(header["findings"] or header["impression"] for header in headers)
    if not described and headers[0]["line"] is None:
        return Sections(_normalise(text[: headers[0].start()]), None)
    parts: dict[str, list[str]] = {"findings": [], "impression": [], "other": []}
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=True):
        kind = next(kind for kind in parts if header[kind])
        parts[kind].append(text[header.end() : end].lstrip(" .:-"))
    return Sections(*(_normalise(" ".join(parts[kind])) for kind in Sections._fields))


def _normalise(text: str) -> str | None:
    """Single spaces; None for a text without a single letter or digit."""
    text = " ".join(text.split())
    return text if any(c.isalnum() for c in text) else None
