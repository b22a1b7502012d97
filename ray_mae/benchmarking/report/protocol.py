"""How the numbers came about: sources of variance, budget, flow of samples, failures and the protocol."""

from collections import Counter
from typing import Any

import numpy as np

from ray_mae.benchmarking.report.cells import (
    Section,
    Shown,
    Table,
    count,
    encoder,
    long,
    number,
    words,
)
from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.words import cell_name, place_name, short
from ray_mae.benchmarking.statistics.budget import NOISE
from ray_mae.benchmarking.statistics.results import SCORED
from ray_mae.benchmarking.statistics.uncertainty import FACTORS


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
    absent = [
        [encoder(name), words(task), long(why)]
        for task, by in (found.results.plan.get("left_out") or {}).items()
        for name, why in by.items()
    ]
    text = [] if rows or missing else ["Every fit of the plan has a result."]
    if missing:
        text.append(f"{missing} fits of the plan have no row: they were never finished.")
    return Section(
        "Failures",
        text,
        tables=[
            Table(["Encoder", "Head", "Status", "Why", "Fits"], rows, "Fits without a result"),
            Table(["Encoder", "Task", "Why"], absent, "Encoders without a row in a task"),
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
        [words("Heads"), words(", ".join(_heads(found)))],
        [words("Views"), words(", ".join(suite.views))],
        [words("Planned contrasts"), long("; ".join(" − ".join(pair) for pair in suite.contrasts) or "none")],
    ]  # fmt: skip
    text = [
        "Settings, vectors, heads and checkpoints were chosen on validation patients. Test labels were "
        "opened after the plan was fixed, and each fit was scored once. A choice among variants by "
        "their test "
        "score stands nowhere on this page.",
        *results.config.notes,
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


def _heads(found: Findings) -> list[str]:
    """Names of the heads that the tasks of the suite may use."""
    suite = found.results.suite
    kinds = {task.kind for task in suite.tasks.values()}
    return [
        *(suite.heads.use if kinds - {"segmentation"} else []),
        *(["segment"] if "segmentation" in kinds else []),
    ]


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
