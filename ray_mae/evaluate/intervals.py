"""Intervals of means over runs, such as seeds: over the patients that were scored, and over the runs.

An interval over patients alone is too narrow for a mean of few runs: of three whose spread equals the
patients' it holds the truth in 91 of 100 cases, of three with twice that spread in 80. Two runs have one
degree of freedom: an interval of theirs would span nearly everything, so there is none.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from ray_mae.evaluate.metrics import Estimate, FloatArray, estimate

LEAST_RUNS = 3
"""Runs that an interval over runs takes."""
TOO_FEW = f"no interval: it takes {LEAST_RUNS} seeds or more"


def over_components(
    value: float,
    components: Sequence[tuple[float, float]],
    *,
    comparisons: int = 1,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """The 95 % interval of a mean whose variance has several sources that are independent of each other.

    By Student's t with the degrees of freedom of Welch and Satterthwaite: those of the source that prevails.

    Args:
        value: the mean.
        components: of each source, such as patients, draws of the labelled, seeds and pretrainings: the
            variance that the mean has by it, and its degrees of freedom. Of patients the variance over
            resamples; of runs that between them, divided by their number, and one less than their number.
        comparisons: for how many intervals together the 95 % hold (Bonferroni).
        within: what the value cannot leave.
    """
    variance, freedom = _together(components)
    half = float(student.ppf(1 - 0.025 / comparisons, freedom)) * variance**0.5
    return Estimate(value, max(value - half, within[0]), min(value + half, within[1]))


def _together(components: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Variance of all sources, and its degrees of freedom by Welch and Satterthwaite."""
    variance = sum(v for v, _ in components)
    shares = sum(v**2 / freedom for v, freedom in components if v > 0)
    return variance, variance**2 / shares if shares > 0 else np.inf


def without_interval(value: float) -> Estimate:
    """A mean of too few runs."""
    return Estimate(value, np.nan, np.nan)


def over_seeds(
    values: Sequence[float],
    resampled: Sequence[FloatArray],
    patients: int,
    *,
    error: bool = False,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """The mean over runs with its interval: over patients of one run, over both of three or more.

    Args:
        values: of each run.
        resampled: [R] of each run, in the same resamples of the patients; NaN where one cannot tell.
        patients: that the resamples are drawn from.
        error: see `estimate`; of one run alone.
        within: what the value cannot leave.
    """
    mean = float(np.mean(values))
    joint = np.stack(resampled).mean(0)  # [R]
    if len(values) == 1:
        return estimate(mean, joint, error=error)
    known = joint[~np.isnan(joint)]
    if len(values) < LEAST_RUNS or len(known) < 2:
        return without_interval(mean)
    return over_components(mean, _components(values, known, patients), within=within)


def _components(
    values: Sequence[float], resampled: FloatArray, patients: int
) -> list[tuple[float, float]]:
    """Those of the patients, by the mean over runs in resamples [R], and of three or more runs."""
    return [
        (float(resampled.var(ddof=1)), patients - 1),
        (float(np.var(values, ddof=1)) / len(values), len(values) - 1),
    ]


def p_of_difference(
    values: Sequence[float], resampled: Sequence[FloatArray], patients: int
) -> float:
    """Two-sided p of a mean difference that is 0 in truth; NaN of two runs, whose spread says too little.

    Of one run by the share of the resamples beyond 0, of three or more by Student's t as in `over_seeds`.

    Args:
        values, resampled, patients: as of `over_seeds`, of differences.
    """
    mean = float(np.mean(values))
    joint = np.stack(resampled).mean(0)
    known = joint[~np.isnan(joint)]
    if len(known) < 2 or 1 < len(values) < LEAST_RUNS:
        return np.nan
    if len(values) == 1:
        beyond = min((known <= 0).mean(), (known >= 0).mean())
        return min(1.0, 2 * float(beyond) + 1 / (len(known) + 1))
    variance, freedom = _together(_components(values, known, patients))
    if variance == 0:
        return float(mean == 0)
    return 2 * float(student.sf(abs(mean) / variance**0.5, freedom))


def holm(p: Mapping[str, float], level: float = 0.05) -> dict[str, bool]:
    """Which of several differences are told apart, so that with 95 % none of them is by chance (Holm 1979).

    Args:
        p: of each, by name; NaN is never told apart, and counts as one of them.
        level: of all together.
    """
    told = dict.fromkeys(p, False)
    for rank, name in enumerate(sorted(p, key=lambda n: (np.isnan(p[n]), p[n]))):
        if not p[name] <= level / (len(p) - rank):
            break
        told[name] = True
    return told
