"""Who is a patient, by the names of folders and files alone.

Two files of one person must never be two patients, or the person may be in training and in test. So a
name is cut at the first word that tells of a session, a contrast or a processing step, a folder that
only sorts files (a split, a contrast, images, labels) is no patient, and a folder around all files is
none either. Where in doubt files count as one patient's; where that may be wrong as well, the user is
asked.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ray_mae.data.archives.folders import stem_of
from ray_mae.data.archives.volumes.contrasts import UNKNOWN, contrast_in, is_contrast

# A word that names a session, with its value: ses-2, visit1, tp_03, a date, MR1 of OASIS.
_SESSION = re.compile(
    r"(?:session|ses|visit|timepoint|time|tp)(?:-[a-z0-9]+|_?\d+[a-z]?)|mr\d|"
    r"(?:19|20)\d\d(?P<s>[-_.]?)(?:0[1-9]|1[0-2])(?P=s)(?:0[1-9]|[12]\d|3[01])|"
    r"baseline|follow-?up_?\d*|bl|fu\d+[a-z]?",
    re.IGNORECASE,
)
# Words that name a session behind a patient's name, and may begin a name: v1, m06, d0129, week04, scan2.
_VISIT = re.compile(
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
_WORD = re.compile(rf"(?:{_SESSION.pattern}|{_ENTITY.pattern})(?![a-z0-9])|[^-_ .]+", re.IGNORECASE)
_SUBJECT = re.compile(r"(?<![a-z0-9])sub-[a-z0-9]+", re.IGNORECASE)
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
# The folder of one scan of a patient: anat3 of OASIS-3, scan12, series_4.
_SCAN = re.compile(r"(?:anat|func|dwi|perf|fmap|mri|scan|series|ser|se|img|image|vol)\d+", re.I)
# Words that say how an image was made or worked on: they come after the patient's name.
_DESCRIBING = frozenset(
    "pre post ce gd gad gado contrast nativ native ax axial tra transversal sag sagittal cor coronal "
    "2d 3d tse fse se gre tof dark iso reg registered coreg bet brain n4 bfc skull stripped "
    "skullstripped ss defaced deface preproc norm normalized normalised resampled mni space seg mask "
    "dseg label labels segmentation phase mag magnitude ph imag imaginary real subtraction".split()
)
# The number of the channel that nnU-Net puts behind a case: BRATS_001_0000.nii.gz.
CHANNEL = re.compile(r"_(000\d)$")
_CUTS = " -_."
# A name no longer than this behind a contrast may be a setting of the scan: p2, iso1.
_SHORT = 4
# Names that begin alike may be of one person, if they are no more than this on average.
_VISITS = 3
# A folder that may be a year or a patient.
_YEAR = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True)
class People:
    """Patients and sessions of files, and what is to be said of them."""

    patients: list[str]
    """By file; "" where nothing but contrasts and the like is said."""
    sessions: list[str | None]
    warnings: list[str]
    """For whoever runs the job: they name files."""


def people_of(paths: Sequence[str]) -> People:
    """Tell the patient and session of each file below an archive's root.

    A name sub-… of BIDS counts before all others, wherever it stands. Else it is the first folder
    that may be a patient and does not hold all files; else the file's own name.

    Raises:
        ValueError: the names can be read in two ways that give other patients.
    """
    chains = [_candidates(path) for path in paths]
    shared = _shared(chains)
    chains = [[name for name in chain if name not in shared] or chain[-1:] for chain in chains]
    subjects = [_subject(path) for path in paths]
    labels = {subject.partition("-")[2]: subject for subject in subjects if subject}
    patients = _one_spelling(
        subject or labels.get(name, name)
        for subject, name in zip(subjects, _choose(paths, chains), strict=True)
    )
    sessions = [_session(path) for path in paths]
    check_visits(patients)
    return People(patients, sessions, [*_groups(paths, chains, patients), *alike(patients)])


def _one_spelling(names: Iterable[str]) -> list[str]:
    """The names, those that differ in capitals or in the signs between words spelt as the first."""
    spellings: dict[str, str] = {}
    return [
        spellings.setdefault(re.sub(rf"[{re.escape(_CUTS)}]+", "_", name.casefold()), name)
        for name in names
    ]


def match_people(paths: Iterable[str], text: str) -> People:
    """Tell patient and session by a regular expression that is searched in each path.

    "" where it is not found. ValueError if it is none, or has no group (?P<patient>…).
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(
            f"{text!r} is no regular expression ({error}) (volumes.patient_pattern)"
        ) from error
    if "patient" not in pattern.groupindex:
        raise ValueError(f"{text!r} has no group (?P<patient>…) (volumes.patient_pattern)")
    found = [match.groupdict() if (match := pattern.search(path)) else {} for path in paths]
    return People(
        [groups.get("patient") or "" for groups in found],
        [groups.get("session") for groups in found],
        [],
    )


def _candidates(path: str) -> list[str]:
    """What may be the patient's name, from the topmost folder down to the file's own name.

    At least one, if only "".
    """
    below, stem = folders_below_collections(path), case_of(path)
    names = list(filter(None, map(_name_of_folder, below)))
    scans = [name for name in names if _SCAN.fullmatch(name)]
    names = [name for name in names if name not in scans]
    names = names[:1] + [name for name in names[1:] if not _VISIT.fullmatch(name)]  # p7/v1/T1.nii
    own = name_in(stem)
    rest = (
        *map(name_in, below),  # p7_T1/image.nii.gz: what the folder of a contrast says besides
        *scans,
        name_in(stem, generic=True),
    )
    return [*names, *filter(None, [own])] or [next(filter(None, rest), "")]


def _name_of_folder(folder: str) -> str:
    """The patient's name in a folder's: p7 in p7_T1, Patient12 in CT_Patient12; none in t1_sag_p2_iso."""
    if name := name_in(folder, leading=True):
        return name
    name = name_in(folder)
    before = folder.removesuffix(name)
    led = before != folder and all(map(is_contrast, words_of(before)))
    return name if led and len(name) > _SHORT else ""


def folders_below_collections(path: str) -> list[str]:
    """The folders of a path below the last one that is a split or one of nnU-Net's."""
    folders = path.split("/")[:-1]
    last = max((i for i, name in enumerate(folders) if name.lower() in COLLECTIONS), default=-1)
    return folders[last + 1 :]


def _shared(chains: Sequence[Sequence[str]]) -> set[str]:
    """Names that all files have: of a folder around all of them, or of the data set.

    None where it would leave some files without a name, and others with one.
    """
    shared = set.intersection(*map(set, chains)) if len(chains) > 1 else set()
    left = sum(any(name not in shared for name in chain) for chain in chains)
    return shared if 2 * left > len(chains) or not left else set()


def _subject(path: str) -> str | None:
    """The name sub-… of BIDS, of the file or of the nearest folder."""
    for name in reversed(path.split("/")):
        if match := _SUBJECT.search(name):
            return match[0]
    return None


def _choose(paths: Sequence[str], chains: Sequence[Sequence[str]]) -> list[str]:
    """One name of each chain. ValueError if the first names may be groups of patients or patients."""
    numbered = [next(filter(_is_number, chain), chain[0]) for chain in chains]
    # in these without a number some files repeat the name of a folder: they are groups
    groups = {
        chain[0]
        for path, chain, name in zip(paths, chains, numbered, strict=True)
        if name != chain[0] and name in chain[:-1] and _says(stem_of(path), name)
    }
    chosen, finer = [], defaultdict(set)
    for chain, name in zip(chains, numbered, strict=True):
        chosen.append(name if chain[0] in groups else chain[0])
        finer[chosen[-1]].add(name)
    for path, name, other in zip(paths, chosen, numbered, strict=True):
        if name != other and len(finer[name]) > 1 and not _subject(path):
            raise ValueError(
                f"{path}: the patient may be {name!r} or {other!r}, and {name!r} holds several of the "
                "latter: say which with volumes.patient_pattern, "
                f"{_pattern(path, name)} or {_pattern(path, other)}"
            )
    return chosen


def _is_number(name: str) -> bool:
    """Whether a name holds a number that is no year: patients mostly have one, cities and groups do not."""
    return _has_digit(name) and not _YEAR.fullmatch(name)


def _has_digit(name: str) -> bool:
    return any(letter.isdigit() for letter in name)


def _says(stem: str, name: str) -> bool:
    """Whether a file's name holds another name as whole words."""
    return re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", stem, re.I) is not None


def _pattern(path: str, name: str) -> str:
    """A regular expression that finds this name where it stands in the path."""
    before, _, after = path.partition(name)
    folders, prefix = "[^/]+/" * before.count("/"), re.escape(before.rpartition("/")[2])
    inner = "[^/]+" if after.startswith("/") else shape_of(name)
    return f"'^{folders}{prefix}(?P<patient>{inner})'"


def shape_of(name: str) -> str:
    """A regular expression for names that differ from this one by their numbers."""
    return re.sub(r"\d+", r"\\d+", re.escape(name).replace(r"\-", "-"))


def _shape_of_end(end: str) -> str:
    """A regular expression for endings like this one: p1_a and p1_b, p1_v1 and p1_v2."""
    return re.sub(r"\d+", r"\\d+", re.sub("[A-Za-z]+", "[A-Za-z]+", end))


def _groups(
    paths: Sequence[str], chains: Sequence[Sequence[str]], patients: Sequence[str]
) -> list[str]:
    """A warning if the folder taken as patient holds folders whose names the files repeat."""
    within: dict[str, dict[str, str]] = defaultdict(dict)
    for path, chain, patient in zip(paths, chains, patients, strict=True):
        if patient == chain[0] and not _says(stem_of(path), patient):
            for name in chain[1:-1]:
                if _has_digit(name) and _says(stem_of(path), name):
                    within[patient][name] = path
    for patient, names in within.items():
        if len(names) > 1:
            one, path = next(iter(names.items()))
            return [
                f"{patient!r} counts as one patient; if {one!r} and the {len(names) - 1} others in it "
                f"are patients, say so: volumes.patient_pattern {_pattern(path, one)}"
            ]
    return []


_TOKEN = re.compile(r"[A-Za-z]+\d*|\d+")


def _last_token(name: str) -> tuple[str, str]:
    """A name as its last token and what is before it, ("", name) where it has but one."""
    tokens = list(_TOKEN.finditer(name))
    if len(tokens) < 2:
        return "", name
    start = tokens[-1].start()
    return name[:start].rstrip(_CUTS), name[start:]


def check_visits(patients: Iterable[str]) -> None:
    """Raise ValueError if the names look like visits: few endings that come back behind many beginnings.

    p1_a, p1_b, p2_a, p2_b are four patients, or two of two visits each: names alone cannot tell.
    """
    beginnings: dict[str, set[str]] = defaultdict(set)
    ends: dict[str, set[str]] = defaultdict(set)
    patients = {patient for patient in patients if not _SUBJECT.match(patient)}  # of BIDS: no visit
    for patient in patients:
        beginning, end = _last_token(patient)
        if beginning:
            beginnings[beginning].add(end)
            ends[end].add(beginning)
    repeated = {
        beginning: sorted(found)
        for beginning, of_it in sorted(beginnings.items())
        if len(found := {end for end in of_it if len(ends[end]) > 1}) > 1
    }
    distinct = set().union(*repeated.values()) if repeated else set()
    if len(repeated) > 1 and len(distinct) <= len(beginnings):
        beginning, endings = next(iter(repeated.items()))
        one, two = (
            next(p for p in sorted(patients) if _last_token(p) == (beginning, end))
            for end in endings[:2]
        )
        start, end = shape_of(beginning), _shape_of_end(endings[0])
        cut = "[-_. ]" if len(beginning) + len(endings[0]) < len(one) else ""
        raise ValueError(
            f"{one!r} and {two!r}: two patients, or two visits of one? Folders and file names do not "
            f"tell, of {len(repeated):,} such names: say so with volumes.patient_pattern, "
            f"'(?P<patient>{start}{cut}{end})' for two patients, "
            f"'(?P<patient>{start}){cut}(?P<session>{end})' for one"
        )


def alike(patients: Iterable[str]) -> list[str]:
    """A warning where different patients may be visits of one: see `_beginnings` and `_begin_alike`."""
    names = sorted({patient for patient in patients if patient})
    if pairs := _beginnings(names) or _begin_alike(names):
        one, two = pairs[0]
        more = f", and {len(pairs) - 1:,} more such pairs" if len(pairs) > 1 else ""
        return [
            f"{one!r} and {two!r}{more} count as different patients: if they are visits of one, say so "
            "with volumes.patient_pattern"
        ]
    return []


def _beginnings(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of which one begins the other: p7 and p7_b, p7 and p7b, but not p1 and p10."""
    known = set(names)
    pairs = []
    for name in names:
        for cut in range(1, len(name)):
            before, after = name[cut - 1], name[cut]
            if (before.isdigit() and after.isdigit()) or (before.isalpha() and after.isalpha()):
                continue
            beginning = name[:cut].rstrip(_CUTS)
            if beginning in known:
                pairs.append((beginning, name))
                break
    return pairs


def _begin_alike(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs with the same numbered beginning, a few of each: MRN7_ACC12 and MRN7_ACC31.

    A beginning of many is a site's (ADNI's 011_S_0021), one of all the data set's, and sub-… is BIDS'.
    """
    of_beginning: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if not _SUBJECT.match(name):
            for index, token in enumerate(list(_TOKEN.finditer(name))[:-1]):
                if _has_digit(beginning := name[: token.end()]):
                    of_beginning[index][beginning].append(name)
    for groups in of_beginning.values():
        several = [group for group in groups.values() if len(group) > 1]
        if several and len(groups) > 1 and sum(map(len, groups.values())) <= _VISITS * len(groups):
            return [(group[0], other) for group in several for other in group[1:]]
    return []


def case_of(path: str) -> str:
    """The file's name without suffix and channel. patient_0001 has a number, and no channel."""
    stem = stem_of(path)
    case = CHANNEL.sub("", stem)
    nnunet = any(folder.lower().startswith("imagest") for folder in path.split("/")[:-1])
    return case if nnunet or _has_digit(case) else stem


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
            or (visits and _VISIT.fullmatch(word[0]) and _has_digit(so_far))
        ):
            end = word.start()
            break
    patient = name[start:end].strip(_CUTS)
    return patient if generic or not all(map(_is_generic, words_of(patient))) else ""


def _is_generic(word: str) -> bool:
    return word.lower() in _GENERIC or _NUMBERED.fullmatch(word) is not None


def _describes(word: str) -> bool:
    """Whether a word names a session, a contrast or a processing step."""
    return bool(
        _SESSION.fullmatch(word)
        or _ENTITY.fullmatch(word)
        or word.lower() in _DESCRIBING
        or is_contrast(word)
    )


def _starts_as_contrast(word: str) -> bool:
    """FLAIR2 and T1_1mm behind a name are contrasts; CT001 and PD12 are numbers of patients."""
    return contrast_in(word) != UNKNOWN and not re.fullmatch(r"[A-Za-z]+\d\d+", word)


def _session(path: str) -> str | None:
    """The session: the first word of the path that names one, else one behind a patient's name."""
    names = [*folders_below_collections(path), case_of(path)]
    words = [words_of(name) for name in names]
    if session := next(filter(_SESSION.fullmatch, (w for of_name in words for w in of_name)), None):
        return session
    behind = [w for of_name in words for w in of_name[1:] if _has_digit(of_name[0])]
    behind += [of_name[0] for of_name in words[1:-1] if len(of_name) == 1]  # p7/v1/T1.nii
    return next((w for w in behind if _VISIT.fullmatch(w) and not is_contrast(w)), None)
