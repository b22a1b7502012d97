"""What the index terms of Open-i (IU X-ray) mean among the 14 CheXpert labels: our own table.

Two readers indexed each report with a heading of MeSH or RadLex, then qualifiers for place, side and
degree: "Opacity/lung/base/left". The decisions are those of ray_mae.data.padchest_labels: scars of the
lung are opacities, congestion and failure go to Edema, what has healed and left lime is no lesion,
clips and sutures are no devices. Only what is there is indexed: no label is ever negative.
"""

from collections.abc import Iterable

from ray_mae.data.labels import POSITIVE, UNCERTAIN, states_of

_LABELS = {
    "No Finding": "normal",
    "Cardiomegaly": "cardiomegaly | cardiac shadow/enlarged",
    "Enlarged Cardiomediastinum": "mediastinum/prominent | mediastinum/enlarged | mass/mediastinum",
    "Lung Opacity": (
        "opacity | density | infiltrate | airspace disease | lung diseases, interstitial"
        " | cicatrix/lung | pulmonary fibrosis"
    ),
    "Lung Lesion": "nodule | mass | granuloma | cavitation",
    "Edema": "pulmonary edema | pulmonary congestion | heart failure",
    "Consolidation": "consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "pulmonary atelectasis",
    "Pneumothorax": "pneumothorax | hydropneumothorax | hemopneumothorax",
    "Pleural Effusion": "pleural effusion | hemothorax | hydropneumothorax | hemopneumothorax",
    "Pleural Other": "thickening/pleura | cicatrix/pleura",
    "Fracture": "fractures, bone",
    "Support Devices": (
        "catheters, indwelling | tube, inserted | implanted medical device | medical device | stents"
    ),
}
_UNCERTAIN = {
    "Pleural Effusion": "costophrenic angle/blunted",  # or a thickened pleura
    "Atelectasis": "volume loss",  # or a resection
}
# "Density/ribs" and "Nodule/breast" are none of the lung. Said of these headings alone.
_OF_THE_LUNG = frozenset({"opacity", "density", "nodule", "mass", "granuloma", "cavitation"})
_ELSEWHERE = frozenset(
    {
        "abdomen", "breast", "cervical vertebrae", "clavicle", "costophrenic angle", "humerus",
        "lumbar vertebrae", "lymph nodes", "mediastinum", "pleura", "ribs", "shoulder", "spine",
        "sternum", "thoracic vertebrae",
    }
)  # fmt: skip

# Statement by heading and the qualifier that it needs, "" for none.
_TABLE: dict[str, list[tuple[str, str, int]]] = {}
for _group, _state in ((_LABELS, POSITIVE), (_UNCERTAIN, UNCERTAIN)):
    for _label, _terms in _group.items():
        for _term in _terms.split(" | "):
            _heading, _, _qualifier = _term.partition("/")
            _TABLE.setdefault(_heading, []).append((_qualifier, _label, _state))


def heading(term: str) -> str:
    """What a term is about, without its qualifiers, in lower case."""
    return " ".join(term.partition("/")[0].lower().split())


def statements(term: str) -> list[tuple[str, int]]:
    """The statements (label, state) of one term; none where it is about none of the 14."""
    name = heading(term)
    qualifiers = {" ".join(part.split()) for part in term.lower().split("/")[1:]}
    if name in _OF_THE_LUNG and qualifiers & _ELSEWHERE and "lung" not in qualifiers:
        return [(label, state) for q, label, state in _TABLE[name] if q in qualifiers]
    return [(label, state) for q, label, state in _TABLE.get(name, ()) if not q or q in qualifiers]


def openi_states(terms: Iterable[str]) -> tuple[int, ...]:
    """The 14 states of a study with these index terms."""
    return states_of(statement for term in terms for statement in statements(term))
