"""Scores with and without the test samples that something has seen before: pretrainings, or the heads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ray_mae.benchmarking.records import ALL
from ray_mae.benchmarking.statistics.contrasts import Contrast, compare
from ray_mae.benchmarking.statistics.results import Place, Results
from ray_mae.benchmarking.statistics.scores import MACRO, Scored, score_place
from ray_mae.benchmarking.statistics.uncertainty import Score


@dataclass(frozen=True)
class Leak:
    """One encoder under one head on one test, with and without what anybody has seen of it."""

    place: Place
    head: str
    encoder: str
    seen: int
    """Test samples that its own pretraining saw."""
    fitted: int
    """Test samples of patients whom the heads were fitted to or chosen by."""
    samples: int
    """All that are scored."""
    left: int
    """Without those that the pretraining of any encoder saw, and those of such patients: the same for all."""
    every: Score
    clean: Score | None
    """On those that are left; None where they are too few of a class."""


@dataclass(frozen=True)
class CleanContrast:
    """A planned pair with and without these samples."""

    every: Contrast
    clean: Contrast | None
    head: str


@dataclass(frozen=True)
class Leaks:
    """Of a suite; both empty where nothing is known to be seen."""

    scores: list[Leak]
    contrasts: list[CleanContrast]


def leaks(results: Results, main: Sequence[Scored]) -> Leaks:
    """Of main scores, where rows are known to leak."""
    places: dict[Place, dict[tuple[str, str], Scored]] = {}
    for one in main:
        if one.cohort.macro:
            places.setdefault(one.cohort.place, {})[one.cell.head, one.encoder] = one
    found = Leaks([], [])
    for place, here in places.items():
        _of_place(results, place, here, found)
    return found


def _of_place(
    results: Results, place: Place, here: Mapping[tuple[str, str], Scored], found: Leaks
) -> None:
    cohort = next(iter(here.values())).cohort
    sample = results.tables[place.dataset].sample[cohort.rows]
    encoders = dict.fromkeys(encoder for _, encoder in here)
    seen = {
        e: np.isin(sample, results.exposure(e, place.dataset).get("samples") or [""])
        for e in encoders
    }
    fitted = np.isin(sample, results.fitted_elsewhere(place).get("samples") or [""])
    leaking = np.any([*seen.values(), fitted], axis=0)
    if not leaking.any():
        return
    restricted = results.restricted(cohort, ~leaking)
    clean: dict[tuple[str, str], Scored] = {}
    if restricted.macro:
        cells = {
            cell: by
            for cell, by in results.places[place].items()
            if cell.studies == ALL and cell.validation == "full"
        }
        scored = score_place(results, restricted, cells)
        clean = {(one.cell.head, one.encoder): one for one in scored}
    for (head, encoder), one in here.items():
        other = clean.get((head, encoder))
        found.scores.append(
            Leak(
                place, head, encoder, int(seen[encoder].sum()), int(fitted.sum()), len(sample),
                int((~leaking).sum()), one.score(one.primary),
                None if other is None else other.score(other.primary),
            )
        )  # fmt: skip
    found.contrasts.extend(_pairs(results, here, clean))


def _pairs(
    results: Results,
    here: Mapping[tuple[str, str], Scored],
    clean: Mapping[tuple[str, str], Scored],
) -> Iterator[CleanContrast]:
    margin = results.statistics.margin
    for a, b in results.suite.contrasts:
        for head in dict.fromkeys(head for head, _ in here):
            both = [(head, a), (head, b)]
            if not all(at in here for at in both):
                continue
            every = compare(here[head, a], here[head, b], MACRO, margin, planned=False)
            without = None
            if all(at in clean for at in both):
                without = compare(clean[head, a], clean[head, b], MACRO, margin, planned=False)
            if every is not None:
                yield CleanContrast(every, without, head)
