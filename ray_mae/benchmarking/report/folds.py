"""Small data sets over folds, beside their fixed split: a section of the page."""

from ray_mae.benchmarking.report import charts
from ray_mae.benchmarking.report.cells import (
    Picture,
    Section,
    Shown,
    Table,
    by_panel,
    count,
    encoder,
    interval,
    words,
)
from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.words import EXPOSURE, place_name
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.scores import Scored
from ray_mae.evaluate.pages.page import svg


def small_sets(found: Findings) -> Section:
    """Forest plots over folds, and a table with the fixed split as a row of its own."""
    of = charts.looks(list(found.results.suite.encoders))
    fixed = {(s.cohort.place, s.cell.head, s.encoder): s for s in found.main}
    pictures, rows, text = [], [], []
    for task in found.small:
        dataset = found.results.task(task.name).dataset
        over = f"{task.folds} × {task.repeats} folds"
        text.append(f"{task.name}: {over} ({task.why}).")
        if task.without:
            text.append(f"{task.without:,} of its {task.fits:,} fits have no result.")
        told = {e: found.results.exposure_over_folds(e, dataset)["state"] for e in of}
        for head, here in by_panel(task.scores, lambda one: one.cell.head).items():
            metric = here[0].metric
            label = charts.metric_label(metric)
            values = {s.encoder: s.score() for s in here if s.complete}
            if values:
                seen = {e for e, state in told.items() if state != "none"}
                drawn = charts.forest(values, of, seen, label, metrics.CHANCE.get(metric))
                title = f"{place_name(here[0].place)}: {head}, {over}"
                pictures.append(Picture(title, svg(drawn), f"{label}; the values are in the table"))
            for s in here:
                split = fixed.get((s.place, head, s.encoder))
                where = [words(place_name(s.place)), words(head), encoder(s.encoder)]
                state = EXPOSURE.get(told[s.encoder], told[s.encoder])
                rows.append(
                    [
                        *where, words(over), count(s.patients), words(state), count(s.values.size),
                        interval(s.score()),
                    ]
                )  # fmt: skip
                if split is not None:
                    state = found.results.exposure(s.encoder, dataset)["state"]
                    rows.append(
                        [
                            *where, words("fixed split"), Shown(_tested(split), right=True),
                            words(EXPOSURE.get(state, state)), count(len(split.fits)),
                            interval(split.score(metric)),
                        ]
                    )  # fmt: skip
    columns = ["Task", "Head", "Encoder", "Tested on", "Patients", "Exposure", "Fits", "Value"]
    return Section(
        "Small sets, over folds",
        [*TEXT, *text] if rows else text,
        pictures, "22rem", [Table(columns, rows, "Folds and fixed split, mean over labels")], folded=True,
    )  # fmt: skip


def _tested(split: Scored) -> str:
    return f"{len({*split.cohort.patient.tolist()}):,}"


TEXT = (
    "The test split of a small set tells little: all of its labelled patients are dealt out to folds as "
    "well, several times. In turn one fold is tested, one chooses the settings, the others fit; scores are "
    "measured within each held-out fold and averaged. The plan fixed the order in which patients are dealt "
    "out before the test labels were read; these heads were fitted afterwards, since folds hold patients of "
    "the test split.",
    "Intervals and differences are by the corrected resampled t-test (Nadeau and Bengio): folds share most "
    "of what they are fitted to, and their spread alone would promise too much. The fixed split stands "
    "beside them, to be compared with what others report; it has another number of patients to fit.",
    "Grey, with *: the pretraining saw, or may have seen, something of the patients of the folds, such as "
    "images of training patients.",
)
