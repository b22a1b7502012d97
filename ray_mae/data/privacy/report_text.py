"""A report as plain text, for the rules that read it."""

import re
import unicodedata

# zero-width, direction marks and soft hyphens: nobody sees them, and a name is none with one inside
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufe00-\ufe0f\ufeff]"
)
_SPACES = re.compile(r"[^\S\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
_RULE = re.compile(r"([^\w\s]|_)\1{99,}")


def plain_text(report: str) -> str:
    """The report as it is read: single blanks within its lines, no invisible characters.

    A no-break space is a blank, a letter with a combining accent is one letter, and 20,000 asterisks in
    a row say no more than three. The rules that follow take time by the square of such a run, so there
    must be none; of the report as a whole they take time by its length.
    """
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", report))
    return _RULE.sub(r"\1\1\1", _SPACES.sub(" ", text))
