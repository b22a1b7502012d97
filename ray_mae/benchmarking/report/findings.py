"""Everything that the page and the tables show, computed once."""

from dataclasses import dataclass
from typing import Any

from ray_mae.benchmarking.records import ALL
from ray_mae.benchmarking.statistics.budget import Agreement, Budget, agreements, budgets, unequal
from ray_mae.benchmarking.statistics.calibration import Reliability, calibrated, reliabilities
from ray_mae.benchmarking.statistics.contrasts import Contrast, contrasts
from ray_mae.benchmarking.statistics.curves import Curve, Saving, curves, savings
from ray_mae.benchmarking.statistics.folds import SmallTask, fold_contrasts, small_tasks
from ray_mae.benchmarking.statistics.leaks import Leaks, leaks
from ray_mae.benchmarking.statistics.overall import Average, Ranks, averages, ranks
from ray_mae.benchmarking.statistics.results import Results
from ray_mae.benchmarking.statistics.scores import MACRO, Scored, rows_of, score_all
from ray_mae.benchmarking.statistics.segmentation import counts
from ray_mae.benchmarking.statistics.subgroups import Gap, WorstDifference, gaps, worst_differences
from ray_mae.benchmarking.statistics.views import Condition, conditions


@dataclass(frozen=True)
class Findings:
    """Of one suite."""

    results: Results
    scored: list[Scored]
    rows: list[dict[str, Any]]
    """Of scores.csv."""
    main: list[Scored]
    """With all labelled studies and the first choice of views."""
    calibration: list[Scored]
    """The same, of label tasks, with metrics of calibration."""
    reliability: list[Reliability]
    leaks: Leaks
    small: list[SmallTask]
    """Over folds."""
    contrasts: list[Contrast]
    curves: list[Curve]
    savings: list[Saving]
    conditions: list[Condition]
    gaps: list[Gap]
    worst: list[WorstDifference]
    averages: list[Average]
    ranks: list[Ranks]
    budgets: list[Budget]
    unequal: list[str]
    agreements: list[Agreement]


def macro_names(one: Scored) -> list[str]:
    return [one.cohort.names[i] for i in one.cohort.macro]


def main_of(results: Results, scored: list[Scored]) -> list[Scored]:
    """Scores with all labelled studies, the whole validation split, and the first choice of views."""
    first = results.suite.views[0]
    return [
        s
        for s in scored
        if s.cell.studies == ALL and s.cell.validation == "full" and s.cell.views == first
    ]


def with_counts(results: Results, one: Scored) -> list[dict[str, Any]]:
    """Its rows of scores.csv; of segmentation each region's with what is counted of it."""
    rows = rows_of(results, one)
    if one.cohort.kind != "segmentation":
        return rows
    of = {name: counts(results, one, name).columns() for name in one.cohort.names}
    return [row | of.get(row["label"], {}) for row in rows]


def find(results: Results) -> Findings:
    """Computes all of it from the stored rows."""
    scored = list(score_all(results))
    main = main_of(results, scored)
    calibration = list(calibrated(results, main))
    budget, small = budgets(results), small_tasks(results)
    found_curves, found_gaps = curves(results, scored), list(gaps(results))
    return Findings(
        results,
        scored,
        [row for one in scored for row in with_counts(results, one)]
        + [
            row
            for one in calibration
            for row in rows_of(results, one)
            if row["metric"] != "log_loss" and row["label"] in {MACRO, *macro_names(one)}
        ]
        + [
            one.row(results.exposure_over_folds(one.encoder, one.place.dataset)["state"])
            for task in small
            for one in task.scores
        ],
        main,
        calibration,
        reliabilities(results, main),
        leaks(results, main),
        small,
        contrasts(results, scored, fold_contrasts(results, small)),
        found_curves,
        savings(results, found_curves),
        conditions(results),
        found_gaps,
        worst_differences(results, found_gaps),
        averages(results, scored),
        ranks(results, scored),
        budget,
        unequal(budget),
        agreements(scored),
    )
