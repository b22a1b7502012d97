"""Over tasks: averages of what all have, wins and losses, and ranks where there are cohorts enough."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from ray_mae.benchmarking.records import ALL
from ray_mae.benchmarking.statistics.results import Place, Results
from ray_mae.benchmarking.statistics.scores import MACRO, Scored
from ray_mae.benchmarking.statistics.uncertainty import (
    FEW,
    Component,
    Score,
    components_of_runs,
    level_means,
)
from ray_mae.evaluate.intervals import over_components

Array = NDArray[np.float64]
LEAST_COHORTS = 10
"""Independent cohorts that ranks are shown from."""


@dataclass(frozen=True)
class Average:
    """Of an encoder under one head: AUROC, mean over the tasks of each cohort, then over cohorts."""

    head: str
    encoder: str
    unseen: Score | None
    """Over the tests that neither the heads nor the pretraining of any compared encoder saw anything of."""
    unseen_cells: int
    everything: Score | None
    """Over all tests that all encoders have."""
    cells: int


@dataclass(frozen=True)
class Ranks:
    """Average ranks over cohorts, 1 the best."""

    head: str
    cohorts: int
    average: dict[str, float]
    """Empty where there are too few cohorts."""
    critical: float
    """Nemenyi's critical difference of two average ranks at 5 %."""
    p: float
    """Friedman's, of all being equal."""
    why_not: str


def averages(results: Results, scored: Sequence[Scored]) -> list[Average]:
    """By head, in the suite's order of encoders."""
    found = []
    for head, table in _by_head(results, scored).items():
        encoders, cells = _common(table)
        new = [p for p in cells if not results.fitted_elsewhere(p)]
        clean = [e for e in encoders if any(results.unseen(e, p.dataset) for p in new)]
        unseen = [p for p in new if all(results.unseen(e, p.dataset) for e in clean)]
        for encoder in encoders:
            mine = unseen if encoder in clean else []
            found.append(
                Average(
                    head, encoder,
                    _average(results, table, encoder, mine) if mine else None, len(mine),
                    _average(results, table, encoder, cells) if cells else None, len(cells),
                )
            )  # fmt: skip
    return found


def _by_head(
    results: Results, scored: Sequence[Scored]
) -> dict[str, dict[Place, dict[str, Scored]]]:
    """Main scores: AUROC with all labelled studies, the first choice of views, nothing held out."""
    first = results.suite.views[0]
    found: dict[str, dict[Place, dict[str, Scored]]] = {}
    for one in scored:
        place, cell = one.cohort.place, one.cell
        main = cell.studies == ALL and cell.validation == "full" and place.views == first
        ranked = main and not place.held_out and one.primary == "auroc" and bool(one.cohort.macro)
        # Below so many patients there is a value, but it is of no rank and of no average.
        if ranked and one.rarer("auroc", MACRO) >= FEW:
            found.setdefault(cell.head, {}).setdefault(place, {})[one.encoder] = one
    return found


def _common(table: dict[Place, dict[str, Scored]]) -> tuple[list[str], list[Place]]:
    """Encoders, and the tests that all of them have."""
    encoders = list(dict.fromkeys(e for by in table.values() for e in by))
    return encoders, [p for p, by in table.items() if set(by) == set(encoders)]


def _cohort(results: Results, place: Place) -> str:
    """Tasks of one cohort share patients; a test elsewhere is one of its own."""
    entry = results.task(place.task)
    return (entry.cohort or place.dataset) if place.dataset == entry.dataset else place.dataset


def _grouped(results: Results, places: Sequence[Place]) -> dict[str, list[Place]]:
    groups: dict[str, list[Place]] = {}
    for place in places:
        groups.setdefault(_cohort(results, place), []).append(place)
    return groups


def _average(
    results: Results,
    table: dict[Place, dict[str, Scored]],
    encoder: str,
    places: Sequence[Place],
) -> Score:
    """Cohorts are independent of each other but for the pretraining; tasks of one share its resamples."""
    groups = _grouped(results, places)
    values, components = [], []
    for group in groups.values():
        mine = [table[p][encoder] for p in group]
        values.append(np.mean([m.score("auroc").value for m in mine]))
        resampled = np.mean([m.replicates("auroc", MACRO) for m in mine], axis=0)
        freedom = max(m.rarer("auroc", MACRO) for m in mine) - 1
        share = 1 / len(groups) ** 2
        components.append(
            Component("patients", float(np.nanvar(resampled, ddof=1)) * share, freedom)
        )
        # Draws and seeds of tasks in a cohort go together: their errors are added, not their variances.
        for source in ("draw", "seed"):
            told = [c for m in mine for c in m.score("auroc").components if c.source == source]
            if told:
                error = sum(c.variance**0.5 for c in told) / len(mine)
                components.append(Component(source, error**2 * share, min(c.freedom for c in told)))
    components += _of_pretraining([[table[p][encoder] for p in group] for group in groups.values()])
    value = float(np.mean(values))
    found = over_components(value, [(c.variance, c.freedom) for c in components], within=(0.0, 1.0))
    return Score(value, found.low, found.high, "combined", components)


def _of_pretraining(groups: Sequence[Sequence[Scored]]) -> list[Component]:
    """A checkpoint is the same in all cohorts: the spread of each seed's average over them."""
    by_seed = [
        [level_means(m.levels[:, 0], m.runs("auroc", MACRO)) for m in group] for group in groups
    ]
    seeds = set.intersection(*(set(means) for group in by_seed for means in group))
    if len(seeds) < 2:
        return []
    each = [np.mean([np.mean([m[s] for m in group]) for group in by_seed]) for s in sorted(seeds)]
    return components_of_runs(np.arange(len(each))[:, None], np.array(each), ["pretraining"])


def ranks(results: Results, scored: Sequence[Scored]) -> list[Ranks]:
    """By head; only with cohorts enough that a rank means something."""
    found = []
    for head, table in _by_head(results, scored).items():
        encoders, places = _common(table)
        groups = _grouped(results, places)
        n, k = len(groups), len(encoders)
        if n < LEAST_COHORTS or k < 3:
            why = (
                f"{n} independent cohort{'s' if n != 1 else ''} that all {k} encoders were scored on; "
                f"average ranks tell little apart with fewer than {LEAST_COHORTS}"
                if n < LEAST_COHORTS
                else "fewer than three encoders"
            )
            found.append(Ranks(head, n, {}, np.nan, np.nan, why))
            continue
        values = np.array(
            [
                [np.mean([table[p][e].score("auroc").value for p in group]) for e in encoders]
                for group in groups.values()
            ]
        )  # [N, K]
        by_cohort = rankdata(-values, axis=1)
        critical = float(studentized_range.ppf(0.95, k, np.inf) / np.sqrt(2)) * np.sqrt(
            k * (k + 1) / (6 * n)
        )
        average = dict(zip(encoders, by_cohort.mean(0).tolist(), strict=True))
        found.append(
            Ranks(head, n, average, float(critical), float(friedmanchisquare(*values.T).pvalue), "")
        )
    return found
