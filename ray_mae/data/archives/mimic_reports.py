"""Findings and impression of the reports of MIMIC-CXR, by the habits of that corpus."""

import re
from typing import NamedTuple

from ray_mae.data.reports import FINDINGS, IMPRESSION, REMARK

# Before this line stand preliminary readings with their date and author, and addenda.
_BANNER = re.compile(r"^[^\w\n]*FINAL REPORT[^\w\n]*$", re.MULTILINE)
_NAMES = {
    "findings": FINDINGS,
    "impression": IMPRESSION,
    "reason": (
        r"(?:clinical )?(?:indications?|history|information|data)|(?:clinical )?reason(?: for \w+)*"
        r"|patient history|medical condition"
    ),
    "circumstances": (
        r"(?:type of )?exam(?:ination)?s?|study|technique|comparisons?|views?|procedure"
    ),
    "end": (
        r"notifications?|recommendations?(?:\(s\))?|addendum|wet read|communication|attestation"
        r"|dictated|signed|attending"
    ),
}
_HEADER = re.compile(
    r"[ \t]*(?:"
    + "|".join(f"(?P<{kind}>{name})" for kind, name in _NAMES.items())
    + rf"){REMARK}[ \t]*:",
    re.IGNORECASE,
)
# PORTABLE CHEST, ___: or FRONTAL AND LATERAL VIEWS OF THE CHEST: opens a description.
_EXAM = re.compile(
    r"[ \t]*(?=[^a-z\n]*CHEST)(?:(?:CHEST|PORTABLE|BEDSIDE|AP|PA|FRONTAL|LATERAL|UPRIGHT|SUPINE|SEMI"
    r"|ERECT|SINGLE|ONE|TWO|VIEWS?|RADIOGRAPHS?|X-?RAYS?|FILMS?|IMAGES?|OF|THE|AND|WITH|AT|ON"
    r"|[AP]\.?M\.?|\d{1,2}:\d\d|[\d_]++)[ ,./&()-]*+)++:(?=\s|$)"
)
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


class _Paragraph(NamedTuple):
    header: str | None
    """A name of _NAMES, "exam" for the name of the examination, None without a header of its own."""
    text: str


def described(report: str) -> str:
    """The report's findings and impression under these two headers; nothing else of it.

    Most reports name both. Where one has no FINDINGS, what describes the images stands
    - under the name of the examination, as in "PORTABLE CHEST, ___:", or
    - without a header, in paragraphs after the one that INDICATION, COMPARISON or the like opens and
      before IMPRESSION, or in a report without any header; or else, without an impression, too,
    - behind the first sentence of the last of COMPARISON, TECHNIQUE and EXAMINATION ("COMPARISON:
      ___. The lungs are clear.").
    A title is no description. What stands before FINAL REPORT is left out.
    """
    banners = [banner.end() for banner in _BANNER.finditer(report)]
    paragraphs = _paragraphs(report[banners[-1] :] if banners else report)
    named = any(paragraph.header == "findings" for paragraph in paragraphs)
    parts: dict[str, list[str]] = {"findings": [], "impression": []}
    section: str | None = None
    opened = False  # the section's header has had its own paragraph
    for header, text in paragraphs:
        if header:
            section = "findings" if header == "exam" and not named else header
            opened = bool(text)
        elif section and not opened:
            opened = True
        elif section not in ("findings", "impression", "end") and not (
            named or parts["impression"] or _is_title(text)
        ):
            section = "findings"
        if section in parts and text:
            parts[section].append(text)
    if not any(parts.values()):
        parts["findings"] = _behind_the_first_sentence(paragraphs)
    return "\n".join(f"{name.upper()}: " + "\n".join(texts) for name, texts in parts.items())


def _paragraphs(report: str) -> list[_Paragraph]:
    """The report cut at blank lines and before headers; the headers are left out of the text."""
    found: list[tuple[str | None, list[str]]] = []
    for line in report.splitlines():
        if known := _HEADER.match(line):
            found.append((known.lastgroup, [line[known.end() :]]))
        elif exam := _EXAM.match(line):
            found.append(("exam", [line[exam.end() :]]))
        elif not line.strip() or not found:
            found.append((None, [line]))
        else:
            found[-1][1].append(line)
    texts = [(header, "\n".join(lines).strip()) for header, lines in found]
    return [_Paragraph(header, text) for header, text in texts if header or text]


def _is_title(text: str) -> bool:
    """CHEST RADIOGRAPH, or Portable chest radiograph: capitals, or a line that is no sentence."""
    return not re.search(r"[a-z]", text) or ("\n" not in text and text[-1] not in ".:;?!")


def _behind_the_first_sentence(paragraphs: list[_Paragraph]) -> list[str]:
    for header, text in reversed(paragraphs):
        sentences = _SENTENCE_END.split(text, maxsplit=1)
        if header in ("circumstances", "exam") and len(sentences) == 2:
            return sentences[1:]
    return []
