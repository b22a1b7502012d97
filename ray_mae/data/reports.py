"""Findings and Impression of a radiology report, as they are written, and nothing else of it."""

import re
from typing import NamedTuple

_SECTIONS = {
    "findings": "findings|finding|findings and impressions?|findings/impressions?",
    "impression": "impressions?|conclusions?|opinion|summary|assessment|final impression"
    "|final diagnosis|diagnosis",
    # These end a section; what they hold is not used.
    "other": "indications?|clinical indications?|history|clinical history|clinical information"
    "|clinical data|clinical details|reason for exam|reason for examination|reason for study"
    "|technique|comparisons?|comparison studies|prior studies|exam|examination|exam type|study"
    "|procedure|views?|contrast|recommendations?|recommendation\\(s\\)|notifications?|communication"
    "|wet read|final report|preliminary report|addendum|report|attestation|end of impression",
    # Who and when: a line that starts so belongs to no section and is dropped.
    "identity": "(?:patient'?s? )?(?:name|id|number)|patient|mrn|medical record number|dob"
    "|date of birth|birth ?date|age|sex|gender|address|phone|telephone|accession(?: number| no)?"
    "|(?:study|exam|examination|report|service) date|date|time|date of (?:exam|service|study)"
    "|(?:referring|ordering|attending|requesting|reading) (?:physician|doctor|clinician|provider)"
    "|physician|radiologist|attending|resident|referrer|doctor|hospital|institution|department"
    "|ward|location|dictated(?: by)?|transcribed(?: by)?|transcriptionist|signed(?: by)?"
    "|electronically signed(?: by)?|reported by|read by|reviewed by|approved by|verified by|cc",
}
_KIND = "|".join(f"(?P<{kind}>{words})" for kind, words in _SECTIONS.items())
# A header starts a line, in any case, and ends with a colon or fills the line …
_LINE_HEADER = re.compile(rf"^[ \t#*>\d.)]*(?:{_KIND})[ \t*]*(?::|$)", re.I | re.M)
# … or, within a line, follows the end of a sentence, is capitalised and ends with a colon.
_INLINE_HEADER = re.compile(rf"(?<=[.;!?:\]])\s+(?=[A-Z])(?:{_KIND})\s*:", re.I)
_SIGNED = re.compile(r"^\W*(?:electronically )?(?:signed|dictated|transcribed|approved|verified)"
                     r"(?: and \w+)* (?:by|on)\b.*$", re.I | re.M)  # fmt: skip


class Sections(NamedTuple):
    """The two sections that describe the image, None where the report has none."""

    findings: str | None
    impression: str | None


def sections(report: str | None) -> Sections:
    """Findings and Impression of a report, white space normalised.

    A text without any known header is taken as findings. What stands before the first header is
    dropped: names, numbers and dates stand there. So are lines that name a person or a date by a
    label of their own. A section written twice (an addendum) is joined in order.
    """
    text = _SIGNED.sub("", (report or "").replace("\r\n", "\n").replace("\r", "\n"))
    found: dict[str, list[str]] = {"findings": [], "impression": []}
    headers = _headers(text)
    if not any(kind != "identity" for _, _, kind in headers):
        found["findings"].append(_without_lines(text, headers))
    else:
        kinds = [kind for _, _, kind in headers]
        for i, (_, start, kind) in enumerate(headers):
            end = headers[i + 1][0] if i + 1 < len(headers) else len(text)
            if kind == "identity":
                # Only the line itself: the section around it goes on below, if there is one.
                kind = next((k for k in reversed(kinds[:i]) if k != "identity"), "other")
                start = min(end, _line_end(text, start))
            if kind in found:
                found[kind].append(text[start:end])
    return Sections(*(_normalised(" ".join(parts)) for parts in found.values()))


def _headers(text: str) -> list[tuple[int, int, str]]:
    """Start, end and kind of each header, in order."""
    matches = {m.end(): m for pattern in (_INLINE_HEADER, _LINE_HEADER) for m in pattern.finditer(text)}
    inline = {m.end() for m in _INLINE_HEADER.finditer(text)}
    return [
        (m.start(), end, str(m.lastgroup))
        for end, m in sorted(matches.items())
        # "Age:" or "Date:" within a sentence is the sentence's own.
        if not (m.lastgroup == "identity" and end in inline and not _fills_line(text, m.start()))
    ]
