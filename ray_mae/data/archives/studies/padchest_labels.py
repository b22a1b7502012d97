"""What the labels of PadChest mean among the 14 of CheXpert: our own table.

PadChest has 193 names of findings, differential diagnoses and devices, said of a whole study. Names
are compared in lower case with single spaces: in the published table " kerley lines" and "kerley
lines" are one label. Each name has one meaning here, decided by what is seen on the film and, where
that leaves room, by what CheXpert's own labeller gathers under a label (Irvin et al. 2019). Every
decision that another map takes otherwise has its reason beside it.
"""

from collections.abc import Iterable

from ray_mae.data.labels import POSITIVE, UNCERTAIN, states_of

_POSITIVE = {
    # Widening is what is seen: fat or a mass in the mediastinum is no lesion of the lung.
    "Enlarged Cardiomediastinum": """
        mediastinal enlargement, superior mediastinal enlargement, mediastinal mass,
        mediastinic lipomatosis""",
    "Cardiomegaly": "cardiomegaly",
    # Shadows that do not say what they are of. "Alveolar pattern" is CheXpert's airspace opacity; the
    # archive says "consolidation" where it means it. Scars and fibrosis of the lung are opacities,
    # reticular or linear. Miliary opacities and lymphangitis are seen as a pattern, not as a mass.
    "Lung Opacity": """
        increased density, infiltrates, alveolar pattern, interstitial pattern,
        reticular interstitial pattern, reticulonodular interstitial pattern, ground glass pattern,
        miliary opacities, lymphangitis carcinomatosa, fibrotic band, pulmonary fibrosis""",
    "Lung Lesion": """
        nodule, multiple nodules, mass, pulmonary mass, granuloma, cavitation, abscess,
        lung metastasis, lepidic adenocarcinoma""",
    # CheXpert's labeller takes congestion and heart failure for Edema. Kerley lines are edema of the
    # interstitium (elsewhere also mapped to No Finding), and "heart insufficiency" in a report of a
    # chest film is said of its congestion (elsewhere mapped to Enlarged Cardiomediastinum and to No
    # Finding): a large heart has its own label here.
    "Edema": "pulmonary edema, kerley lines, hilar congestion, heart insufficiency",
    "Consolidation": "consolidation, air bronchogram",
    "Pneumonia": "pneumonia, atypical pneumonia",
    "Atelectasis": """
        atelectasis, atelectasis basal, laminar atelectasis, lobar atelectasis,
        segmental atelectasis, round atelectasis, total atelectasis""",
    # Air elsewhere (mediastinum, abdomen, skin) is none of the pleura: see _OTHER.
    "Pneumothorax": "pneumothorax, hydropneumothorax",
    "Pleural Effusion": """
        pleural effusion, loculated pleural effusion, loculated fissural effusion, empyema,
        hydropneumothorax""",
    "Pleural Other": """
        pleural thickening, apical pleural thickening, calcified pleural thickening, pleural plaques,
        calcified pleural plaques, pleural mass, fissure thickening, major fissure thickening,
        minor fissure thickening""",
    # A callus is a fracture that heals; "vertebral compression" is said of a fractured one.
    "Fracture": """
        fracture, rib fracture, callus rib fracture, clavicle fracture, humeral fracture,
        vertebral fracture, vertebral compression""",
    # What carries, drains, paces or holds, and stays. Not: implants of the breast, wires of an old
    # sternotomy, sutures, loose metal.
    "Support Devices": """
        catheter, central venous catheter, central venous catheter via jugular vein,
        central venous catheter via subclavian vein, central venous catheter via umbilical vein,
        reservoir central venous catheter, chest drain tube, endotracheal tube, tracheostomy tube,
        nsg tube, gastrostomy tube, nephrostomy tube, double j stent, ventriculoperitoneal drain tube,
        pacemaker, single chamber device, dual chamber device, dai, electrical device,
        artificial heart valve, artificial aortic heart valve, artificial mitral heart valve,
        aortic endoprosthesis, endoprosthesis, prosthesis, humeral prosthesis,
        osteosynthesis material""",
}

# Signs that may be the finding, where the reader did not commit: the state is uncertain.
_UNCERTAIN = {
    "Lung Lesion": "pseudonodule",  # looks like a nodule
    # The step before edema (elsewhere Enlarged Cardiomediastinum and No Finding: it is neither).
    "Edema": """
        vascular redistribution, central vascular redistribution, pulmonary venous hypertension""",
    "Atelectasis": "volume loss",  # or a resection, or a scar
    "Pleural Effusion": "costophrenic angle blunting",  # or a thickened pleura
    "Fracture": "vertebral anterior compression",  # a wedge, often of old age
}

# Nothing of heart, lung or pleura: a study of which nothing else is said is one of CheXpert's
# No Finding. Bones and joints of age, the ageing aorta, variants, the breast, what healed and left
# lime, what was operated outside the lung.
_INCIDENTAL = """
    normal,
    scoliosis, kyphosis, osteopenia, osteoporosis, vertebral degenerative changes,
    non axial articular degenerative changes, axial hyperostosis, subacromial space narrowing,
    costochondral junction hypertrophy, sternoclavicular junction hypertrophy, cervical rib,
    thoracic cage deformation, pectum excavatum, pectum carinatum, bone cement,
    aortic elongation, ascendent aortic elongation, descendent aortic elongation,
    supra aortic elongation, aortic button enlargement, right sided aortic arch, dextrocardia,
    azygos lobe, end on vessel, chilaiditi sign, lipomatosis, obesity,
    nipple shadow, gynecomastia, mammary prosthesis, mastectomy, calcified fibroadenoma,
    calcified granuloma, calcified adenopathy, calcified mediastinal adenopathy, calcified densities,
    sternotomy, suture material, metal, external foreign body,
    surgery, surgery breast, surgery heart, surgery humeral, surgery neck,
    aortic atheromatosis,"""
# Elsewhere also Enlarged Cardiomediastinum: lime in the wall does not widen it.
_INCIDENTAL += (
    "diaphragmatic eventration"  # elsewhere also Lung Opacity: a variant of the diaphragm
)

# A finding, but none of the 14: the study is not one of No Finding either.
_OTHER = """
    copd signs, emphysema, air trapping, hyperinflated lung, flattened diaphragm, bullas, cyst,
    lung vascular paucity, bronchiectasis, bronchovascular markings, chronic changes, hypoexpansion,
    hypoexpansion basal, respiratory distress, tuberculosis, tuberculosis sequelae, asbestosis signs,
    post radiotherapy changes, surgery lung, air fluid level,
    adenopathy, hilar enlargement, vascular hilar enlargement, pulmonary artery enlargement,
    pulmonary hypertension, pulmonary artery hypertension, aortic aneurysm, heart valve calcified,
    pericardial effusion, mediastinal shift, tracheal shift, azygoesophageal recess shift, goiter,
    esophagic dilatation, hiatal hernia, hemidiaphragm elevation,
    pneumomediastinum, pneumoperitoneo, subcutaneous emphysema, abnormal foreign body,
    bone metastasis, blastic bone lesion, lytic bone lesion, sclerotic bone lesion, breast mass,
    soft tissue mass"""
# Of these, elsewhere
# - flattened diaphragm, hemidiaphragm elevation, hiatal hernia, bronchovascular markings and lung
#   vascular paucity are Lung Opacity and No Finding: no shadow of the lung, but not normal;
# - pulmonary (artery) hypertension and tracheal shift are Enlarged Cardiomediastinum and No Finding:
#   a wide artery or a moved trachea is no wide mediastinum, but not normal;
# - heart valve calcified is Support Devices and No Finding: it is the patient's own valve;
# - air fluid level is Lung Lesion and No Finding: as often it lies in a hernia or in the pleura;
# - pericardial effusion is Pleural Effusion: the wrong sac;
# - pneumomediastinum, pneumoperitoneo and subcutaneous emphysema are Pneumothorax: the wrong place;
# - lesions of bone and breast are Lung Lesion: the wrong organ.
# Emphysema, fibrosis without a word of the lung, and hernia are unmapped in ChestX-ray14 as well.

SAYS_NOTHING = frozenset({"unchanged"})
UNFIT = frozenset({"exclude", "suboptimal study"})
"""The archive's own words for an image that should not be used."""


def _names(text: str) -> list[str]:
    return [" ".join(name.split()) for name in text.split(",") if name.strip()]


TABLE: dict[str, tuple[tuple[str, int], ...]] = {}
"""The statements (label, state) of each name; of a finding that is none of the 14 there are none."""
for _group, _state in ((_POSITIVE, POSITIVE), (_UNCERTAIN, UNCERTAIN)):
    for _label, _text in _group.items():
        for _name in _names(_text):
            TABLE[_name] = (*TABLE.get(_name, ()), (_label, _state))
INCIDENTAL = frozenset(_names(_INCIDENTAL))
OTHER = frozenset(_names(_OTHER))
KNOWN = TABLE.keys() | INCIDENTAL | OTHER | SAYS_NOTHING | UNFIT
OWN_LABELS = KNOWN - SAYS_NOTHING - UNFIT
"""The archive's own names of findings, devices and what is normal."""


def normalise(name: str) -> str:
    """The key of a label: lower case, single spaces."""
    return " ".join(name.lower().split())


def padchest_states(names: Iterable[str]) -> tuple[int, ...]:
    """The 14 states of a study with these labels (see `normalise`).

    PadChest names what there is, so nothing is ever negative. No Finding is positive only where
    all that is named is normal or incidental: a name that is not KNOWN may be a finding.
    """
    meaningful = set(names) - SAYS_NOTHING - UNFIT - {""}
    statements = [statement for name in sorted(meaningful) for statement in TABLE.get(name, ())]
    if meaningful and meaningful <= INCIDENTAL:
        statements = [("No Finding", POSITIVE)]
    return states_of(statements)
