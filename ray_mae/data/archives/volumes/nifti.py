"""A folder of NIfTI files: patients by folder or by file name.

Two files of one person must never be two patients, or the person may be in training and in test. So
a name is cut at the first word that tells of a session, a contrast or a processing step, and a
folder that only sorts files (a split, a contrast, images, labels) is no patient. Where in doubt
files count as one patient's.
"""

import re
from collections import Counter

from ray_mae.config import IngestConfig
from ray_mae.data.archives.folders import stem_of, volume_files
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_in, contrast_of, is_contrast

# A word that names a session, with its value: ses-2, visit1, tp_03, a date, MR1 of OASIS.
_SESSION = re.compile(
    r"(?:session|ses|visit|timepoint|time|tp|run|acq)(?:-[a-z0-9]+|_?\d+[a-z]?)|mr\d|"
    r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|baseline|follow-?up\d*|bl|fu\d+",
    re.IGNORECASE,
)
_WORD = re.compile(rf"(?:{_SESSION.pattern})(?![a-z0-9])|[^-_ .]+", re.IGNORECASE)
# Folders of splits and of nnU-Net: what lies above them is a collection.
_COLLECTIONS = frozenset(
    "train training val valid validation test testing imagestr imagests imagesval labelstr labelsts "
    "labelsval".split()
)
# Words of folders that sort files of many patients, or all files of one. None is a patient.
_GENERIC = _COLLECTIONS | frozenset(
    "image images img imgs volume volumes vol vols label labels mask masks seg segs segmentation "
    "segmentations data dataset datasets nifti nii niigz niftis anat func dwi perf fmap mri scan scans "
    "raw rawdata source sourcedata derivatives preprocessed processed original originals converted "
    "output outputs input inputs files all set split splits healthy control controls normal case cases "
    "patient patients subject subjects sub folder".split()
)  # fmt: skip
_NUMBERED = re.compile(r"(?:fold|batch|chunk|split|site|cent(?:er|re)|group|cohort)\w?\d*", re.I)
# Words that say how an image was made or worked on: they come after the patient's name.
_DESCRIBING = frozenset(
    "pre post ce gd gad gado contrast nativ native ax axial tra transversal sag sagittal cor coronal "
    "2d 3d tse fse se gre tof dark iso reg registered coreg bet brain n4 bfc skull stripped "
    "skullstripped ss defaced deface preproc norm normalized normalised resampled mni space seg mask "
    "dseg label labels segmentation".split()
)
# The number of the channel that nnU-Net puts behind a case: BRATS_001_0000.nii.gz.
_CHANNEL = re.compile(r"_000\d$")
_CUTS = " -_."
# A patient with more volumes than this is no patient but a folder of many.
MOST_VOLUMES_PER_PATIENT = 50


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the volumes. FileNotFoundError if there are none, ValueError for a wrong pattern.

    ValueError as well where no pattern is given, and what comes out cannot be patients.
    """
    root, files, passed_over = volume_files(config)
    pattern = _pattern(config.volumes.patient_pattern)
    records = []
    for path in files:
        patient, session = _by_pattern(path, pattern) if pattern else _person(path)
        records.append(
            VolumeRecord(
                paths=(path,),
                volume=path,
                patient=patient,
                session=session,
                modality=_modality(path),
            )
        )
    volumes = Counter(record.patient for record in records if record.patient)
    most = max(volumes.values(), default=len(records))
    if pattern is None and (not volumes or most > MOST_VOLUMES_PER_PATIENT):
        name = volumes.most_common(1)[0][0] if volumes else ""
        one = next(record.paths[0] for record in records if record.patient == name)
        raise ValueError(
            f"{root}: {len(records):,} volumes of {len(volumes)} patients, as far as folders and file "
            f"names tell, one of them with {most} ({one} and so on): say where the patient's name is "
            "with volumes.patient_pattern"
        )
    progress(len(records), len(records))
    notes = {
        "files_passed_over": passed_over,
        "patients": len(volumes),
        "volumes_per_patient": {
            "mean": round(volumes.total() / max(1, len(volumes)), 2),
            "most": most,
        },
    }
    return Archive(root, records, notes)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(
            f"{text!r} is no regular expression ({error}) (volumes.patient_pattern)"
        ) from error
    if "patient" not in pattern.groupindex:
        raise ValueError(f"{text!r} has no group (?P<patient>…) (volumes.patient_pattern)")
    return pattern


def _by_pattern(path: str, pattern: re.Pattern[str]) -> tuple[str, str | None]:
    """Patient and session; "" where the pattern is not found."""
    match = pattern.search(path)
    groups = match.groupdict() if match else {}
    return groups.get("patient") or "", groups.get("session")


def _person(path: str) -> tuple[str, str | None]:
    """Patient and session, by the first folder that may be a patient, or by the file's name.

    "" where both hold nothing but contrasts and the like.
    """
    folders, stem = path.split("/")[:-1], _case(path)
    last = max((i for i, name in enumerate(folders) if name.lower() in _COLLECTIONS), default=-1)
    below = folders[last + 1 :]
    of_patient = next((name for name in below if _may_be_patient(name)), "")
    candidates = (
        _name_in(of_patient),
        _name_in(stem),
        # p7_T1/image.nii.gz: what the folder of a contrast says besides
        *map(_name_in, below),
        _name_in(stem, generic=True),
    )
    words = [word for part in [*below, stem] for word in _words(part)]
    session = next(filter(_SESSION.fullmatch, words), None)
    return next(filter(None, candidates), ""), session


def _case(path: str) -> str:
    """The file's name without suffix and channel. patient_0001 has a number, and no channel."""
    stem = stem_of(path)
    case = _CHANNEL.sub("", stem)
    nnunet = any(folder.lower().startswith("imagest") for folder in path.split("/")[:-1])
    return case if nnunet or re.search(r"\d", case) else stem


def _may_be_patient(folder: str) -> bool:
    """Whether a folder's name can be a patient's: no contrast in it, no session, nothing generic."""
    words = _words(folder)
    if any(is_contrast(word) for word in words):
        return False
    return not all(_is_generic(word) or _SESSION.fullmatch(word) for word in words)


def _is_generic(word: str) -> bool:
    return word.lower() in _GENERIC or _NUMBERED.fullmatch(word) is not None


def _words(name: str) -> list[str]:
    return [match[0] for match in _WORD.finditer(name)]


def _name_in(name: str, *, generic: bool = False) -> str:
    """The part of a name before all that describes an image, "" if there is no such part.

    generic: whether it may consist of generic words.
    """
    words = list(_WORD.finditer(name))
    first = next((i for i, word in enumerate(words) if not _describes(word[0])), len(words))
    rest = words[first + 1 :]
    end = next(
        (w.start() for w in rest if _describes(w[0]) or _starts_as_contrast(w[0])), len(name)
    )
    patient = name[words[first].start() : end].strip(_CUTS) if words[first:] else ""
    return patient if generic or not all(map(_is_generic, _words(patient))) else ""


def _describes(word: str) -> bool:
    """Whether a word names a session, a contrast or a processing step."""
    return bool(_SESSION.fullmatch(word)) or word.lower() in _DESCRIBING or is_contrast(word)


def _starts_as_contrast(word: str) -> bool:
    """FLAIR2 and T1_1mm behind a name are contrasts; CT001 and PD12 are numbers of patients."""
    return contrast_in(word) != UNKNOWN and not re.fullmatch(r"[A-Za-z]+\d\d+", word)


def _modality(path: str) -> str:
    """The contrast in the file's name, else in that of its folders, from the nearest."""
    for name in [stem_of(path), *reversed(path.split("/")[:-1])]:
        if (contrast := contrast_in(name)) != UNKNOWN:
            return contrast
        if code := next(filter(is_contrast, _words(name)), None):
            return contrast_of(code)
    return UNKNOWN
