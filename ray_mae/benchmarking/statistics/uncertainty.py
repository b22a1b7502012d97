"""From components of variance to intervals, p values and what could have been seen.

A score is a mean over pretraining seeds, draws of labelled patients and seeds of heads, of patients who are
themselves a sample: each is a component with its own degrees of freedom. Their sum has Student's t with
those of Welch and Satterthwaite.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import chi2, norm
from scipy.stats import t as student

from ray_mae.evaluate.delong import AurocError, logit_interval
from ray_mae.evaluate.intervals import LEAST_RUNS, over_components
from ray_mae.evaluate.metrics import estimate

FACTORS = ("pretraining", "draw", "seed")
"""Of a fit's key, besides the patients."""
LEAST, FEW, SMALL = 5, 10, 50
"""Patients of the rarer class: below LEAST a label is left out, below FEW it has no interval, below SMALL its
interval is made on the logit scale."""
POWER = 0.8
"""Of the cases in which a true difference is to be found."""
TOO_FEW = "too few to tell"
TWO_RUNS = "no interval: of two seeds or draws there is none, of three there is"


@dataclass(frozen=True)
class Component:
    """A source of variance of a mean."""

    source: str
    variance: float
    freedom: float


@dataclass(frozen=True)
class Score:
    """A value, its 95 % interval (NaN where there is none) and where its variance comes from."""

    value: float
    low: float
    high: float
    interval: str
    """percentile, logit_delong, logit, combined, or why there is none."""
    components: list[Component] = field(default_factory=list)
    usable: float = 1.0
    """Share of the resamples that can tell."""

    @property
    def known(self) -> bool:
        return not np.isnan(self.low)

    def sd(self, source: str) -> float:
        """Standard error by one source; NaN where it is not among the components."""
        return next((c.variance**0.5 for c in self.components if c.source == source), np.nan)


def components_of_runs(
    levels: NDArray[np.intp], values: NDArray[np.float64], sources: Sequence[str] = FACTORS
) -> list[Component]:
    """Variance of the mean by each factor that has several levels, from the means of its levels.

    Args:
        levels: [F, K] of each fit.
        values: [F]
        sources: [K] names of the factors.
    """
    found = []
    for k, source in enumerate(sources):
        means = level_means(levels[:, k], values)
        if len(means) > 1:
            spread = float(np.var(list(means.values()), ddof=1))
            found.append(Component(source, spread / len(means), len(means) - 1))
    return found


def level_means(level: NDArray[np.intp], values: NDArray[np.float64]) -> dict[int, float]:
    """The mean of the values of each level."""
    return {int(one): float(values[level == one].mean()) for one in np.unique(level)}


def two_runs(runs: Sequence[Component]) -> bool:
    """Whether a source has two levels: their spread says next to nothing of that of all there could be.

    Of twenty equal encoders with two seeds each, one would be called better in 14 of 100 suites.
    """
    return any(c.freedom < LEAST_RUNS - 1 for c in runs)


def total(components: Sequence[Component]) -> tuple[float, float]:
    """Sum of the variances, and its degrees of freedom after Welch and Satterthwaite."""
    variance = sum(c.variance for c in components)
    shares = sum(c.variance**2 / c.freedom for c in components if c.freedom > 0)
    return variance, (variance**2 / shares if shares > 0 else np.inf)


def of_patients(resampled: NDArray[np.float64], rarer: float) -> Component:
    """The patients' component: the variance over resamples, freed of what so few make it too small by.

    Args:
        resampled: [R], NaN where a resample cannot tell.
        rarer: patients of the rarer class.
    """
    known = resampled[~np.isnan(resampled)]
    if len(known) < 2:
        return Component("patients", np.nan, 1.0)
    inflation = rarer / max(rarer - 1, 1)
    return Component("patients", float(known.var(ddof=1)) * inflation, max(rarer - 1, 1))


def score(
    value: float,
    resampled: NDArray[np.float64],
    runs: Sequence[Component],
    rarer: float,
    *,
    share: bool,
    within: tuple[float, float] = (0.0, 1.0),
    error: bool = False,
    delong: AurocError | None = None,
) -> Score:
    """A mean over runs with its 95 % interval, by the rules for its number of patients.

    Args:
        value: the mean.
        resampled: [R] of the mean, NaN where a resample cannot tell.
        runs: components of variance by seeds and draws.
        rarer: patients of the rarer class; of a mean over labels its degrees of freedom and one.
        share: whether it lies between 0 and 1 and has its interval on the logit scale where there are few.
        within: what it cannot leave.
        error: of the ECE, see `evaluate.metrics.estimate`.
        delong: of an AUROC of one label, in place of the resamples where there are few patients.
    """
    usable = float(np.mean(~np.isnan(resampled))) if len(resampled) else 0.0
    components = [of_patients(resampled, rarer), *runs]
    if rarer < FEW or np.isnan(components[0].variance) or np.isnan(value):
        return Score(value, np.nan, np.nan, TOO_FEW, components, usable)
    if two_runs(runs):
        return Score(value, np.nan, np.nan, TWO_RUNS, components, usable)
    if rarer < SMALL and delong is not None and (not runs or value in (0.0, 1.0)):
        found = logit_interval(delong)
        components = [Component("patients", delong.error**2, max(rarer - 1, 1)), *runs]
        return Score(value, found.low, found.high, "logit_delong", components, usable)
    if rarer < SMALL and share and 0 < value < 1:
        slope = value * (1 - value)
        on_logit = [(c.variance / slope**2, c.freedom) for c in components]
        found = over_components(float(logit(value)), on_logit)
        return Score(
            value, float(expit(found.low)), float(expit(found.high)), "logit", components, usable
        )
    if not runs and rarer >= SMALL:
        found = estimate(value, resampled, error=error)
        return Score(value, found.low, found.high, "percentile", components, usable)
    found = over_components(value, [(c.variance, c.freedom) for c in components], within=within)
    return Score(value, found.low, found.high, "combined", components, usable)


def p_value(difference: float, components: Sequence[Component]) -> float:
    """Of no difference, two-sided."""
    variance, freedom = total(components)
    if np.isnan(variance) or np.isnan(difference):
        return np.nan
    if variance == 0:
        return float(difference == 0)
    return float(2 * student.sf(abs(difference) / variance**0.5, freedom))


def detectable(components: Sequence[Component], level: float) -> float:
    """The smallest true difference that a test at this level finds in 80 of 100 cases.

    By the same Student's t as the p value: with three seeds it is many standard errors, not 2.8.
    """
    variance, freedom = total(components)
    if np.isnan(variance):
        return np.nan
    return _errors_to_be_found(level, freedom) * float(variance**0.5)


@lru_cache(maxsize=10_000)
def _errors_to_be_found(level: float, freedom: float) -> float:
    """True standard errors of a difference whose estimate is beyond the limit with POWER.

    The limit moves with the estimated error, a root of chi squared: the mean over its quantiles.
    """
    limit = student.ppf(1 - level / 2, freedom)
    quantiles = (np.arange(400) + 0.5) / 400
    estimated = np.sqrt(chi2.ppf(quantiles, freedom) / freedom) if np.isfinite(freedom) else 1.0

    def lacking(errors: float) -> float:
        return float(np.mean(norm.cdf(errors - limit * estimated))) - POWER

    return float(brentq(lacking, 0.0, 10 + limit * np.max(estimated)))


def equivalent(difference: float, components: Sequence[Component], margin: float) -> bool:
    """Whether both one-sided tests at 5 % say that the difference lies within the margin (TOST)."""
    variance, freedom = total(components)
    half = float(student.ppf(0.95, freedom)) * variance**0.5
    return bool(abs(difference) + half < margin)


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """Adjusted p values after Holm; NaN stays, and counts for nothing."""
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def as_row(found: Score) -> dict[str, Any]:
    """As the tables have it."""
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "interval": found.interval,
        "se_patients": found.sd("patients"),
        **{f"se_{factor}": found.sd(factor) for factor in FACTORS},
        "usable": found.usable,
    }
