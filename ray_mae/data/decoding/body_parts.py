"""Which part of the body a radiograph shows, from the words headers use for it.

What comes out are the names of BodyPart, SEVERAL or UNKNOWN, never a word of the header: those may be names.
"""

import re
from typing import get_args

from ray_mae.config import BodyPart
from ray_mae.data.decoding.words import apart, plain

UNKNOWN: BodyPart = "unknown"
SEVERAL: BodyPart = "several"

# In English, German, Spanish, French, Italian, Portuguese and Dutch, and the terms of DICOM's PS3.16
# Annex L; without accents. Longer terms come first: a thoracic spine is no chest.
_TERMS: dict[BodyPart, str] = {
    "phantom": (
        r"phantoms?|tg ?18\w*|smpte|test (chart|pattern|image|exposure)|testbild|flat ?field|"
        r"quality control|qc (image|test)|konstanzprufung|prufkorper|maniqui|fantome|fantoma"
    ),
    "spine": (
        r"(thoracic|cervical|lumbar|dorsal|thoracolumbar|lumbosacral|whole|full) spine|[ctl]-?spine|"
        r"[ctl] spine|[ctls]{1,2}spine|spine|vertebrae?|cervical|lumbar|hws|bws|lws|wirbelsaule|"
        r"columna( (cervical|dorsal|lumbar|vertebral))?|coluna( \w+)?|rachis|colonne|colonna|"
        r"sacrum|coccyx|scoliosis|skoliose|escoliosis|wervelkolom"
    ),
    "chest": (
        r"chests?|thorax|thoracic|thorakal|lungs?|lunge[n]?|ribs?|rippen|sternum|cxr|pulmones?|pulmon|"
        r"poumons?|torax|torace|costillas|costelas|heart|mediastinum|hemithorax|cotes|sternal|"
        r"borst(kas)?|longen|pa/lat chest"
    ),
    "abdomen": r"abd(om\w*)?|kub|bauch|abdominal|stomach|colon|bowel|bladder|ureter|kidneys?|niere[n]?|buik",
    "pelvis": r"pelvis|pelvic|becken\w*|bacino|bassin|bekken|pelve|si joints?|ilium|sacroiliac",
    "hip": r"hips?|hufte\w*|cadera|hanche|anca|quadril|heup|huftgelenk",
    "head": (
        r"head|skull|schadel|cranium|craneo|cranio|crane|sinus(es)?|nnh|facial|orbits?|orbita|"
        r"mandible|maxilla|zygoma|nasal|sella|tmj|kopf|cabeza|tete|schedel|ears?|eyes?"
    ),
    "tooth": (
        r"tooth|teeth|dental|dentes?|dientes?|dents?|denti|zahn\w*|opg|orthopantomog\w*|bitewing|"
        r"intraoral|jaw(region)?|kiefer"
    ),
    "neck": r"neck|hals|cuello|larynx|pharynx|airway|soft tissue neck",
    "breast": r"breasts?|mamm\w*|mama",
    "shoulder": (
        r"shoulders?|schulter\w*|hombro|epaule|spalla|ombro|schouder|clavicle|klavikula|clavicula|"
        r"scapula|ac ?joints?"
    ),
    "arm": (
        r"(upper |fore)?arms?|upper (limb|extremity)|unterarm|oberarm|humerus|elbow|ellbogen|ellenbogen|"
        r"codo|coude|gomito|radius|ulna|wrist|handgelenk|muneca|poignet|polso|pols|brazo|antebrazo|bras|"
        r"braccio|extremity upper"
    ),
    "hand": r"hands?|fingers?|thumb|daumen|mano|mao|dedos?|finger\w*|scaphoid",
    "leg": (
        r"(lower |upper )?legs?|lower (limb|extremity)|femur|thigh|tibia|fibula|bein\w*|oberschenkel|"
        r"unterschenkel|pierna|jambe|gamba|perna|long ?legs?"
    ),
    "knee": r"knees?|knie\w*|rodilla|genou|ginocchio|joelho|patella",
    "foot": (
        r"foot|feet|fuss\w*|ankle|sprunggelenk|tobillo|cheville|"
        r"caviglia|toes?|zehe\w*|heel|calcaneus|os calcis|pied|piede|enkel|voet"
    ),
    "extremity": r"extremit(y|ies|ety)|extremetys?|limbs?|extremetie?s|extremidad(es)?|extremitat(en)?",
}  # fmt: skip
# Words that name a part without being about it: an arm of a device, a distance, a way to lie.
_OTHERWISE = re.compile(
    r"\bc[- ]?arm\b|\bu[- ]?arm\b|\b\d+ ?(feet|foot|ft)\b|\bhead ?(first|up|down|end)\b|\bfeet first\b|"
    r"\bfoot end\b|\bhand ?held\b|\b(left|right|over|under)? ?head of bed\b|\barms? (up|down|raised)\b"
)
# DICOM's own terms for two at once, as ABDOMENPELVIS.
_TOGETHER = re.compile(r"(chest|abdomen|abd|neck|head)(?=(chest|abdomen|abd|neck|pelvis))")
_PARTS = [(part, re.compile(rf"\b(?:{terms})\b")) for part, terms in _TERMS.items()]
assert {*_TERMS, UNKNOWN, SEVERAL} == set(get_args(BodyPart))


def body_part_of(*texts: str) -> BodyPart:
    """The part of the body that texts of a header name.

    Args:
        texts: in any order; a header may contradict itself, as where every image of a device says CHEST.

    Returns:
        A BodyPart; SEVERAL where different ones are named, UNKNOWN where none is.
    """
    parts: set[BodyPart] = set()
    for text in texts:
        left = re.sub(r"[_^\\.,;:()]+", " ", plain(apart(text)))
        left = _OTHERWISE.sub(" ", _TOGETHER.sub(r"\1 ", left))
        for part, terms in _PARTS:
            left, times = terms.subn(" ", left)
            if times:
                parts.add(part)
    if "phantom" in parts:
        return "phantom"
    if len(parts) > 1:
        parts.discard("extremity")  # as good as the arm or leg beside it
    return next(iter(parts)) if len(parts) == 1 else SEVERAL if parts else UNKNOWN
