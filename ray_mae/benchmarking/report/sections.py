"""What encoders are worth: the first sections of the page."""

from collections.abc import Sequence

import numpy as np

from ray_mae.benchmarking.report import charts
from ray_mae.benchmarking.report.cells import (
    Picture,
    Section,
    Shown,
    Table,
    by_panel,
    count,
    encoder,
    heat,
    interval,
    long,
    number,
    words,
)
from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.words import (
    VALIDATION,
    VIEWS,
    cell_name,
    checkpoints,
    difference,
    exposure_words,
    place_name,
    ratio,
    studies_needed,
    verdict,
)
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.contrasts import Contrast, headline, outcomes
from ray_mae.benchmarking.statistics.results import Place
from ray_mae.benchmarking.statistics.scores import MACRO, Scored
from ray_mae.evaluate.pages.page import svg


def seen_by(found: Findings, dataset: str) -> set[str]:
    """Encoders whose pretraining saw, or may have seen, something of a test."""
    results = found.results
    return {e for e in results.suite.encoders if not results.unseen(e, dataset)}


def _panels(found: Findings) -> dict[tuple[Place, str], list[Scored]]:
    """Main scores by test and head."""
    scored = [one for one in found.main if one.cohort.macro]
    return by_panel(scored, lambda one: (one.cohort.place, one.cell.head))


def scores(found: Findings) -> Section:
    """Forest plots and the table that they are of."""
    of = charts.looks(list(found.results.suite.encoders))
    pictures, rows = [], []
    for (place, head), here in _panels(found).items():
        metric = here[0].primary
        label = charts.metric_label(metric)
        values = {s.encoder: s.score(metric) for s in here}
        title = f"{place_name(place)}: {head}"
        seen = seen_by(found, place.dataset)
        picture = charts.forest(values, of, seen, label, metrics.CHANCE.get(metric))
        pictures.append(Picture(title, svg(picture), f"{label}; the values are in the table below"))
        for s in here:
            names = [n for n in s.values if n in metrics.NAMES]
            told = found.results.exposure(s.encoder, place.dataset)
            rows.append(
                [
                    words(place_name(place)),
                    words(head),
                    encoder(s.encoder),
                    words(exposure_words(told)),
                    count(len(s.fits)),
                    words(", ".join(metrics.NAMES[n] for n in names[:1])),
                    interval(values[s.encoder]),
                    long(
                        "; ".join(
                            f"{metrics.NAMES[n]} {number(s.score(n).value).text}" for n in names[1:]
                        )
                    ),
                ]
            )  # fmt: skip
    single = checkpoints(found.results)
    text = [
        "Encoders stand in the order of the suite, not of the results. An interval covers the test patients "
        "and, where there are several, pretraining seeds, draws of labelled patients and seeds of heads. "
        "Grey, with *: the pretraining saw, or may have seen, something of the test."
    ]
    if single:
        text.append(
            "With one pretraining a number is one of this checkpoint, not of the method: "
            f"{', '.join(single)}."
        )
    columns = ["Task", "Head", "Encoder", "Exposure", "Fits", "Metric", "Value", "Besides"]
    return Section(
        "Scores", text, pictures, "22rem",
        [Table(columns, rows, "Mean over labels, all labelled studies")], folded=True,
    )  # fmt: skip


def comparisons(found: Findings) -> Section:
    """Planned contrasts as differences, all others in a folded table."""
    of = charts.looks(list(found.results.suite.encoders))
    planned = headline(found.contrasts, found.results)
    groups: dict[tuple[str, str], list[tuple[str, Contrast]]] = {}
    for c in planned:
        name = f"{c.a} − {c.b}\n{place_name(c.place)}{VALIDATION.get(c.cell.validation, '')}"
        groups.setdefault((c.cell.head, c.metric), []).append((name, c))
    pictures = [
        Picture(
            f"{head}: difference of {metrics.NAMES[metric]}",
            svg(charts.differences(of_head, of, f"Difference of {metrics.NAMES[metric]}")),
            "Paired differences; the values are in the table below",
        )
        for (head, metric), of_head in groups.items()
    ]
    means = [c for c in found.contrasts if c.label == MACRO]
    rest = [c for c in means if c.planned and c not in planned]
    labels = [c for c in found.contrasts if c.label != MACRO]
    exploratory = [c for c in means if not c.planned]
    margin = found.results.statistics.margin
    return Section(
        "Paired differences",
        [
            "The same patients, resamples, draws and seeds for both. Hollow marks: not told apart. Verdicts "
            "follow p after Holm's correction, so that in a suite of equals at most 5 of 100 pages "
            "call anyone "
            "better; three fifths of the 5 % are the planned contrasts' with all studies, where "
            "there are others "
            "too. The interval is that of one comparison alone; what could have been seen is for all of them "
            "together. Equal within the margin means: both one-sided tests say that the two differ by less "
            f"than {margin:g}."
        ],
        pictures,
        "24rem",
        [
            _contrast_table(planned, "Planned, all labelled studies"),
            _contrast_table(rest, "Planned, other numbers of studies and choices of views"),
            _contrast_table(labels, "Planned, label by label", label=True),
            _contrast_table(exploratory, "Exploratory: pairs that the plan does not name"),
        ],
        folded=True,
    )  # fmt: skip


def _contrast_table(found: Sequence[Contrast], title: str, *, label: bool = False) -> Table:
    rows = [
        [
            words(f"{c.a} − {c.b}"),
            words(place_name(c.place)),
            words(cell_name(c.cell)),
            *([words(c.label)] if label else []),
            words(difference(c)),
            Shown("–" if np.isnan(c.p_holm) else f"{c.p_holm:.2g}", right=True),
            number(c.mdd_corrected),
            words(verdict(c)),
        ]
        for c in found
    ]
    middle = ["Label"] if label else []
    columns = [
        "Pair",
        "Task",
        "Head",
        *middle,
        "Difference",
        "p (Holm)",
        "Could have seen",
        "Verdict",
    ]
    return Table(columns, rows, title)


def label_curves(found: Findings) -> Section:
    """Label efficiency."""
    of = charts.looks(list(found.results.suite.encoders))
    groups = by_panel(found.curves, lambda c: (c.place, c.head, c.validation))
    pictures, rows, saved = [], [], []
    for (place, head, validation), here in groups.items():
        title = f"{place_name(place)}: {head}"
        title += ", validation among the labels" if validation == "spent" else ""
        if place.views == found.results.suite.views[0]:
            picture = svg(charts.curve(here, of, seen_by(found, place.dataset)))
            pictures.append(
                Picture(title, picture, "Macro AUROC by labelled studies; see the table")
            )
        for c in here:
            rows.append(
                [words(title), encoder(c.encoder), interval(c.area)]
                + [Shown(studies_needed(n), right=True) for n in c.needed]
                + [words(c.label_set)]
            )
    for s in found.savings:
        below = "" if np.isnan(s.low) else f"[{ratio(s.low)}, {ratio(s.high)}]"
        value = f"{'≥ ' if s.at_least and not np.isnan(s.value) else ''}{ratio(s.value)}"
        saved.append(
            [
                words(f"{place_name(s.place)}: {s.head}"), encoder(s.encoder), encoder(s.baseline),
                number(s.goal), Shown(value, below, right=True),
            ]
        )  # fmt: skip
    text = []
    if found.curves:
        text.append(
            "Bands hold test patients, draws of labelled patients and seeds. The labels of the mean are the "
            "same at every number of studies; one that a draw has one class of keeps its place with a "
            "constant prediction, AUROC .5. Crosses: where a curve reaches .75 and .80. The area is the mean "
            "of the curve over the logarithm of the studies."
        )
    pixels = [n for n, e in found.results.suite.encoders.items() if e.kind == "pixels"]
    if found.curves and pixels:
        text.append(
            f"The principal components of {', '.join(pixels)} are those of all training images at every "
            "number of studies: they take no label, as the pretrainings took none."
        )
    goals = [f"Studies for {n.goal:g}" for n in (found.curves[0].needed if found.curves else [])]
    return Section(
        "Label efficiency",
        text,
        pictures,
        "24rem",
        [
            Table(["Curve", "Encoder", "Area", *goals, "Label set"], rows, "Areas and studies needed"),
            Table(
                ["Curve", "Encoder", "Baseline best on validation", "AUROC", "Times the studies"], saved,
                "How many times the studies the baseline needs",
            ),
        ],
        folded=True,
    )  # fmt: skip


def view_choices(found: Findings) -> Section:
    """One view against two."""
    of = charts.looks(list(found.results.suite.encoders))
    groups = by_panel(found.conditions, lambda c: (c.task, c.dataset, c.head))
    pictures, rows = [], []
    for (task, dataset, head), here in groups.items():
        name = f"{task}, {dataset}: {head} ({here[0].studies:,} studies)"
        pictures.append(
            Picture(name, svg(charts.views(here, of)), "AUROC by choice of views; see the table")
        )
        rows += [
            [
                words(f"{task}, {dataset}"), words(head), encoder(c.encoder),
                words(VIEWS.get(c.views, c.views)), count(c.studies), interval(c.score),
                words("" if c.difference is None else difference(c.difference)),
                words("" if c.difference is None else VIEWS.get(c.against, c.against)),
            ]
            for c in here
        ]  # fmt: skip
    columns = ["Task", "Head", "Encoder", "Views", "Studies", "Macro AUROC", "Difference", "to"]
    return Section(
        "One view against two",
        [
            "Only studies with exactly one frontal and one lateral view, the same for all choices. "
            "Differences "
            "are paired, exploratory and not corrected for their number."
        ] if rows else [],
        pictures, "24rem", [Table(columns, rows, "Every choice")],
        keys=list(dict.fromkeys(c.encoder for c in found.conditions)), folded=True,
    )  # fmt: skip


def per_label(found: Findings) -> Section:
    """Heat tables: labels by encoders, of label tasks."""
    tables = []
    for (place, head), here in _panels(found).items():
        cohort = here[0].cohort
        if cohort.kind != "labels":
            continue
        names = [
            n for i, n in enumerate(cohort.names)
            if i in cohort.macro or not np.isnan(here[0].values["auroc"][:, i]).all()
        ]  # fmt: skip
        values = [s.runs("auroc", n).mean() for s in here for n in names]
        low, high = (np.nanmin(values), np.nanmax(values)) if values else (0.0, 1.0)
        rows = []
        # Rare labels first to be told from common ones: by the number of patients, not by the result.
        for n in sorted(names, key=lambda n: -cohort.counts[n].rarer):
            c = cohort.counts[n]
            told = [s.score("auroc", n) for s in here]
            rows.append(
                [
                    words(n, "" if n not in cohort.left_out else "not in the mean"),
                    Shown(
                        f"{c.positive_patients:,} of {c.positive_patients + c.negative_patients:,}",
                        right=True,
                    ),
                    *(interval(t, shade=heat(t.value, low, high)) for t in told),
                ]
            )  # fmt: skip
        columns = ["Label", "Patients with it", *(s.encoder for s in here)]
        tables.append(Table(columns, rows, f"{place_name(place)}: {head}"))
    text = [
        "AUROC, the commonest labels first. Fewer than 5 patients of a class: left out; fewer than "
        "10: a value "
        "and no interval; fewer than 50: the interval is made on the logit scale, after DeLong where "
        "there is "
        "one fit."
    ]
    return Section("Label by label", text if tables else [], tables=tables, folded=True)


def over_tasks(found: Findings) -> Section:
    """Averages, wins and losses, ranks."""
    rows = [
        [
            encoder(a.encoder), words(a.head), interval(a.unseen), count(a.unseen_cells),
            interval(a.everything), count(a.cells),
        ]
        for a in found.averages
    ]  # fmt: skip
    pairs = list(dict.fromkeys((c.a, c.b) for c in found.contrasts if c.planned))
    won = []
    for a, b in pairs:
        mine = [c for c in headline(found.contrasts, found.results) if (c.a, c.b) == (a, b)]
        if mine:
            counts = outcomes(mine)
            won.append([words(f"{a} against {b}"), *(count(n) for n in counts.values())])
    order, text = [], []
    for r in found.ranks:
        if r.average:
            order += [
                [words(r.head), encoder(e), number(rank), number(r.critical), number(r.p)]
                for e, rank in r.average.items()
            ]
        else:
            text.append(f"No ranks of {r.head} heads: {r.why_not}.")
    tables = [
        Table(
            ["Encoder", "Head", "Unseen tests", "Tests", "All tests", "Tests"], rows,
            "Macro AUROC, mean over the tasks of a cohort, then over cohorts",
            "The first average is over tests of which neither a compared encoder's pretraining nor the heads "
            "saw anything, without the encoders that have none; the second over all that all encoders have.",
        ),
        Table(["Pair", *outcomes([])], won, "Planned contrasts, by verdict"),
        Table(["Head", "Encoder", "Mean rank", "Critical difference", "Friedman p"], order, "Ranks"),
    ]  # fmt: skip
    return Section("Over tasks", text, tables=tables)


def costs(found: Findings) -> Section:
    """Quality against hours of pretraining, or parameters."""
    of = charts.looks(list(found.results.suite.encoders))
    told = found.results.plan.get("encoders", {})
    pictures = []
    for key, label in (
        ("pretraining_hours", "Hours of pretraining, over all workers"),
        ("parameters", "Parameters"),
    ):
        for head in dict.fromkeys(a.head for a in found.averages):
            points = [
                (a.encoder, float(told[a.encoder][key]), a.everything)
                for a in found.averages
                if a.head == head and a.everything and told.get(a.encoder, {}).get(key)
            ]
            if len({x for _, x, _ in points}) > 1:
                picture = svg(charts.cost(points, of, label))
                pictures.append(
                    Picture(f"{head}: {label}", picture, "Quality against cost; see the table")
                )
    rows = [
        [
            encoder(name), long(_say(e.get("described"))), words(_say(e.get("dimensions"))),
            words(_say(e.get("parameters"))), words(_say(e.get("pretraining_hours"))),
            long(_say(e.get("sees"))),
        ]
        for name, e in told.items()
    ]  # fmt: skip
    columns = ["Encoder", "What it is", "Features", "Parameters", "Hours", "What it sees"]
    return Section("Encoders and what they took", [], pictures, "24rem", [Table(columns, rows)])


def _say(value: object) -> str:
    from ray_mae.benchmarking.report.words import short

    return short(value)
