"""What a pretraining saw of the test patients of a data set: found where it can be, else as declared."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import islice
from operator import or_
from pathlib import Path
from typing import Any

from ray_mae.benchmarking.archives_table import MAY_HOLD_ANYTHING, canonical, plain, relation
from ray_mae.benchmarking.overlap import Each, Looks, Overlap, find_overlap, looks_of, shards_of
from ray_mae.benchmarking.ray_tasks import run_tasks
from ray_mae.benchmarking.records import EXPOSURES
from ray_mae.checkpoint import format as ckpt
from ray_mae.config.suite import DatasetEntry, EncoderEntry
from ray_mae.data.schema import NOUNS, SPLITS, Manifest


@dataclass(frozen=True)
class Exposure:
    """Of one encoder to the test samples of one data set."""

    state: str
    """One of EXPOSURES."""
    why: str
    """Sentences: how it is known."""
    patients: int = 0
    """Test patients who were seen, as far as they were found."""
    images: int = 0
    """Test images or volumes that were seen, or one that looks the same."""
    samples: list[str] = field(default_factory=list)
    """Identifiers of the test samples that were seen: scores without them can be given."""
    which_is_known: bool = True
    """Whether `samples` are all of them; not where exposure is only declared."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know that is no exposure."""
    read: list[str] = field(default_factory=list)
    """What the pretraining read of its own training samples beside their images: reports, labels."""


@dataclass(frozen=True)
class _Pretraining:
    """Shards that an encoder was pretrained on."""

    name: str
    """Of the data set, as the checkpoint says; "" where it does not."""
    sha256: str
    folder: Path | None
    """Where they lie; None where they are not found as they were."""
    read: tuple[str, ...] = ()
    """What was read of them beside the images: reports, labels."""
    uses: str = ""
    """What labels were read for."""


@dataclass(frozen=True)
class _Found:
    """Of one source of an encoder."""

    exposure: Exposure
    overlap: Overlap = field(default_factory=Overlap)
    notes: tuple[str, ...] = ()


NOTES = {
    "reports": "The pretraining read reports of the train split of {shards}. Where labels are mined from "
    "such reports, it has seen what test labels are made of.",
    "labels": "The pretraining read labels of the train split of {shards}{uses}. Where heads are fitted to "
    "few of these labels, it has an advantage over encoders that read none.",
}
"""Notes on what a pretraining read beside images."""


class ExposureSearch:
    """Looks for test samples in pretrainings: each folder of shards is read once for all encoders."""

    def __init__(self, datasets: Mapping[str, DatasetEntry], each: Each | None = map) -> None:
        """each: applies a function to shards, in order, such as `on_ray`; None: no shard is read, and only
        what is declared, and what is of the same shards, counts."""
        self.datasets, self.each = datasets, each
        self.manifests = {n: Manifest.read(d.shards) for n, d in datasets.items()}
        self.sha256 = {n: ckpt.fingerprint(d.shards) for n, d in datasets.items()}
        self.folders = {sha: datasets[n].shards for n, sha in self.sha256.items()}
        self._tests: dict[str, Looks] = {}
        self._overlaps: dict[tuple[str, str], Overlap] = {}

    def exposure(self, entry: EncoderEntry, name: str) -> Exposure:
        """Of one encoder to one data set, by its name: the worst of its sources.

        Raises:
            DamagedShard: a shard of either is not as it was written.
        """
        if entry.kind != "weights":
            return Exposure("none", "It was not pretrained.")
        found = [each for path in entry.sources for each in self._of_source(path, name)]
        declared = self._declared(entry, name)
        if declared is not None:
            ours = all(ckpt.is_ours(path) for path in entry.sources)
            # what the makers of others say stands for the whole; of ours it is said besides
            found = [*found, _Found(declared)] if ours else [_Found(declared)]
        return _worst(found)

    # ------------------------------------------------------------------------------- declared

    def _declared(self, entry: EncoderEntry, name: str) -> Exposure | None:
        """By what the entry says; None where it says nothing."""
        tested = self._archive(name)
        notes = [
            f"{said} may hold published images of any archive."
            for said in entry.trained_on
            if plain(said) in MAY_HOLD_ANYTHING
        ]
        for state, names in (("labels", entry.trained_on_labels), ("images", entry.trained_on)):
            related = [r for said in names if (r := relation(self._archive(said), tested))]
            if related:
                what = "and their labels or reports " if state == "labels" else ""
                why = f"Declared: trained on images {what}of {'; of '.join(related)}."
                return Exposure(state, why, which_is_known=False, notes=notes)
        said_of = [*entry.trained_on, *entry.trained_on_labels]
        if not said_of:
            return None
        listed = ", ".join(canonical(self._archive(n)) for n in said_of)
        why = f"Declared: trained on {listed}, of which none is known to hold images of {canonical(tested)}."
        return Exposure("unknown" if notes else "none", why, which_is_known=not notes, notes=notes)

    def _archive(self, name: str) -> str:
        """The public archive that a name stands for: of a data set of the suite, what its entry says."""
        if name not in self.datasets:
            return name
        return self.datasets[name].archive or self.manifests[name].dataset

    # ---------------------------------------------------------------------------------- found

    def _of_source(self, path: Path, name: str) -> "list[_Found]":
        if not ckpt.is_ours(path):
            why = (
                f"The files of {path.name} do not say what it was pretrained on: declare it with "
                "trained_on."
            )
            return [_Found(Exposure("unknown", why))]
        shards, unknown = _pretrainings(path, self.folders)
        found = [_with_read(self._of_shards(of, name), of) for of in shards]
        read = list(ckpt.encoder_facts(path).read) if unknown else []
        return [*found, *(_Found(Exposure("unknown", why, read=read)) for why in unknown)]

    def _of_shards(self, of: _Pretraining, name: str) -> "_Found":
        """Of one pretraining's shards to the test samples of a data set, beside what it read of them."""
        entry, manifest = self.datasets[name], self.manifests[name]
        if of.sha256 == self.sha256[name] and entry.role == "internal":
            return _Found(Exposure("none", "Pretrained on the train split of these very shards."))
        if of.folder is None:
            of_name = f" of {of.name}" if of.name else ""
            why = (
                f"The shards{of_name} that it was pretrained on are no longer where they were, or are "
                "others: whether they hold test patients cannot be told."
            )
            return _Found(Exposure("unknown", why))
        other = Manifest.read(of.folder)
        if other.kind != manifest.kind:
            nouns = f"{NOUNS[other.kind]} of {other.dataset}"
            why = f"Pretrained on {nouns}; these are {NOUNS[manifest.kind]}."
            return _Found(Exposure("none", why))
        if self.each is None:
            why = f"Nobody looked (trust.leaks): pretrained on {other.dataset}."
            return _Found(Exposure("unknown", why))
        overlap = self._overlap(of, name)
        return _describe(overlap, other, manifest)

    def _overlap(self, of: _Pretraining, name: str) -> Overlap:
        key = of.sha256, name
        if key not in self._overlaps:
            assert self.each is not None
            assert of.folder is not None
            train = shards_of(of.folder, Manifest.read(of.folder), ("train",))
            self._overlaps[key] = find_overlap(self._test(name), self.each(looks_of, train))
        return self._overlaps[key]

    def _test(self, name: str) -> Looks:
        """Of the samples that are tested: of an external data set all."""
        if name not in self._tests:
            assert self.each is not None
            entry = self.datasets[name]
            splits = SPLITS if entry.role == "external" else ("test",)
            looks = Looks()
            for part in self.each(looks_of, shards_of(entry.shards, self.manifests[name], splits)):
                looks.extend(part)
            self._tests[name] = looks
        return self._tests[name]


def _with_read(found: _Found, of: _Pretraining) -> _Found:
    """The same with what the pretraining read beside images: of test samples that it saw, their labels."""
    exposure = replace(found.exposure, read=list(of.read))
    if of.read and exposure.state in ("images", "patients"):
        read = " and ".join(of.read)
        exposure = replace(exposure, state="labels", why=f"{exposure.why} Their {read} were read.")
    shards, uses = of.name or "its shards", of.uses and f": {of.uses}"
    notes = tuple(NOTES[what].format(shards=shards, uses=uses) for what in of.read)
    return replace(found, exposure=exposure, notes=(*found.notes, *notes))


def _pretrainings(path: Path, known: Mapping[str, Path]) -> tuple[list[_Pretraining], list[str]]:
    """Shards that an encoder of ours was pretrained on, and why more are not known.

    known: folders by fingerprint, where shards may lie that have moved.
    """
    if (path / ckpt.EXPORTED).is_file():
        facts = ckpt.encoder_facts(path)
        hashes = facts.trained_on
        why = [] if hashes else ["The exported encoder does not name what it was pretrained on."]
        return [_Pretraining("", sha, known.get(sha), facts.read) for sha in hashes], why
    checkpoint = ckpt.find_checkpoint(path)
    state, config = ckpt.read_state(checkpoint), ckpt.read_config(checkpoint)
    shas = ckpt.trained_on(state)
    folders = {sha: folder for folder in config.folders if (sha := _fingerprint(folder))}
    names = [of.get("dataset", "") for of in state.get("shards", [{}] * len(shas))]
    read, uses = ckpt.read_of(checkpoint, config), "; ".join(config.label_uses)
    found = [
        _Pretraining(name, sha, folders.get(sha) or known.get(sha), read, uses)
        for name, sha in zip(names, shas, strict=True)
    ]
    unknown: list[str] = []
    begun = state.get("begun_with", {}).get("family")
    for weights, how, family in (
        (config.weights, "began with other weights", begun),
        (config.method.frozen_encoder, "was taught by a frozen encoder", None),
    ):
        if weights is None:
            continue
        if ckpt.is_ours(weights):
            more, of_more = _pretrainings(weights, known)
            found, unknown = [*found, *more], [*unknown, *of_more]
        else:
            what = family or weights.name
            unknown.append(
                f"Its pretraining {how} ({what}), and what that was trained on is not known."
            )
    return found, unknown


PER_ROUND = 64
"""Shards whose looks are in memory at a time."""


def on_ray(work: Callable[..., Looks], shards: Iterable[Any]) -> Iterator[Looks]:
    """What `each` may be where Ray runs: a task for each shard."""
    waiting = iter(shards)
    while items := list(islice(waiting, PER_ROUND)):
        yield from run_tasks(work, items, "looked at", "shards for leaks", [1] * len(items))


def _fingerprint(folder: Path) -> str | None:
    with suppress(OSError):
        return ckpt.fingerprint(folder)
    return None


# ------------------------------------------------------------------------------------------- words


def _describe(overlap: Overlap, other: Manifest, tested: Manifest) -> _Found:
    """In words, with what a missing match is worth."""
    keys = _keys(other, tested)
    noun = "image" if tested.kind == "study" else "volume"
    looked = f"Looked for test patients and {noun}s in the train split of {other.dataset}"
    if not overlap.samples:
        return _Found(Exposure("none", f"{looked}: none found. {keys}"))
    why = (
        f"{looked}: {_count(len(overlap.patients), 'patient')} by pseudonym, "
        f"{_count(len(overlap.images), noun)} the same or looking the same. {keys}"
    )
    notes: tuple[str, ...] = ()
    if overlap.patients and other.dataset != tested.dataset and not overlap.images:
        notes = (
            f"No {noun} of these patients looks like one of the pretraining's: {other.dataset} and "
            f"{tested.dataset} may number different people alike; ingest them with a key each to tell.",
        )
    return _Found(Exposure("patients" if overlap.patients else "images", why), overlap, notes)


def _keys(a: Manifest, b: Manifest) -> str:
    """What pseudonyms of two data sets can tell of one person."""
    words = {a.pseudonyms, b.pseudonyms}
    if None in words:
        return "How pseudonyms were made is not known, so a patient may be missed."
    if len(words) > 1 or (words == {"public by data set"} and a.dataset != b.dataset):
        return "Pseudonyms were made with different keys, so only images could tell a patient."
    if words == {"secret"}:
        return "Pseudonyms tell a patient if both were ingested with the same key and identifiers."
    return "Pseudonyms were made with one key."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _worst(found: Sequence[_Found]) -> Exposure:
    """All of them as one: the worst that is known, else unknown where one is, else none."""
    if not found:
        return Exposure("unknown", "Nothing says what it was pretrained on.")
    told = [each.exposure for each in found]
    known = [e for e in told if e.state not in ("unknown", "none")]
    unknown = [e for e in told if e.state == "unknown"]
    rest = known or unknown or told
    overlap = reduce(or_, (each.overlap for each in found))
    return Exposure(
        max((e.state for e in rest), key=EXPOSURES.index),
        " ".join(dict.fromkeys(e.why for e in [*rest, *(unknown if known else [])])),
        len(overlap.patients),
        len(overlap.images),
        sorted(overlap.samples),
        all(e.which_is_known for e in told) and not unknown,
        list(dict.fromkeys([n for each in found for n in [*each.exposure.notes, *each.notes]])),
        list(dict.fromkeys([what for e in told for what in e.read])),
    )
