"""Words of free text in one spelling: lower case, without accents."""

import re
import unicodedata

_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def plain(text: str) -> str:
    """The text in lower case, without accents: "Décubitus" is "decubitus", "schräg" is "schrag"."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def apart(text: str) -> str:
    """The text with words apart that only a capital divides: "ThoraxSeitlich"."""
    return _CAPITALS.sub(" ", text)
