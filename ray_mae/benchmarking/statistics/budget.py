"""What each encoder was given, and whether validation told anything."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr

from ray_mae.benchmarking.records import Fit
from ray_mae.benchmarking.statistics.curves import finite
from ray_mae.benchmarking.statistics.results import SCORED, Results
from ray_mae.benchmarking.statistics.scores import MACRO, Scored

LEAST_FITS = 5
"""That a correlation is told of."""
NOISE = 0.3
"""Correlation of validation and test below which the choice was noise."""


@dataclass(frozen=True)
class Budget:
    """Of one encoder under one head of one task."""

    task: str
    head: str
    encoder: str
    fits: int
    settings: list[int]
    """Different settings tried per fit, without the choice of vectors."""
    vectors: list[int]
    """Different vectors of a view tried per fit."""
    seeds: int
    draws: int
    pretrainings: int
    samples_seen: int
    seconds: float
    parameters: int
    """That were trained; the most of any fit."""
    edges: int
    """Fits whose choice lies at an end of what there was to choose from."""
    unconverged: int


@dataclass(frozen=True)
class Agreement:
    """Correlation of validation and test scores over the fits of a cell, of what differs within encoders."""

    scored: Scored
    fits: int
    within: float
    """NaN where no encoder has fits enough."""
    across: float
    """Over encoders, of their means; NaN of fewer than five."""

    @property
    def noise(self) -> bool:
        return self.within < NOISE


def budgets(results: Results) -> list[Budget]:
    groups: dict[tuple[str, str, str], list[Fit]] = {}
    for task in results.suite.tasks:
        for encoder in results.suite.encoders:
            for fit in results.fits:
                if (fit.key.cell.task, fit.key.encoder) == (task, encoder) and fit.status in SCORED:
                    groups.setdefault((task, fit.key.cell.head, encoder), []).append(fit)
    found = []
    for (task, head, encoder), fits in sorted(groups.items(), key=lambda g: g[0][:2]):
        found.append(
            Budget(
                task, head, encoder, len(fits),
                sorted({_different(fit, without="pool") for fit in fits}),
                sorted({len({str(t.settings.get("pool")) for t in fit.trials}) for fit in fits}),
                len({fit.key.seed for fit in fits}), len({fit.key.draw for fit in fits}),
                len({fit.key.pretraining for fit in fits}),
                sum(fit.samples_seen for fit in fits), sum(fit.seconds for fit in fits),
                max(fit.parameters for fit in fits),
                sum(bool(fit.at_edge) for fit in fits), sum(not fit.converged for fit in fits),
            )
        )  # fmt: skip
    return found


def _different(fit: Fit, without: str) -> int:
    """Different settings among the trials, but for one of them."""
    return len(
        {
            str(sorted((k, str(v)) for k, v in t.settings.items() if k != without))
            for t in fit.trials
        }
    )


def unequal(found: Sequence[Budget]) -> list[str]:
    """A sentence for each head and task under which encoders had different numbers of trials."""
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    for one in found:
        groups.setdefault((one.task, one.head), {})[one.encoder] = one.settings
    sentences = []
    for (task, head), by in groups.items():
        by = {e: n for e, n in by.items() if n != [0]}  # what stands for all has nothing to choose
        if len({tuple(n) for n in by.values()}) > 1:
            told = ", ".join(f"{e} {' or '.join(map(str, n))}" for e, n in by.items())
            sentences.append(
                f"Unequal numbers of trials ({task}, {head}): {told}. "
                "The comparison under this head is not fair."
            )
    return sentences


def agreements(scored: Sequence[Scored]) -> list[Agreement]:
    """Of cells whose fits chose on validation, tested on the data set that they chose on or another one."""
    groups: dict[tuple[object, object], list[Scored]] = {}
    for one in scored:
        groups.setdefault((one.cohort.place, one.cell), []).append(one)
    found = []
    for group in groups.values():
        validation, test, v_means, t_means = [], [], [], []
        for one in group:
            if not one.columns(MACRO):
                continue
            best = [finite([t.score for t in fit.trials]) for fit in one.fits]
            if not all(best):
                continue
            v = np.array([max(scores) for scores in best])
            t = one.runs(one.primary, MACRO)
            v_means.append(v.mean())
            t_means.append(t.mean())
            if len(v) > 1:
                validation += (v - v.mean()).tolist()
                test += (t - t.mean()).tolist()
        sign = -1 if group[0].primary in ("mae", "rmse") else 1
        within, across = _correlation(validation, test), _correlation(v_means, t_means)
        if not (np.isnan(within) and np.isnan(across)):
            found.append(Agreement(group[0], len(validation), sign * within, sign * across))
    return found


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    if len(a) < LEAST_FITS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(pearsonr(a, b).statistic)
