"""Which public archives hold images of one another, by what their publishers say.

Each archive is written as the sources that its images are of; two that share a source may share patients.
What is not in the table is a source of its own. Collections that are put together from others (FOMO, CXR-LT)
change from version to version: whoever knows better says so with `trained_on`.
"""

import re

_GLIOMA = "upenn-gbm ucsf-pdgm tcga-gbm tcga-lgg brats18 brats21"
"""BraTS 2021 and its successors gathered these collections; RSNA-MICCAI are patients of the same ones."""
_SOURCES = {
    # radiographs
    "nih": "nih",
    "rsna-pneumonia": "nih",
    "siim-pneumothorax": "nih",
    "nih-google": "nih",
    "padchest": "padchest",
    "bimcv": "padchest bimcv",
    "mimic-cxr": "mimic-cxr",
    "ms-cxr": "mimic-cxr",
    "chest-imagenome": "mimic-cxr",
    "mimic-ext": "mimic-cxr",
    "chexpert": "chexpert",
    "chexpert-plus": "chexpert",
    "cxr-lt-2023": "mimic-cxr",
    "cxr-lt-2024": "mimic-cxr",
    "cxr-lt": "padchest nih",
    "vindr-cxr": "vindr-cxr",
    "openi": "openi",
    # brains
    "brats18": "tcga-gbm tcga-lgg upenn-gbm brats18",
    "brats20": "tcga-gbm tcga-lgg upenn-gbm brats18",
    "brats21": _GLIOMA,
    "brats23-gli": _GLIOMA,
    "brats23-men": "brats-men",
    "brats23-met": "brats-met ucsf-bmsr nyumets",
    "rsna-miccai": _GLIOMA,
    "upenn-gbm": "upenn-gbm",
    "ucsf-pdgm": "ucsf-pdgm",
    "ucsf-bmsr": "ucsf-bmsr",
    "tcga-gbm": "tcga-gbm",
    "tcga-lgg": "tcga-lgg",
    "msd-brain": "tcga-gbm tcga-lgg upenn-gbm brats18",
    "openneuro": "openneuro",
    "openmind": "openneuro",
    "on-harmony": "openneuro",
    "fomo60k": f"openneuro oasis ixi {_GLIOMA} brats-men brats-met",
    "fomo300k": f"openneuro oasis ixi abide adni {_GLIOMA} brats-men brats-met",
    "abide": "abide",
    "adni": "adni",
    "ixi": "ixi",
    "oasis": "oasis",
}
_OTHER_NAMES = {
    "chestxray14": "nih", "chestxray8": "nih", "nihcxr": "nih", "nihchestxray": "nih",
    "nihchestxray14": "nih", "nihcc": "nih", "rsna": "rsna-pneumonia", "siim": "siim-pneumothorax",
    "siimacr": "siim-pneumothorax", "mimic": "mimic-cxr", "mimiccxrjpg": "mimic-cxr",
    "chexpertsmall": "chexpert", "chexpertv1": "chexpert", "chexpertv10": "chexpert",
    "cxrlt2026": "cxr-lt", "iu": "openi", "iuxray": "openi", "indiana": "openi", "vindr": "vindr-cxr",
    "bimcvpadchest": "padchest", "brats2018": "brats18", "brats2020": "brats20", "brats2021": "brats21",
    "brats2023gli": "brats23-gli", "brats2023men": "brats23-men", "brats2023met": "brats23-met",
    "brats23": "brats23-gli", "brats2023": "brats23-gli", "rsnamiccaimgmt": "rsna-miccai",
    "upenn": "upenn-gbm", "ucsf": "ucsf-pdgm", "tcga": "tcga-gbm", "fomo": "fomo300k",
    "fomo25": "fomo60k", "fomo26": "fomo300k",
}  # fmt: skip
MAY_HOLD_ANYTHING = frozenset({"pmc15m", "pmcoa", "webli", "roco", "medtrinity", "internet"})
"""Collections of figures and of the web, in which published images of any archive may be."""


def plain(name: str) -> str:
    """Letters and digits of a name, small."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_PLAIN = {plain(name): name for name in _SOURCES} | _OTHER_NAMES


def canonical(name: str) -> str:
    """The name of an archive in this table, or the name as it is."""
    return _BY_PLAIN.get(plain(name), name)


def sources_of(name: str) -> frozenset[str]:
    """What the images of an archive are of."""
    known = canonical(name)
    return frozenset(_SOURCES[known].split() if known in _SOURCES else [plain(name)])


def relation(trained_on: str, tested_on: str) -> str | None:
    """How one archive holds what the other does, as a clause; None where nothing is known of it."""
    a, b = canonical(trained_on), canonical(tested_on)
    shared = sources_of(a) & sources_of(b)
    if not shared:
        return None
    if plain(a) == plain(b):
        return f"{b} itself"
    return f"{a}, which shares images of {', '.join(sorted(shared))} with {b}"
