"""What the rows of outlined volumes count beside their means: empty references, failures, lesions."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.statistics.results import Results
from ray_mae.benchmarking.statistics.scores import Scored

FAILED = 0.1
"""Dice below which a volume counts as a failure."""


@dataclass(frozen=True)
class Counts:
    """Of one encoder and one region in one cell; what depends on the fit is a mean over fits."""

    n_with: int
    """Test volumes whose reference has it: those that Dice and NSD are of."""
    n_empty: int
    """Those whose reference is empty: counted here, and in no mean."""
    n_false_alarms: float
    """Of the empty ones, those in which it was found all the same."""
    false_ml: float
    """What was found in an empty one, on average, in millilitres; NaN without any."""
    n_failed: float
    """Volumes that have it, outlined with a Dice below FAILED."""
    hd95_mm: float
    """Median over volumes that have it and in which it was found; NaN where there are none."""
    n_missed: float
    """Volumes that have it and in which nothing was found."""
    lesions: int
    lesions_hit: float
    """Those touched by what was found."""
    lesions_false: float
    """Found ones that touch none, in volumes with the region and without."""

    def columns(self) -> dict[str, Any]:
        """As scores.csv has them."""
        return asdict(self)


def counts(results: Results, scored: Scored, label: str) -> Counts:
    """Counts the stored rows of a region, of the cohort's volumes."""
    cohort = scored.cohort
    samples = results.tables[cohort.place.dataset].sample[cohort.rows].tolist()
    found = []
    for fit in scored.fits:
        cases = results.cases(fit, cohort.place.dataset)
        place = {sample: i for i, sample in enumerate(cases.sample.tolist())}
        rows, column = [place[sample] for sample in samples], cases.labels.index(label)
        found.append({name: values[rows, column] for name, values in cases.values.items()})
    there = found[0]["true_ml"] > 0
    outlined = [case["found_ml"] > 0 for case in found]
    distances = np.concatenate([case["hd95_mm"] for case in found])
    return Counts(
        n_with=int(there.sum()),
        n_empty=int((~there).sum()),
        n_false_alarms=_mean([o[~there].sum() for o in outlined]),
        false_ml=_mean([_mean(case["found_ml"][~there]) for case in found]),
        n_failed=_mean([(case["dice"][there] < FAILED).sum() for case in found]),
        hd95_mm=float(np.median(known))
        if len(known := distances[~np.isnan(distances)])
        else np.nan,
        n_missed=_mean([(~o)[there].sum() for o in outlined]),
        lesions=int(found[0]["lesions"].sum()),
        lesions_hit=_mean([case["lesions_hit"].sum() for case in found]),
        lesions_false=_mean([case["lesions_false"].sum() for case in found]),
    )


def _mean(values: NDArray[Any] | list[Any]) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def unmapped(results: Results, dataset: str, task: str) -> int:
    """Test volumes without a label map: nothing can be said of them."""
    table = results.tables[dataset]
    return int(np.isnan(table.targets[task][table.rows("test")]).all(axis=1).sum())
