"""Which view an image shows, from the words and tags archives use for it."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

# In English, German, Spanish, French, Italian, Portuguese and Dutch, without accents.
FRONTAL = frozenset("frontal frontale frontales frontaal pa ap frente".split())
LATERAL = frozenset(
    "lateral laterale lateraal laterales laterolateral laterolaterale lat ll rl llat rlat latl latr lateralis"
    " seitlich seitliche seitlicher perfil profil profilo profile zijdelings".split()
)
# Neither a frontal nor a lateral view, whatever else is said: "left lateral decubitus" is no lateral.
NEITHER = frozenset(
    "oblique obliqua obliquo oblicua oblicuo oblicuas obliques obl schrag schrage decubitus decubito decub"
    " seitenlage rld lld rlo llo rao lao rpo lpo axial axiale tangential costal cc mlo".split()
)
# Of a cell that names no view and does not mean to.
NO_VIEW = frozenset(("", "unknown", "unk", "none", "null", "nan", "na", "n/a", "other", "-"))
# Words of a position that are kept beside those above. All else is dropped: free text may hold names.
_MANNERS = frozenset(
    "supine prone horizontal erect upright standing sitting semi portable mobile bedside lordotic left"
    " right l r inspiration expiration chest stehend liegend links rechts thorax torax".split()
)
# "postéro-antérieure", "Postero Anterior", "p.-a.", "p. a."
_ANTERIOR, _POSTERIOR = r"ante?r(?:ior|ieur|o)?", r"poste?r(?:ior|ieur|o)?"
_SPELLINGS = (
    (re.compile(rf"\b{_ANTERIOR}[\s-]*{_POSTERIOR}\w*", re.I), "AP"),
    (re.compile(rf"\b{_POSTERIOR}[\s-]*{_ANTERIOR}\w*", re.I), "PA"),
    (re.compile(r"\b([ap])\.?[\s-]?([ap])\b\.?", re.I), r"\1\2"),
    (re.compile(r"\b(?:de |thorax )face\b", re.I), "frontal"),
    (re.compile(r"\bx[\s-]?table\b", re.I), "cross-table"),
)  # fmt: skip


MOST_CELLS = 4096
"""Different ones that are kept with what they mean: a column has few."""


def _words(text: str) -> list[str]:
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    for spelling, word in _SPELLINGS:
        text = spelling.sub(word, text)
    return re.findall(r"[A-Za-z]+", text)


@lru_cache(MOST_CELLS)
def view_of(text: str | None) -> str | None:
    """frontal, lateral, unknown (it names another view, or both), or None: it names no view."""
    words = {w.lower() for w in _words(text or "")}
    if words == {"l"}:  # a cell with nothing but "L" means lateral; in a longer text it means left
        return "lateral"
    frontal, lateral = bool(words & FRONTAL), bool(words & LATERAL)
    if words & NEITHER or (frontal and lateral):
        return "unknown"
    return "frontal" if frontal else "lateral" if lateral else None


@lru_cache(MOST_CELLS)
def position_of(text: str | None) -> str | None:
    """The archive's own words for the position, less every word that is not known to be one."""
    known = FRONTAL | LATERAL | NEITHER | _MANNERS
    return " ".join(w for w in _words(text or "") if w.lower() in known) or None


def view_from_orientation(orientation: Iterable[str] | None) -> str | None:
    """View from DICOM's PatientOrientation: where the rows and the columns of the image point to.

    The image plane of a frontal view spans left-right and head-foot, that of a lateral view
    front-back and head-foot.
    """
    axes: set[str | None] = {
        {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}.get(str(d)[:1].upper())
        for d in orientation or ()
    }
    return {frozenset("xz"): "frontal", frozenset("yz"): "lateral"}.get(
        frozenset(a for a in axes if a)
    )
