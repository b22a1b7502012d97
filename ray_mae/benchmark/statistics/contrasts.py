"""Is one encoder better than another: paired differences, and words fixed by rule.

Pairs that the plan names before the test labels are opened stand in one family with all their cells, all other
pairs, in the cells with all labelled studies, in another. The 5 % of the whole page are shared out between the
two, and Holm's procedure corrects within each, so that in a suite of equals somebody is called better in at most
5 of 100 cases. A label's own verdict needs that of the mean over labels of the same pair and cell.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmark.records import ALL, Cell
from ray_mae.benchmark.statistics import metrics
from ray_mae.benchmark.statistics.results import Place, Results
from ray_mae.benchmark.statistics.scores import MACRO, Scored, cell_columns, effective
from ray_mae.benchmark.statistics.uncertainty import (
    FACTORS,
    FEW,
    POWER,
    TOO_FEW,
    Component,
    components_of_runs,
    equivalent,
    holm,
    level_means,
    of_patients,
    p_value,
    total,
    two_runs,
)
from ray_mae.evaluate.intervals import over_components

Array = NDArray[np.float64]
LEVEL = 0.05
PLANNED_SHARE = 0.8
"""Of the 5 %, where there are exploratory pairs as well."""
BETTER, WORSE, NOT_TOLD = "better", "worse", "not told apart"


@dataclass(frozen=True)
class Contrast:
    """The first encoder less the second, in one cell."""

    place: Place
    cell: Cell
    a: str
    b: str
    label: str
    metric: str
    planned: bool
    difference: float
    low: float
    high: float
    components: list[Component] = field(default_factory=list)
    p: float = np.nan
    p_holm: float = np.nan
    equivalent: bool = False
    few: bool = False
    gate: bool = True
    """Whether the mean over labels tells the two apart; of the mean itself True."""

    @property
    def mdd(self) -> float:
        """The smallest true difference that would have been found in 80 of 100 cases."""
        return POWER * float(np.sqrt(total(self.components)[0]))

    @property
    def verdict(self) -> str:
        """better, worse, or not told apart, of the first: by rule alone."""
        if self.few or np.isnan(self.p):
            return TOO_FEW
        if self.gate and self.p_holm < LEVEL:
            higher = self.difference > 0
            return BETTER if higher != (self.metric in metrics.BETTER_LOW) else WORSE
        return NOT_TOLD

    def sd(self, source: str) -> float:
        found = [c.variance for c in self.components if c.source == source]
        return float(np.sqrt(sum(found))) if found else np.nan

    def row(self) -> dict[str, Any]:
        """As contrasts.csv has it."""
        return {
            **cell_columns(self.place, self.cell),
            "a": self.a,
            "b": self.b,
            "label": self.label,
            "metric": self.metric,
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "p_holm": self.p_holm,
            "mdd": self.mdd,
            "planned": self.planned,
            "verdict": self.verdict,
            "equivalent": self.equivalent,
            "se_patients": self.sd("patients"),
            **{f"se_{factor}": self.sd(factor) for factor in FACTORS},
        }


def compare(a: Scored, b: Scored, label: str, margin: float, *, planned: bool) -> Contrast | None:
    """The paired difference of two encoders in one cell; None where a label is in neither's average."""
    metric, columns = a.primary, a.columns(label)
    if not columns:
        return None
    difference = float(a.runs(metric, label).mean() - b.runs(metric, label).mean())
    resampled = a.replicates(metric, label) - b.replicates(metric, label)
    cohort = a.cohort
    patients = [cohort.rarer(cohort.names[i]) for i in columns]
    rarer = effective(patients, a.resampled[metric][columns] - b.resampled[metric][columns])
    runs = between_runs(a, b, metric, label)
    components = [of_patients(resampled, rarer), *runs]
    few = rarer < FEW or two_runs(runs)
    found = over_components(difference, [(c.variance, c.freedom) for c in components])
    return Contrast(
        a.cohort.place, a.cell, a.encoder, b.encoder, label, metric, planned, difference,
        np.nan if few else found.low, np.nan if few else found.high, components,
        np.nan if few else p_value(difference, components), np.nan,
        not few and equivalent(difference, components, margin), few,
    )  # fmt: skip


def between_runs(a: Scored, b: Scored, metric: str, label: str) -> list[Component]:
    """Components of the difference by seeds and draws: of the differences level by level where both encoders
    have the same levels, else of both by themselves."""
    found = []
    for k, factor in enumerate(FACTORS):
        means = [level_means(s.levels[:, k], s.runs(metric, label)) for s in (a, b)]
        if set(means[0]) == set(means[1]) and len(means[0]) > 1:
            differences = np.array([means[0][level] - means[1][level] for level in means[0]])
            levels = np.arange(len(differences))[:, None]
            found += components_of_runs(levels, differences, [factor])
        else:
            for s in (a, b):
                found += components_of_runs(s.levels[:, [k]], s.runs(metric, label), [factor])
    return found


def contrasts(results: Results, scored: Iterable[Scored]) -> list[Contrast]:
    """All of them with their verdicts: the planned ones first, in the plan's order."""
    by_cell: dict[tuple[Place, Cell], dict[str, Scored]] = {}
    for one in scored:
        by_cell.setdefault((one.cohort.place, one.cell), {})[one.encoder] = one
    pairs = [(a, b) for a, b in results.suite.contrasts]
    margin = results.statistics.margin
    planned, others, labels = [], [], []
    for a, b in pairs:
        for here in by_cell.values():
            if a in here and b in here:
                planned += _some(compare(here[a], here[b], MACRO, margin, planned=True))
                names = here[a].cohort.names
                if here[a].cohort.kind == "labels" and len(here[a].cohort.macro) > 1:
                    for i in here[a].cohort.macro:
                        labels += _some(compare(here[a], here[b], names[i], margin, planned=True))
    first = results.suite.views[0]
    for (place, cell), here in by_cell.items():
        if cell.studies == ALL and place.views == first:
            for a, b in combinations(here, 2):
                if (a, b) not in pairs and (b, a) not in pairs:
                    others += _some(compare(here[a], here[b], MACRO, margin, planned=False))
    shares = (PLANNED_SHARE, 1 - PLANNED_SHARE) if planned and others else (1.0, 1.0)
    planned, others = (
        _corrected(of, share) for of, share in zip((planned, others), shares, strict=True)
    )
    return [*planned, *_gated(labels, planned), *others]


def _some(found: Contrast | None) -> list[Contrast]:
    return [] if found is None else [found]


def _corrected(family: Sequence[Contrast], share: float) -> list[Contrast]:
    """With p after Holm, at a share of the 5 %."""
    adjusted = np.minimum(holm([c.p for c in family]) / share, 1.0)
    return [_with(c, p_holm=float(p)) for c, p in zip(family, adjusted, strict=True)]


def _gated(labels: Sequence[Contrast], means: Sequence[Contrast]) -> list[Contrast]:
    """Labels corrected within their task and pair, and told apart only where the mean is."""
    told = {(c.place, c.cell, c.a, c.b): c.verdict in (BETTER, WORSE) for c in means}
    groups: dict[Any, list[Contrast]] = {}
    for c in labels:
        groups.setdefault((c.place, c.cell, c.a, c.b), []).append(c)
    return [
        _with(c, gate=told[address])
        for address, group in groups.items()
        for c in _corrected(group, 1.0)
    ]


def _with(contrast: Contrast, **changes: Any) -> Contrast:
    return Contrast(**{**vars(contrast), **changes})


def headline(found: Sequence[Contrast], results: Results) -> list[Contrast]:
    """Planned contrasts of the mean over labels where all labelled studies and the first views are taken."""
    first = results.suite.views[0]
    return [
        c
        for c in found
        if c.planned and c.label == MACRO and c.cell.studies == ALL and c.place.views == first
    ]


def outcomes(found: Iterable[Contrast]) -> Mapping[str, int]:
    """How many were won, lost, and not told apart."""
    counts = dict.fromkeys((BETTER, NOT_TOLD, WORSE, TOO_FEW), 0)
    for contrast in found:
        counts[contrast.verdict] += 1
    return counts
