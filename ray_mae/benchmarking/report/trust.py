"""Whether the numbers can be trusted, and how they came about: the other sections of the page."""

from collections import Counter
from typing import Any

import numpy as np

from ray_mae.benchmarking.report import charts
from ray_mae.benchmarking.report.cells import (
    Picture,
    Section,
    Shown,
    Table,
    count,
    encoder,
    interval,
    long,
    number,
    records,
    words,
)
from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.words import cell_name, exposure_words, place_name, short
from ray_mae.benchmarking.statistics.budget import NOISE
from ray_mae.benchmarking.statistics.calibration import Reliability
from ray_mae.benchmarking.statistics.metrics import NAMES
from ray_mae.benchmarking.statistics.results import SCORED, Place
from ray_mae.benchmarking.statistics.subgroups import LEAST_OF_GROUP, PERMUTATIONS, Gap
from ray_mae.benchmarking.statistics.uncertainty import FACTORS
from ray_mae.evaluate.pages.page import svg

STORED = {
    "What features know besides disease": {
        "knows": "Told by a linear head from the features of test patients",
        "variance": "Share of the features' variance between groups (η²), and by chance",
    },
    "Changed images": {
        "robustness": "Macro AUROC on changed test images less that on them as they are"
    },
    "Repeated scans of one person": {"agreement": "ICC(2,1) over features, and nearest neighbours"},
}
"""Sections of what was measured besides: keys of its records, and titles of their tables."""


CALIBRATED = (
    "brier_skill", "log_loss", "log_loss_tempered", "ece_mass", "ece_tempered", "slope", "intercept",
)  # fmt: skip


def calibration(found: Findings) -> Section:
    """Reliability, and metrics at home and elsewhere."""
    of = charts.looks(list(found.results.suite.encoders))
    panels: dict[tuple[Place, str, str], list[Reliability]] = {}
    for r in found.reliability:
        panels.setdefault((r.scored.cohort.place, r.scored.cell.head, r.label), []).append(r)
    heads = [head for _, head, _ in panels]
    pictures = [
        Picture(
            f"{label} ({place_name(place)}, {here[0].studies} per bin)",
            svg(
                charts.reliability(
                    {r.scored.encoder: (r.probability, r.positive) for r in here}, of
                )
            ),
            f"Predicted against observed share of {label}",
        )
        for (place, head, label), here in panels.items()
        if head == heads[0]
    ]
    rows = []
    for s in sorted(found.calibration, key=lambda s: (s.cell.task, s.cell.head)):
        entry = found.results.task(s.cell.task)
        where = "at home" if s.cohort.place.dataset == entry.dataset else "elsewhere"
        rows.append(
            [
                words(place_name(s.cohort.place)), words(where), words(s.cell.head), encoder(s.encoder),
                *(interval(s.score(m) if m in s.values else None) for m in CALIBRATED),
            ]
        )  # fmt: skip
    columns = ["Task", "Test", "Head", "Encoder", *(NAMES[m] for m in CALIBRATED)]
    text = [
        "Mean over labels. Brier skill: 1 is perfect, 0 is the prevalence for everybody. Slope 1 and "
        "intercept 0 are right; a slope below 1 is too sure of itself. Tempered: logits divided by the "
        "temperature that validation patients of the data set chose that the head was fitted on. An "
        "ECE of few "
        "patients is above 0 by chance. Brier score and ECE of bins of equal width are in scores.csv."
    ]
    if pictures:
        text.append(f"Curves are of the {heads[0]} head, mean over its fits.")
    return Section(
        "Calibration", text if rows else [], pictures, "13rem",
        [Table(columns, rows, "At home and elsewhere")], folded=True,
        keys=list(dict.fromkeys(r.scored.encoder for r in found.reliability)),
    )  # fmt: skip


def subgroups(found: Findings) -> Section:
    """Gaps between groups."""
    of = charts.looks(list(found.results.suite.encoders))
    panels: dict[tuple[Place, str, str], list[Gap]] = {}
    for gap in found.gaps:
        panels.setdefault((gap.place, gap.head, gap.attribute), []).append(gap)
    pictures, rows, groups = [], [], []
    left_out: dict[str, str] = {}
    for (place, head, attribute), here in panels.items():
        name = f"{place_name(place)}: {head}, by {attribute}"
        pictures.append(
            Picture(name, svg(charts.gaps(here, of)), "Gaps between groups; see the table")
        )
        for g in here:
            left_out |= {f"{attribute} {k}": why for k, why in g.left_out.items()}
            rows.append(
                [
                    words(name), encoder(g.encoder), interval(g.gap), number(g.chance),
                    number(g.p), words(g.worst), count(len(g.labels)),
                ]
            )  # fmt: skip
            groups += [
                [
                    words(name), encoder(g.encoder), words(group.name), count(group.patients),
                    count(group.positive), interval(group.auroc),
                ]
                for group in g.groups
            ]  # fmt: skip
    worst = [
        [
            words(f"{w.a} − {w.b}"), words(place_name(w.place)), words(w.head), words(w.attribute),
            interval(w.difference, sign=True),
        ]
        for w in found.worst
    ]  # fmt: skip
    text = [
        f"Groups with at least {LEAST_OF_GROUP} patients of each class. A gap is the best group's AUROC less "
        "the worst one's, which noise alone makes larger than 0: chance is its mean over "
        f"{PERMUTATIONS:,} deals of the groups over the patients, p the share of these that are as "
        "large. The "
        "interval of a gap is over resamples of patients and leans upwards as the gap does."
    ]
    if left_out:
        text.append(
            "Left out: "
            + "; ".join(f"{what}, {why}" for what, why in sorted(left_out.items()))
            + "."
        )
    return Section(
        "Groups of patients",
        text if rows else [],
        pictures,
        "21rem",
        [
            Table(["Groups", "Encoder", "Gap", "By chance", "p", "Worst group", "Labels"], rows, "Gaps"),
            Table(
                ["Pair", "Task", "Head", "Attribute", "Difference"], worst,
                "Planned pairs: AUROC of the worst group, paired",
            ),
            Table(["Groups", "Encoder", "Group", "Patients", "With it", "AUROC"], groups, "Every group"),
        ],
        folded=True,
    )  # fmt: skip


def stored(found: Findings) -> list[Section]:
    """What was measured when the tests were opened and is told as it is."""
    sections = []
    measured = found.results.store.trust()
    for title, parts in STORED.items():
        tables = [
            records(words, measured[key], short)
            for key, words in parts.items()
            if measured.get(key)
        ]
        sections.append(Section(title, [], tables=tables, folded=True))
    return sections


def exposure(found: Findings) -> Section:
    """What pretrainings saw of the tests."""
    results = found.results
    tested = list(dict.fromkeys(p.dataset for p in results.places))
    rows = []
    for name in results.suite.encoders:
        for dataset in tested:
            told = results.exposure(name, dataset)
            rows.append(
                [
                    encoder(name), words(dataset), words(exposure_words(told) or "nothing"),
                    words(short(told.get("patients", "–"))), words(short(told.get("images", "–"))),
                    long(" ".join([told.get("why", ""), *told.get("notes", ())])),
                ]
            )  # fmt: skip
    columns = ["Encoder", "Test", "Its pretraining", "Patients", "Images", "How that is known"]
    return Section(
        "What the pretraining saw of the tests",
        [
            "Tests that an encoder's pretraining saw something of, or may have, are in no headline average."
        ],
        tables=[Table(columns, rows)],
        folded=True,
    )


def variance(found: Findings) -> Section:
    """Where more compute, or more patients, would help."""
    rows = []
    for s in found.main:
        if s.cohort.macro:
            score = s.score(s.primary)
            rows.append(
                [
                    words(place_name(s.cohort.place)), words(s.cell.head), encoder(s.encoder),
                    number(score.sd("patients")), *(number(score.sd(f)) for f in FACTORS),
                    Shown(" × ".join(str(len(np.unique(s.levels[:, k]))) for k in range(3)), right=True),
                    Shown(f"{score.usable:.0%}", right=True),
                ]
            )  # fmt: skip
    columns = [
        "Task",
        "Head",
        "Encoder",
        "Patients",
        "Pretraining",
        "Draw",
        "Head's seed",
        "Levels",
        "Usable",
    ]
    return Section(
        "Where the uncertainty comes from",
        [
            "Standard errors of the mean by each source; – where there was one level alone, of which the "
            "interval then says nothing. Usable: resamples in which every label has both classes; "
            "below 95 % an "
            "interval is to be taken with care."
        ] if rows else [],
        tables=[Table(columns, rows)], folded=True,
    )  # fmt: skip


def budget(found: Findings) -> Section:
    """Trials, seeds, seconds."""
    rows = [
        [
            words(b.task), words(b.head), encoder(b.encoder), count(b.fits),
            Shown(" or ".join(map(str, b.settings)), right=True),
            Shown(" or ".join(map(str, b.vectors)), right=True),
            Shown(f"{b.pretrainings} × {b.draws} × {b.seeds}", right=True), count(b.samples_seen),
            count(b.parameters), Shown(f"{b.seconds:,.1f}", right=True), count(b.edges), count(b.unconverged),
        ]
        for b in found.budgets
    ]  # fmt: skip
    choices = [
        [
            words(place_name(a.scored.cohort.place)), words(cell_name(a.scored.cell)), count(a.fits),
            number(a.within), number(a.across), words("the choice was noise" if a.noise else ""),
        ]
        for a in found.agreements
    ]  # fmt: skip
    columns = [
        "Task", "Head", "Encoder", "Fits", "Settings tried", "Vectors tried",
        "Pretrainings × draws × seeds", "Samples seen", "Parameters", "Seconds", "At an edge", "Unconverged",
    ]  # fmt: skip
    text = []
    if not found.unequal and rows:
        text.append("Every encoder had as many trials as the others under the same head.")
    return Section(
        "Budget",
        text,
        tables=[
            Table(columns, rows, "What each encoder was given"),
            Table(
                ["Task", "Cell", "Fits", "Within encoders", "Across encoders", ""], choices,
                "Correlation of validation and test scores over fits",
                f"Below {NOISE:g} within encoders: what was chosen on validation could as well have been "
                "drawn.",
            ),
        ],
        folded=True,
    )  # fmt: skip


def flow(found: Findings) -> Section:
    """Samples in, left out, and why."""
    rows = []
    for name, told in found.results.plan.get("datasets", {}).items():
        for split, n in (told.get("counts") or {}).items():
            rows.append([words(name), words(split), words(short(n)), words("")])
        for what, n in (told.get("flow") or {}).items():
            if isinstance(n, dict):
                for why, m in n.items():
                    rows.append([words(name), words(what), words(short(m)), long(why)])
            else:
                rows.append([words(name), words(what), words(short(n)), words("")])
    scored = [
        [
            words(place_name(place)), count(len(c.rows)), count(len(np.unique(c.patient))),
            count(len(c.macro)), words(c.label_set), count(c.missed),
        ]
        for place, c in found.results.cohorts.items()
    ]  # fmt: skip
    labels = [
        [words(place_name(place)), words(name), long(why)]
        for place, c in found.results.cohorts.items()
        for name, why in c.left_out.items()
    ]
    return Section(
        "Flow of samples",
        [],
        tables=[
            Table(["Data set", "Part", "Number", "Why"], rows, "Data sets"),
            Table(
                ["Test", "Samples", "Patients", "Labels of the mean", "Label set", "Not seen by every fit"],
                scored, "What was scored",
            ),
            Table(["Test", "Label", "Why"], labels, "Labels left out of the mean"),
        ],
        folded=True,
    )  # fmt: skip


def failures(found: Findings) -> Section:
    """Fits without a result, and constants."""
    groups: Counter[tuple[str, str, str, str]] = Counter()
    for fit in found.results.fits:
        if fit.status not in SCORED or fit.status == "constant":
            groups[fit.key.encoder, fit.key.cell.head, fit.status, fit.reason] += 1
    missing = found.results.statuses().get("missing", 0)
    rows = [
        [encoder(e), words(h), words(s), long(why), count(n)]
        for (e, h, s, why), n in sorted(groups.items())
    ]
    constant = Counter(
        (fit.key.cell.task, label) for fit in found.results.fits for label in fit.constant
    )
    constants = [[words(t), words(label), count(n)] for (t, label), n in sorted(constant.items())]
    smoke = found.results.plan.get("smoke") or {}
    checks = [[encoder(name), long(short(told))] for name, told in smoke.items()]
    text = [] if rows or missing else ["Every fit of the plan has a result."]
    if missing:
        text.append(f"{missing} fits of the plan have no row: they were never finished.")
    return Section(
        "Failures",
        text,
        tables=[
            Table(["Encoder", "Head", "Status", "Why", "Fits"], rows, "Fits without a result"),
            Table(["Task", "Label", "Fits"], constants, "Labels of which a draw had one class"),
            Table(["Encoder", "Result"], checks, "Smoke checks of encoders"),
        ],
    )


def protocol(found: Findings) -> Section:
    """What was fixed before, how often the test was opened, and what the numbers do not show."""
    results = found.results
    suite, statistics = results.suite, results.statistics
    opened = results.store.opened()
    rows: list[list[Shown]] = [
        [words("Plan"), words(short(results.plan.get("sha256")))],
        [words("Times opened"), words(len(opened))],
        *([words("Opened"), words(_opening(record))] for record in opened),
        [words("Code"), words(short(results.plan.get("code")))],
        [words("Resamples of patients"), words(short(statistics.resamples))],
        [words("Margin of equivalence"), words(f"{statistics.margin:g}")],
        [words("Heads"), words(", ".join(suite.heads.use))],
        [words("Views"), words(", ".join(suite.views))],
        [words("Planned contrasts"), long("; ".join(" − ".join(pair) for pair in suite.contrasts) or "none")],
    ]  # fmt: skip
    text = [
        "Settings, vectors, heads and checkpoints were chosen on validation patients. Test labels were "
        "opened after the plan was fixed, and each fit was scored once. A choice among variants by "
        "their test "
        "score stands nowhere on this page.",
        *suite.notes,
    ]
    return Section(
        "Protocol and limits",
        text,
        tables=[
            Table(["", ""], rows),
            Table(
                [""],
                [[long(limit)] for limit in LIMITS],
                "What the numbers do not show",
            ),
        ],
    )


LIMITS = (
    "Heads show what features hold for these labels on these patients; nothing here is a diagnosis.",
    "Labels mined from reports carry the errors of the reports and of the tool; a pretraining with "
    "reports read "
    "their source.",
    "An interval knows the sources that had several levels: with one pretraining, one draw or one "
    "seed it says "
    "nothing of others.",
    "Not told apart does not mean equal: see what could have been seen.",
    "Exposure is known from shards and from what makers say; what is unknown may be seen.",
)


def _opening(record: dict[str, Any]) -> str:
    plan = short(record.get("plan") or record.get("sha256"))
    return f"{record.get('time', 'at an unknown time')}, plan {plan[:12]}"
