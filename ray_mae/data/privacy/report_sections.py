"""Findings and Impression of a radiology report, as they are written, and nothing else of it."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ray_mae.data.privacy.deidentify import STAFF, without_identity
from ray_mae.data.privacy.report_headings import (
    ASSESSMENT,
    CIRCUMSTANCES,
    EXAMINATION,
    EXAMINATION_LINE,
    FINDINGS,
    IMPRESSION,
    REMARK,
    mend_headings,
)
from ray_mae.data.privacy.report_text import plain_text

# These only end the section before them.
_OTHER = (
    r"(?:clinical )?(?:indications?|history|information|data|details)|presentation"
    r"|reason for (?:the )?(?:exam(?:ination)?|study|visit)|technique|comparisons?"
    r"|(?:comparison|prior|previous) (?:stud(?:y|ies)|exams?|examinations?|films?)|procedure"
    r"|exam type|contrast|recommendations?|notifications?"
    r"|(?:rechtfertigende )?indikation|fragestellung|klinische (?:angaben|fragestellung)|anamnese|technik"
    r"|voraufnahmen?|vergleich|indicaci[oó]n|(?:informaci[oó]n|datos) cl[ií]nic[oa]s?|t[eé]cnica"
    r"|comparaci[oó]n|renseignements cliniques|comparaison|quesito clinico|indica[cç][aã]o"
    r"|communication|discussion|wet[ -]?read|(?:final |preliminary )?report|addendum|attestation|"
    + STAFF
)
# A header starts its line and has a colon or the line to itself, or it stands within a line …
_HEADERS = re.compile(
    rf"(?P<line>^[ \t#*>]*)?(?<!\S)(?:(?P<findings>{FINDINGS}|imaging notes)"
    rf"|(?P<impression>{IMPRESSION}|{ASSESSMENT})|(?P<other>(?P<circumstances>{CIRCUMSTANCES})|{_OTHER})"
    rf"|(?P<exam>{EXAMINATION}|(?(line){EXAMINATION_LINE}|(?!)))){REMARK}[ \t*]*(?P<end>:|$)",
    re.IGNORECASE | re.MULTILINE,
)
_KINDS = ("findings", "impression", "other", "exam")


def _is_header(match: re.Match[str]) -> bool:
    """… and then it has a colon, and is in capitals or a capitalised word after a sentence."""
    words = next(name for name in match.group(*_KINDS) if name)
    if match["line"] is not None:  # a lone "study" in lower case is a sentence that was wrapped
        return words[0].isupper() or (match["end"] == ":" and not match["exam"])
    before = match.string[max(match.start() - 99, 0) : match.start()].rstrip()
    if match["circumstances"] and before.endswith(","):
        return False  # the end of a longer name: MANDIBLE, VIEWS:
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

    The name of an examination ("CHEST, TWO VIEWS:") opens the findings of a report that has no other
    header for them. Within the two sections it belongs to the text, as in "RIGHT HAND: no fracture".
    """
    text = mend_headings(plain_text(report or ""))
    text = without_identity(text, _next_section)
    headers = [match for match in _HEADERS.finditer(text) if _is_header(match)]
    if not headers:
        return Sections(_normalise(text), None)
    described = any(not header["other"] for header in headers)
    if not described and headers[0]["line"] is None:
        return Sections(_normalise(text[: headers[0].start()]), None)
    parts: dict[str, list[str]] = {"findings": [], "impression": [], "other": []}
    for kind, start, end in _cut(text, headers):
        parts[kind].append(text[start:end].lstrip(" .:-"))
    return Sections(*(_normalise(" ".join(parts[kind])) for kind in Sections._fields))


def _cut(text: str, headers: list[re.Match[str]]) -> Iterator[tuple[str, int, int]]:
    """Each section's kind, the begin of its text and the end."""
    named = any(header["findings"] for header in headers)
    described = False
    opened: tuple[str, int] | None = None
    for header in headers:
        kind = next(kind for kind in _KINDS if header[kind])
        if opened and opened[0] != "other":
            nothing_yet = not text[opened[1] : header.start()].strip()
            if kind == "exam" or (header["circumstances"] and nothing_yet):
                continue
        elif kind == "exam":
            kind = "other" if named else "findings"
        if opened:
            yield *opened, header.start()
        # after them, the name of another part opens them again, and is needed there
        keep_name = bool(header["exam"]) and kind == "findings" and described
        described = described or kind == "findings"
        named = named and not described
        opened = kind, header.start("exam") if keep_name else header.end()
    if opened:
        yield *opened, len(text)


def _normalise(text: str) -> str | None:
    """Single spaces; None for a text without a single letter or digit."""
    text = " ".join(text.split())
    return text if any(c.isalnum() for c in text) else None
