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
from ray_mae.data.archives.volumes.contrasts import is_contrast
from ray_mae.data.archives.volumes.name_words import (
    COLLECTIONS,
    CUTS,
    SESSION,
    VISIT,
    has_digit,
    name_in,
    words_of,
)

_SUBJECT = re.compile(r"(?<![a-z0-9])sub-[a-z0-9]+", re.IGNORECASE)
# The folder of one scan of a patient: anat3 of OASIS-3, scan12, series_4.
_SCAN = re.compile(r"(?:anat|func|dwi|perf|fmap|mri|scan|series|ser|se|img|image|vol)\d+", re.I)
# The number of the channel that nnU-Net puts behind a case: BRATS_001_0000.nii.gz.
CHANNEL = re.compile(r"_(000\d)$")
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
        spellings.setdefault(re.sub(rf"[{re.escape(CUTS)}]+", "_", name.casefold()), name)
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
    names = names[:1] + [name for name in names[1:] if not VISIT.fullmatch(name)]  # p7/v1/T1.nii
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
    return has_digit(name) and not _YEAR.fullmatch(name)


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
                if has_digit(name) and _says(stem_of(path), name):
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
    return name[:start].rstrip(CUTS), name[start:]


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
            beginning = name[:cut].rstrip(CUTS)
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
                if has_digit(beginning := name[: token.end()]):
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
    return case if nnunet or has_digit(case) else stem


def _session(path: str) -> str | None:
    """The session: the first word of the path that names one, else one behind a patient's name."""
    names = [*folders_below_collections(path), case_of(path)]
    words = [words_of(name) for name in names]
    if session := next(filter(SESSION.fullmatch, (w for of_name in words for w in of_name)), None):
        return session
    behind = [w for of_name in words for w in of_name[1:] if has_digit(of_name[0])]
    behind += [of_name[0] for of_name in words[1:-1] if len(of_name) == 1]  # p7/v1/T1.nii
    return next((w for w in behind if VISIT.fullmatch(w) and not is_contrast(w)), None)
