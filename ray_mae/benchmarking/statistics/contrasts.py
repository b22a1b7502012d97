"""Is one encoder better than another: paired differences, and words fixed by rule.

There are three families: pairs that the plan names before the test labels are opened, with all labelled
studies, on the fixed split and, of small sets, over folds; the same pairs with fewer studies and other
choices of views; and all other pairs, with all labelled studies. The 5 % of the whole page are shared out
among them, and Holm's procedure corrects within each, so that in a suite of equals somebody is called better
in at most 5 of 100 cases. A label's own verdict needs that of the mean over labels of the same pair and cell.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.records import ALL, Cell
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.results import Place, Results
from ray_mae.benchmarking.statistics.scores import MACRO, Scored, cell_columns, effective
from ray_mae.benchmarking.statistics.uncertainty import (
    FACTORS,
    FEW,
    TOO_FEW,
    Component,
    components_of_runs,
    detectable,
    equivalent,
    holm,
    level_means,
    of_patients,
    p_value,
    two_runs,
)
from ray_mae.evaluate.intervals import over_components

Array = NDArray[np.float64]
LEVEL = 0.05
SHARES = (0.6, 0.2, 0.2)
"""Of the 5 %, of the three families; what a family that does not exist would have goes to the others."""
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
    level: float = LEVEL
    """What p has to lie below where no other comparison of the family has (Holm's first step)."""
    gate: bool = True
    """Whether the mean over labels tells the two apart; of the mean itself True."""

    @property
    def mdd(self) -> float:
        """The smallest true difference that this comparison alone would have found in 80 of 100 cases."""
        return detectable(self.components, LEVEL)

    @property
    def mdd_corrected(self) -> float:
        """The same where it has to stand beside all others of its family."""
        return detectable(self.components, self.level)

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
            "mdd_corrected": self.mdd_corrected,
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


def contrasts(
    results: Results, scored: Iterable[Scored], of_folds: Iterable[Contrast] = ()
) -> list[Contrast]:
    """All of them with their verdicts: the planned ones first, in the plan's order.

    Args:
        results: of the suite.
        scored: all of it.
        of_folds: planned contrasts over folds of small sets, which count beside those of the fixed split.
    """
    by_cell: dict[tuple[Place, Cell], dict[str, Scored]] = {}
    for one in scored:
        by_cell.setdefault((one.cohort.place, one.cell), {})[one.encoder] = one
    pairs = [(a, b) for a, b in results.suite.contrasts]
    margin = results.statistics.margin
    first = results.suite.views[0]
    main: list[Contrast] = []
    planned: list[Contrast] = []
    others: list[Contrast] = []
    labels: list[Contrast] = []
    for a, b in pairs:
        for (place, cell), here in by_cell.items():
            if a in here and b in here:
                found = compare(here[a], here[b], MACRO, margin, planned=True)
                (main if cell.studies == ALL and place.views == first else planned).extend(
                    _some(found)
                )
                cohort = here[a].cohort
                if cohort.kind in ("labels", "segmentation") and len(cohort.macro) > 1:
                    for i in cohort.macro:
                        labels += _some(
                            compare(here[a], here[b], cohort.names[i], margin, planned=True)
                        )
    for (place, cell), here in by_cell.items():
        if cell.studies == ALL and place.views == first:
            for a, b in combinations(here, 2):
                if (a, b) not in pairs and (b, a) not in pairs:
                    others += _some(compare(here[a], here[b], MACRO, margin, planned=False))
    main += of_folds
    families = [main, planned, others]
    whole = sum(share for share, family in zip(SHARES, families, strict=True) if family)
    main, planned, others = (
        _corrected(family, share / whole if whole else 1.0)
        for share, family in zip(SHARES, families, strict=True)
    )
    return [*main, *planned, *_gated(labels, [*main, *planned]), *others]


def _some(found: Contrast | None) -> list[Contrast]:
    return [] if found is None else [found]


def _corrected(family: Sequence[Contrast], share: float) -> list[Contrast]:
    """With p after Holm, at a share of the 5 %."""
    adjusted = np.minimum(holm([c.p for c in family]) / share, 1.0)
    level = LEVEL * share / max(sum(not np.isnan(c.p) for c in family), 1)
    return [_with(c, p_holm=float(p), level=level) for c, p in zip(family, adjusted, strict=True)]


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
