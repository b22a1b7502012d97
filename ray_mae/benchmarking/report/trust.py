"""Whether the numbers can be trusted: calibration, groups of patients, and what was measured besides."""

from ray_mae.benchmarking.report import charts
from ray_mae.benchmarking.report.cells import (
    Picture,
    Section,
    Table,
    by_panel,
    count,
    encoder,
    interval,
    number,
    records,
    words,
)
from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.words import place_name, short
from ray_mae.benchmarking.statistics.metrics import NAMES
from ray_mae.benchmarking.statistics.subgroups import LEAST_OF_GROUP, PERMUTATIONS, SPECIFICITY
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
ERRORS = {"auroc": "AUROC", "fpr": "False positives", "fnr": "False negatives"}
"""What has a gap between groups: key and name."""
CALIBRATED = (
    "brier_skill", "log_loss", "log_loss_tempered", "ece_mass", "ece_tempered", "slope", "intercept",
)  # fmt: skip


def calibration(found: Findings) -> Section:
    """Reliability, and metrics at home and elsewhere."""
    of = charts.looks(list(found.results.suite.encoders))
    panels = by_panel(
        found.reliability, lambda r: (r.scored.cohort.place, r.scored.cell.head, r.label)
    )
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
    panels = by_panel(found.gaps, lambda g: (g.place, g.head, g.attribute))
    pictures, rows, groups = [], [], []
    left_out: dict[str, str] = {}
    for (place, head, attribute), here in panels.items():
        name = f"{place_name(place)}: {head}, by {attribute}"
        pictures.append(
            Picture(name, svg(charts.gaps(here, of)), "Gaps between groups; see the table")
        )
        for g in here:
            left_out |= {f"{attribute} {k}": why for k, why in g.left_out.items()}
            rows += [
                [
                    words(name), encoder(g.encoder), words(ERRORS[metric]), interval(s.gap),
                    number(s.chance), number(s.p), words(s.worst), count(len(g.labels)),
                ]
                for metric, s in g.spreads.items()
            ]  # fmt: skip
            groups += [
                [
                    words(name), encoder(g.encoder), words(group.name), count(group.patients),
                    count(group.positive), *(interval(group.scores.get(m)) for m in ERRORS),
                    number(group.prevalence),
                    *(interval(group.scores.get(m)) for m in ("average_precision", "brier")),
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
        "large. The interval of a gap is over resamples of patients and leans upwards as the gap does. Of "
        "errors the worst group has most; they are counted above and below one threshold for everybody, "
        f"that of {SPECIFICITY:.0%} specificity among validation patients of the data set that heads were "
        "fitted on. Average precision and Brier score go with the prevalence of a group, which stands "
        "beside them, and have no gap."
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
            Table(
                ["Groups", "Encoder", "Of", "Gap", "By chance", "p", "Worst group", "Labels"], rows, "Gaps"
            ),
            Table(
                ["Pair", "Task", "Head", "Attribute", "Difference"], worst,
                "Planned pairs: AUROC of the worst group, paired",
            ),
            Table(
                [
                    "Groups", "Encoder", "Group", "Patients", "With it", *ERRORS.values(), "Prevalence",
                    NAMES["average_precision"], NAMES["brier"],
                ],
                groups, "Every group",
            ),
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
