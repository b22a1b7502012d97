"""Words of the names of folders and files: which part of a name is a patient's, and what the rest says."""

import re

from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_in, is_contrast

# A word that names a session, with its value: ses-2, visit1, tp_03, a date, MR1 of OASIS.
SESSION = re.compile(
    r"(?:session|ses|visit|timepoint|time|tp)(?:-[a-z0-9]+|_?\d+[a-z]?)|mr\d|"
    r"(?:19|20)\d\d(?P<s>[-_.]?)(?:0[1-9]|1[0-2])(?P=s)(?:0[1-9]|[12]\d|3[01])|"
    r"baseline|follow-?up_?\d*|bl|fu\d+[a-z]?",
    re.IGNORECASE,
)
# Words that name a session behind a patient's name, and may begin a name: v1, m06, d0129, week04, scan2.
VISIT = re.compile(
    r"(?:v|vis|m|mo|month|w|wk|week|y|yr|year|d|day|t|scan|exam|re?scan|rep|repeat|fup|followup)_?\d{1,4}[a-z]?|"
    r"\d{1,3}_?(?:mos?|months?|wks?|weeks?|yrs?|years?|days?|[mwyd])|"
    r"re-?test|test|rescan|repeat|pre-?op|post-?op|intra-?op|initial|screening|sc|final|"
    r"first|second|third|before|after",
    re.IGNORECASE,
)
# Entities of BIDS that tell images of one session apart.
_ENTITY = re.compile(
    r"(?:run|acq|echo|rec|dir|inv|flip|part|ce|desc|space|res|den|chunk|task|mod)(?:-[a-z0-9]+|_?\d+)",
    re.IGNORECASE,
)
_WORD = re.compile(rf"(?:{SESSION.pattern}|{_ENTITY.pattern})(?![a-z0-9])|[^-_ .]+", re.IGNORECASE)
# Folders of splits and of nnU-Net: what lies above them is a collection.
COLLECTIONS = frozenset(
    "train training val valid validation test testing imagestr imagests imagesval labelstr labelsts "
    "labelsval".split()
)
# Words of folders that sort files of many patients, or all files of one. None is a patient.
_GENERIC = COLLECTIONS | frozenset(
    "image images img imgs volume volumes vol vols label labels mask masks seg segs segmentation "
    "segmentations data dataset datasets nifti nii niigz niftis anat func dwi perf fmap mri scan scans "
    "raw rawdata source sourcedata derivatives preprocessed processed original originals converted "
    "output outputs input inputs files all set split splits healthy control controls normal case cases "
    "patient patients subject subjects sub folder "
    "ad cn mci emci lmci hc hgg lgg gbm glioma meningioma tumor tumour stroke lesion ms mdd asd adhd "
    "abnormal disease diseased positive negative male female".split()
)  # fmt: skip
_NUMBERED = re.compile(r"(?:fold|batch|chunk|split|site|cent(?:er|re)|group|cohort)\w?\d*", re.I)
# Words that say how an image was made or worked on: they come after the patient's name.
_DESCRIBING = frozenset(
    "pre post ce gd gad gado contrast nativ native ax axial tra transversal sag sagittal cor coronal "
    "2d 3d tse fse se gre tof dark iso reg registered coreg bet brain n4 bfc skull stripped "
    "skullstripped ss defaced deface preproc norm normalized normalised resampled mni space seg mask "
    "dseg label labels segmentation phase mag magnitude ph imag imaginary real subtraction".split()
)
CUTS = " -_."
"""What stands between words."""


def has_digit(name: str) -> bool:
    """Whether there is a digit in a name."""
    return any(letter.isdigit() for letter in name)


def words_of(name: str) -> list[str]:
    """The words of a name, a session or another entity of BIDS being one."""
    return [match[0] for match in _WORD.finditer(name)]


def name_in(name: str, *, generic: bool = False, leading: bool = False, visits: bool = True) -> str:
    """The part of a name before all that describes an image, "" if there is no such part.

    Args:
        name: of a folder, or of a file without its suffix.
        generic: whether the part may consist of generic words.
        leading: whether it must be at the beginning: in a folder t1_mprage_p2 nothing is a patient's.
        visits: whether words such as v1 or scan2 behind a number end it as well.
    """
    words = list(_WORD.finditer(name))
    first = next((i for i, word in enumerate(words) if not _describes(word[0])), len(words))
    if first == len(words) or (leading and first):
        return ""
    start, end = words[first].start(), len(name)
    for word in words[first + 1 :]:
        so_far = name[start : word.start()]
        if (
            _describes(word[0])
            or _starts_as_contrast(word[0])
            or (visits and VISIT.fullmatch(word[0]) and has_digit(so_far))
        ):
            end = word.start()
            break
    patient = name[start:end].strip(CUTS)
    return patient if generic or not all(map(_is_generic, words_of(patient))) else ""


def _is_generic(word: str) -> bool:
    return word.lower() in _GENERIC or _NUMBERED.fullmatch(word) is not None


def _describes(word: str) -> bool:
    """Whether a word names a session, a contrast or a processing step."""
    return bool(
        SESSION.fullmatch(word)
        or _ENTITY.fullmatch(word)
        or word.lower() in _DESCRIBING
        or is_contrast(word)
    )


def _starts_as_contrast(word: str) -> bool:
    """FLAIR2 and T1_1mm behind a name are contrasts; CT001 and PD12 are numbers of patients."""
    return contrast_in(word) != UNKNOWN and not re.fullmatch(r"[A-Za-z]+\d\d+", word)
