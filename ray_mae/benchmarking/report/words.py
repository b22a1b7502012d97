"""Sentences of the page: fixed by rule, so that no result is spoken of more kindly than another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ray_mae.benchmarking.records import ALL, Cell
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.contrasts import BETTER, NOT_TOLD, WORSE, Contrast
from ray_mae.benchmarking.statistics.curves import Needed
from ray_mae.benchmarking.statistics.results import Place, Results
from ray_mae.benchmarking.statistics.uncertainty import TOO_FEW
from ray_mae.number_text import significant

VIEWS = {
    "all": "all views",
    "frontal": "frontal only",
    "lateral": "lateral only",
    "both_logits": "both, mean of logits",
    "both_features": "both, mean of features",
    "both_attention": "both, by attention",
    "first1": "first file",
    "first2": "first two files",
}
VALIDATION = {"spent": ", validation among them", "folds": ", over folds"}
EXPOSURE = {
    "none": "",
    "images": "saw test images",
    "patients": "saw test patients",
    "labels": "saw test labels",
    "unknown": "not known what it saw",
}


def exposure_words(told: Mapping[str, Any]) -> str:
    """What a pretraining saw of a test and, where it read training labels, that; "" for nothing.

    told: a record of `exposure.Exposure`.
    """
    read = "read training labels" if "labels" in told.get("read", ()) else ""
    return ", ".join(filter(None, [EXPOSURE.get(told["state"], told["state"]), read]))


def place_name(place: Place) -> str:
    """Task and test; views and what was held out where they are not the usual."""
    name = place.task if place.dataset == place.task else f"{place.task}, {place.dataset}"
    if place.views != "all":
        name += f", {VIEWS.get(place.views, place.views)}"
    return f"{name}, without {place.held_out}" if place.held_out else name


def cell_name(cell: Cell) -> str:
    """Head and labelled studies."""
    studies = "all studies" if cell.studies == ALL else f"{cell.studies:,} studies"
    if cell.head == "few_shot" and cell.studies != ALL:
        studies = f"{cell.studies} patients of each class"
    return f"{cell.head}, {studies}{VALIDATION.get(cell.validation, '')}"


def where(c: Contrast) -> str:
    """Task, test and head of a contrast, and whether it is over folds."""
    return f"{place_name(c.place)}, {c.cell.head}{VALIDATION.get(c.cell.validation, '')}"


def signed(value: float) -> str:
    text = significant(value, small=0)
    return text.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"+{text}"


def difference(c: Contrast) -> str:
    """Difference and interval."""
    if np.isnan(c.low):
        return f"{signed(c.difference)}, no interval"
    return f"{signed(c.difference)} [{signed(c.low)}, {signed(c.high)}]"


def verdict(c: Contrast) -> str:
    """The words alone, with what could have been seen."""
    words = c.verdict
    if words == NOT_TOLD:
        seen = c.mdd_corrected
        least = f"≥ {significant(seen)}" if c.metric not in metrics.SHARES or seen < 1 else "none"
        words += f", could have seen {least}"
    if c.equivalent:
        words += ", equal within the margin"
    return words


def sentence(c: Contrast) -> str:
    """What a planned contrast says."""
    what = f"{metrics.NAMES[c.metric]} {difference(c)}"
    if c.verdict in (BETTER, WORSE):
        return f"{c.a} is {c.verdict} than {c.b}: {what}"
    if c.verdict == TOO_FEW:
        return f"{c.a} and {c.b}: {TOO_FEW} ({what})"
    return f"{c.a} and {c.b} are {verdict(c)}: {what}"


def studies_needed(n: Needed) -> str:
    """Labelled studies with interval."""
    told = [_studies(v, n.most) for v in (n.value, n.low, n.high)]
    return told[0] if np.isnan(n.low) else f"{told[0]} [{told[1]}, {told[2]}]"


def _studies(value: float, most: float) -> str:
    return f"> {most:,.0f}" if np.isinf(value) else f"{value:,.0f}"


def ratio(value: float) -> str:
    if np.isnan(value):
        return "not told"
    return "∞" if np.isinf(value) else f"{value:.2g}"


def checkpoints(results: Results) -> list[str]:
    """Encoders with one pretraining alone."""
    return [
        n for n, e in results.suite.encoders.items() if e.kind == "weights" and len(e.sources) == 1
    ]


def cautions(results: Results, unequal: Sequence[str]) -> list[str]:
    """What a reader must know before the numbers."""
    found = [*unequal]
    opened = results.store.opened()
    plans = {record.get("plan") or record.get("sha256") for record in opened}
    if len(plans) > 1:
        found.append(
            f"The test labels were opened {len(opened)} times, under {len(plans)} different plans."
        )
    sha256 = results.plan.get("sha256")
    if opened and sha256 is not None and plans and sha256 not in plans:
        found.append("The plan was changed after the test labels had been opened.")
    if not opened:
        found.append("There is no record of when the test labels were opened.")
    planned, mine = results.suite.statistics.resamples, results.statistics.resamples
    if planned != mine:
        found.append(f"This report was made with {mine:,} resamples; the plan says {planned:,}.")
    tests = {(place.task, place.dataset): place for place in results.places}
    for (task, dataset), place in tests.items():
        if shared := results.fitted_elsewhere(place):
            found.append(
                f"{task}, {dataset}: {shared['patients']:,} of {shared['of']:,} test patients have the name "
                "of one whom heads were fitted to or chosen by. It is in no headline average; scores without "
                "them stand beside those with them."
            )
    statuses = results.statuses()
    bad = {s: n for s, n in sorted(statuses.items()) if s not in ("done", "constant")}
    if bad:
        told = ", ".join(f"{n} {s}" for s, n in bad.items())
        found.append(f"Of {sum(statuses.values())} fits not all have a result: {told}.")
    return found


def short(value: Any) -> str:
    """A value of the plan for a table: of paths the last part alone."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{k} {short(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(short(v) for v in value)
    text = str(value)
    return text.rstrip("/").rpartition("/")[2] if text.startswith("/") else text
