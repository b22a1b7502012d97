"""One view against two, on the same studies: those with exactly one frontal and one lateral view."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.records import ALL
from ray_mae.benchmarking.statistics.contrasts import Contrast, compare
from ray_mae.benchmarking.statistics.results import Cohort, Place, Results
from ray_mae.benchmarking.statistics.scores import MACRO, Scored, score_place
from ray_mae.benchmarking.statistics.uncertainty import Score

ONE, TWO = (
    ("frontal", "lateral", "first1"),
    ("both_logits", "both_features", "both_attention", "first2", "all"),
)
"""Choices of views with one and with two of such a study."""


@dataclass(frozen=True)
class Condition:
    """What an encoder gets from a choice of views of the same studies."""

    task: str
    dataset: str
    head: str
    encoder: str
    views: str
    studies: int
    score: Score
    against: str
    """Choice of views that it is compared with; its own name where it is that one."""
    difference: Contrast | None


def conditions(results: Results) -> list[Condition]:
    """Of cells with all labelled studies, where a task was scored on several choices of views."""
    groups: dict[tuple[str, str, str], list[Place]] = {}
    for place in results.places:
        groups.setdefault((place.task, place.dataset, place.held_out), []).append(place)
    found = []
    for places in groups.values():
        if len(places) > 1 and results.cohorts[places[0]].kind == "labels":
            found += _of_places(results, places)
    return found


def _of_places(results: Results, places: Sequence[Place]) -> list[Condition]:
    shared = _both_views(results, [results.cohorts[place] for place in places])
    if not len(shared):
        return []
    by: dict[tuple[str, str], dict[str, Scored]] = {}
    for place in places:
        cells = {
            cell: encoders
            for cell, encoders in results.places[place].items()
            if cell.studies == ALL and cell.validation == "full"
        }
        cohort = results.cohorts[place]
        cohort = results.restricted(cohort, np.isin(cohort.rows, shared))
        if not cohort.macro:
            continue
        for one in score_place(results, cohort, cells):
            by.setdefault((one.cell.head, one.encoder), {})[place.views] = one
    found = []
    for (head, encoder), views in by.items():
        against = next(v for v in (*ONE, *views) if v in views)
        for name, one in views.items():
            difference = None
            if name != against:
                difference = compare(
                    one, views[against], MACRO, results.statistics.margin, planned=False
                )
            place = one.cohort.place
            found.append(
                Condition(
                    place.task, place.dataset, head, encoder, name, len(one.cohort.rows),
                    one.score("auroc"), against, difference,
                )
            )  # fmt: skip
    return found


def _both_views(results: Results, cohorts: Sequence[Cohort]) -> NDArray[np.intp]:
    """Rows that all cohorts hold, of studies with one frontal and one lateral view and no other."""
    rows = cohorts[0].rows
    for cohort in cohorts[1:]:
        rows = np.intersect1d(rows, cohort.rows)
    table = results.tables[cohorts[0].place.dataset]
    view, count = table.attributes.get("view"), table.attributes.get("views")
    if view is None or count is None:
        return rows[:0]
    two = [set(str(view[i]).split("+")) == {"frontal", "lateral"} and count[i] == 2 for i in rows]
    return rows[np.array(two, bool)]
