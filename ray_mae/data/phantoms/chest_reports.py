"""Label states and the words of a report, from the diseases that were drawn.

The states are drawn first, as a labeller would find them; every sentence follows from a state, so
that text and labels agree. The reports are templates: they say nothing about medicine.
"""

import numpy as np

from ray_mae.data.labels import CHEXPERT_LABELS, NEGATIVE, NOT_MENTIONED, POSITIVE, UNCERTAIN
from ray_mae.data.phantoms.chest_diseases import Finding

# Fields: {side} {place} {size}. Per label: sentences for positive, uncertain, negative.
SENTENCES: dict[str, tuple[list[str], list[str]]] = {
    "Enlarged Cardiomediastinum": (
        [
            "The mediastinal silhouette is widened.",
            "There is {size} widening of the upper mediastinum.",
            "The cardiomediastinal contour is enlarged with a prominent aortic knob.",
        ],
        [
            "The mediastinum appears possibly widened.",
            "Mediastinal widening cannot be excluded.",
            "Apparent prominence of the mediastinum may be projectional.",
        ],
    ),
    "Cardiomegaly": (
        [
            "There is {size} cardiomegaly.",
            "The heart is enlarged.",
            "The cardiac silhouette is {size}ly enlarged.",
            "Heart size is increased, in keeping with {size} cardiomegaly.",
        ],
        [
            "The heart may be mildly enlarged.",
            "Heart size is at the upper limits of normal, borderline cardiomegaly.",
            "Possible cardiomegaly.",
        ],
    ),
    "Lung Opacity": (
        [
            "There is a {size} hazy opacity in the {place}.",
            "Increased opacity projects over the {place}.",
            "Ill-defined opacification of the {place} is seen.",
            "A {size} airspace opacity is present in the {place}.",
        ],
        [
            "A subtle opacity in the {place} is questioned.",
            "Possible faint opacity in the {place}.",
            "Apparent haziness of the {place} may be due to overlying soft tissue.",
        ],
    ),
    "Lung Lesion": (
        [
            "There is a {size} nodule in the {place}.",
            "A {size} rounded nodular density projects over the {place}.",
            "A well-circumscribed {size} mass is seen in the {place}.",
            "{size} pulmonary nodule, {place}.",
        ],
        [
            "A nodule in the {place} cannot be excluded.",
            "A rounded density in the {place} may represent a nodule or a nipple shadow.",
            "Questionable nodular density in the {place}.",
        ],
    ),
    "Edema": (
        [
            "There is {size} pulmonary edema.",
            "Interstitial markings are increased bilaterally, consistent with {size} edema.",
            "Reticular perihilar markings with {size} interstitial pulmonary edema.",
            "Findings of {size} pulmonary vascular congestion and interstitial edema.",
        ],
        [
            "Prominent interstitial markings may represent mild edema.",
            "Mild interstitial edema is not excluded.",
            "Possible early pulmonary edema.",
        ],
    ),
    "Consolidation": (
        [
            "There is consolidation in the {place}.",
            "Dense {size} consolidation with air bronchograms in the {place}.",
            "Confluent consolidation of the {place} is noted.",
        ],
        [
            "Early consolidation in the {place} cannot be excluded.",
            "Increased density in the {place} may represent consolidation.",
            "Possible consolidation in the {place}.",
        ],
    ),
    "Pneumonia": (
        [
            "Patchy multifocal spots in the {place} are compatible with pneumonia.",
            "Findings are consistent with {place} pneumonia.",
            "Patchy infiltrate in the {place} reflects bronchopneumonia.",
        ],
        [
            "Pneumonia in the {place} cannot be excluded in the appropriate clinical setting.",
            "Patchy markings in the {place} may represent pneumonia.",
            "Findings in the {place} are suspicious for developing pneumonia.",
        ],
    ),
    "Atelectasis": (
        [
            "Linear atelectasis is present at the {place}.",
            "There is {size} plate-like atelectasis at the {place}.",
            "Band-like densities at the {place} reflect subsegmental atelectasis.",
            "Low volume of the {side} lung with {size} discoid atelectasis.",
        ],
        [
            "Streaky densities at the {place} may represent atelectasis.",
            "Probable atelectasis at the {place}, although scarring is possible.",
            "Possible minimal atelectasis at the {place}.",
        ],
    ),
    "Pneumothorax": (
        [
            "There is a {size} {side} pneumothorax.",
            "A {size} apical pneumothorax is seen on the {side}.",
            "A thin pleural line is visible at the {place}, consistent with {size} pneumothorax.",
        ],
        [
            "A tiny {side} apical pneumothorax cannot be excluded.",
            "Lucency at the {place} may represent a small pneumothorax.",
            "Questionable pleural line at the {place}.",
        ],
    ),
    "Pleural Effusion": (
        [
            "There is a {size} {side} pleural effusion.",
            "Blunting of the {side} costophrenic angle by a {size} effusion.",
            "{size} {side} pleural fluid is present.",
        ],
        [
            "A trace {side} pleural effusion cannot be excluded.",
            "Slight blunting of the {side} costophrenic angle may represent a small effusion.",
            "Possible tiny {side} effusion.",
        ],
    ),
    "Pleural Other": (
        [
            "Calcified pleural plaques are noted, {side}.",
            "There is {side} pleural thickening with plaques.",
            "{side} calcified pleural thickening, in keeping with prior asbestos exposure.",
        ],
        [
            "Peripheral density on the {side} may represent pleural thickening.",
            "Possible {side} pleural plaque.",
        ],
    ),
    "Fracture": (
        [
            "Displaced fractures of the {place} are seen.",
            "There are healing fractures of the {place} with callus.",
            "Multiple {place} are fractured.",
        ],
        [
            "A fracture of the {place} cannot be excluded.",
            "Irregularity of the {place} may represent a nondisplaced fracture.",
        ],
    ),
    "Support Devices": (
        [
            "A {size} is in place.",
            "{size} is seen in expected position.",
            "There is a {size}, unchanged in position.",
        ],
        [
            "A linear density may represent a catheter or an external lead.",
            "Overlying line, possibly external to the patient.",
        ],
    ),
}
NEGATIVES: dict[str, tuple[str, list[str]]] = {  # the word for a list, and whole sentences
    "Enlarged Cardiomediastinum": (
        "mediastinal widening",
        ["The mediastinal contours are normal.", "The mediastinum is not widened."],
    ),
    "Cardiomegaly": (
        "cardiomegaly",
        ["The heart is normal in size.", "Cardiac silhouette is within normal limits."],
    ),
    "Lung Opacity": ("focal opacity", ["There is no focal airspace opacity."]),
    "Lung Lesion": ("suspicious nodule", ["No pulmonary nodule or mass is identified."]),
    "Edema": ("pulmonary edema", ["There is no evidence of pulmonary edema."]),
    "Consolidation": ("consolidation", ["There is no focal consolidation."]),
    "Pneumonia": ("pneumonia", ["There is no evidence of pneumonia."]),
    "Atelectasis": ("atelectasis", ["There is no atelectasis.", "No volume loss or atelectasis."]),
    "Pneumothorax": ("pneumothorax", ["There is no pneumothorax.", "No pneumothorax is seen."]),
    "Pleural Effusion": (
        "pleural effusion",
        ["No pleural effusion is seen.", "There is no pleural effusion."],
    ),
    "Pleural Other": ("pleural thickening", ["No pleural thickening or plaque."]),
    "Fracture": (
        "acute fracture",
        ["No acute osseous abnormality or fracture.", "No displaced rib fracture."],
    ),
    "Support Devices": ("support devices", ["No lines or tubes are present."]),
}
OFTEN_DENIED = {"Pneumothorax": 0.8, "Pleural Effusion": 0.8, "Consolidation": 0.6, "Edema": 0.45,
                "Cardiomegaly": 0.6, "Enlarged Cardiomediastinum": 0.4, "Pneumonia": 0.3,
                "Fracture": 0.3}  # fmt: skip
NORMAL = [
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "Unremarkable examination of the chest.",
    "No evidence of acute disease in the chest.",
]
CLEAR = ["The lungs are clear.", "Lungs are well expanded and clear.", "Both lungs are clear."]
LINKS = ["Follow-up radiographs are recommended.", "Clinical correlation is advised.",
         "Findings were discussed with the referring team by telephone.", ""]  # fmt: skip
INDICATIONS = ["cough", "shortness of breath", "chest pain", "fever", "fall from height",
               "preoperative evaluation", "weight loss", "dyspnea on exertion", "routine follow-up",
               "hypoxia", "smoker with chronic cough", "status post surgery"]  # fmt: skip
COMPARISONS = ["None.", "None available.", "Prior chest radiograph.", "Radiograph of last year."]


def draw_states(findings: dict[str, Finding], rng: np.random.Generator) -> dict[str, int]:
    """The state of each of the 14 labels, as a labeller would read it off the report.

    A present disease is positive, or uncertain (7 %), or not mentioned (4 %); an absent one is
    negative or not mentioned, rarely uncertain (1.5 %). No Finding is positive where no disease was
    drawn and none is suspected, and otherwise not mentioned.
    """
    states = {}
    for label in CHEXPERT_LABELS[1:]:
        a, b = rng.random(2)
        if label in findings:
            states[label] = UNCERTAIN if a < 0.07 else NOT_MENTIONED if a < 0.11 else POSITIVE
        elif a < 0.015:
            states[label] = UNCERTAIN
        else:
            states[label] = NEGATIVE if b < OFTEN_DENIED.get(label, 0.08) else NOT_MENTIONED
    clean = not findings and UNCERTAIN not in states.values()
    return {"No Finding": POSITIVE if clean else NOT_MENTIONED} | states


def _pick(rng: np.random.Generator, some: list[str]) -> str:
    return some[rng.integers(len(some))]


def _sentence(template: str, finding: Finding) -> str:
    text = template.format(side=finding.side, place=finding.place, size=finding.size)
    return text[0].upper() + text[1:]


def _suspected(label: str, rng: np.random.Generator) -> Finding:
    """What an uncertain report names where nothing was drawn."""
    side = _pick(rng, ["right", "left"])
    place = {
        "Atelectasis": f"{side} base",
        "Pneumothorax": f"{side} apex",
        "Fracture": f"{side} lateral ribs",
    }.get(label, f"{side} {_pick(rng, ['upper', 'lower'])} lobe")
    return Finding(side, place, "small")


def _denials(negative: list[str], rng: np.random.Generator) -> list[str]:
    """Negative labels as whole sentences and as one list such as `No effusion or pneumothorax`."""
    alone = [label for label in negative if rng.random() < 0.4]
    joined = [NEGATIVES[label][0] for label in negative if label not in alone]
    sentences = [_pick(rng, NEGATIVES[label][1]) for label in alone]
    if joined:
        rng.shuffle(joined)
        listed = joined[0] if len(joined) == 1 else f"{', '.join(joined[:-1])} or {joined[-1]}"
        sentences.append(f"{_pick(rng, ['No', 'There is no', 'No evidence of'])} {listed}.")
    return sentences


def write_report(
    findings: dict[str, Finding],
    states: dict[str, int],
    views: list[str],
    rng: np.random.Generator,
) -> str:
    """The text of a report: one layout of several, sections with the states' sentences."""
    positive, summary = [], []
    for label in CHEXPERT_LABELS[1:]:
        state = states[label]
        if state in (POSITIVE, UNCERTAIN):
            some = SENTENCES[label][0 if state == POSITIVE else 1]
            finding = findings.get(label) or _suspected(label, rng)
            positive.append(_sentence(_pick(rng, some), finding))
            summary.append(_sentence(_pick(rng, some), finding))
    denied = _denials([k for k, state in states.items() if state == NEGATIVE], rng)
    if not positive:
        denied.insert(0, _pick(rng, CLEAR) if states["No Finding"] == POSITIVE else "")
    sentences = [s for s in positive + denied if s]
    if rng.random() < 0.5:
        rng.shuffle(sentences)
    if states["No Finding"] == POSITIVE:
        summary = [_pick(rng, NORMAL)]
    elif not summary:
        summary = ["Stable examination."]
    findings_text = " ".join(sentences) or "Stable examination."
    impression = _impression(summary, rng)
    return _layout(findings_text, impression, views, rng)


def _impression(summary: list[str], rng: np.random.Generator) -> str:
    """Sentences in a row, or a numbered list; at times a recommendation."""
    if rng.random() < 0.3:
        summary = [*summary, _pick(rng, LINKS)]
    summary = [s for s in summary if s]
    if len(summary) > 1 and rng.random() < 0.5:
        return "\n".join(f"{i}. {s}" for i, s in enumerate(summary, 1))
    return " ".join(summary)


def _layout(findings: str, impression: str, views: list[str], rng: np.random.Generator) -> str:
    """One of five layouts of the same sections; one in seven reports has findings only."""
    exam = "CHEST (PA AND LAT)" if len(set(views)) > 1 else f"CHEST ({(views or ['PA'])[0]})"
    indication, comparison = _pick(rng, INDICATIONS), _pick(rng, COMPARISONS)
    layout = rng.integers(7)
    if layout == 0:
        return f"FINDINGS: {findings}\n"
    if layout == 1:
        return f"Findings:\n{findings}\n\nImpression:\n{impression}\n"
    if layout == 2:
        return (
            f"EXAMINATION: {exam}\n\nINDICATION: {indication}\n\nCOMPARISON: {comparison}\n\n"
            f"FINDINGS:\n\n{findings}\n\nIMPRESSION:\n\n{impression}\n"
        )
    if layout == 3:
        return f"HISTORY: {indication}.\nFINDINGS: {findings}\nIMPRESSION: {impression}\n"
    if layout == 4:
        return (
            f" FINAL REPORT\n EXAMINATION:  {exam}\n\n CLINICAL INFORMATION:  {indication}\n\n"
            f" TECHNIQUE:  {len(views)} view(s) of the chest.\n\n FINDINGS: \n\n {findings}\n\n"
            f" IMPRESSION: \n\n {impression}\n"
        )
    if layout == 5:
        return f"CHEST RADIOGRAPH\nIndication: {indication}\nFINDINGS: {findings}\n" + (
            f"IMPRESSION: {impression}\n"
        )
    return f"COMPARISON: {comparison}\nFindings: {findings}\nIMPRESSION: {impression}\n"
