"""Segmentation on the page: each region, with what is counted beside the means."""

import numpy as np

from ray_mae.benchmarking.report.cells import (
    Section,
    Shown,
    Table,
    count,
    encoder,
    interval,
    number,
    words,
)
from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.words import place_name
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.scores import Scored
from ray_mae.benchmarking.statistics.segmentation import FAILED, Counts, counts, unmapped


def outlines(found: Findings) -> Section:
    """Dice, NSD and counts of every region, of fits with all labelled volumes."""
    here = [s for s in found.main if s.cohort.kind == "segmentation"]
    regions = list(dict.fromkeys((s.cohort.place, name) for s in here for name in s.cohort.names))
    of = [(s, name) for place, name in regions for s in here if s.cohort.place == place]
    counted = [counts(found.results, s, name) for s, name in of]
    first = ["Task", "Region", "Encoder"]
    means = [*first, *(metrics.NAMES[m] for m in metrics.OUTLINES), "HD95 (mm)"]
    tallies = [
        *first, "Volumes with it", "Nothing found", f"Dice < {FAILED:g}", "Lesions touched",
        "Lesions found that are none", "Empty references", "Found in empty ones", "There (ml)",
    ]  # fmt: skip
    pairs = list(zip(of, counted, strict=True))
    return Section(
        "Outlines, region by region",
        _text(found, here) if here else [],
        tables=[
            Table(means, [[*_of(s, name), *_means(s, name, c)] for (s, name), c in pairs], "Means"),
            Table(tallies, [[*_of(s, name), *_counts(c)] for (s, name), c in pairs], "Counts"),
        ],
    )


def _of(s: Scored, name: str) -> list[Shown]:
    out = "not in the mean" if name in s.cohort.left_out else ""
    return [words(place_name(s.cohort.place)), words(name, out), encoder(s.encoder)]


def _means(s: Scored, name: str, c: Counts) -> list[Shown]:
    told = [interval(s.score(m, name) if m in s.values else None) for m in metrics.OUTLINES]
    return [*told, number(c.hd95_mm)]


def _counts(c: Counts) -> list[Shown]:
    return [
        count(c.n_with), _tally(c.n_missed), _tally(c.n_failed),
        _tally(c.lesions_hit, f" of {c.lesions:,}"), _tally(c.lesions_false),
        count(c.n_empty), _tally(c.n_false_alarms), number(c.false_ml),
    ]  # fmt: skip


def _tally(mean: float, of: str = "") -> Shown:
    """A count, mean over fits: whole where it is."""
    return Shown(f"{mean:,.1f}".removesuffix(".0") + of, right=True)


def _text(found: Findings, here: list[Scored]) -> list[str]:
    results, head = found.results, found.results.suite.heads.segment
    of_rows = [
        results.cases(fit, s.cohort.place.dataset).values["tolerance_mm"]
        for s in here
        for fit in s.fits
    ]
    tolerances = np.unique(np.concatenate([np.ravel(of) for of in of_rows]))
    within, twice = (" or ".join(f"{k * mm:g}" for mm in tolerances) for k in (1, 2))
    rates = ", ".join(f"{lr:g}" for lr in head.lr)
    text = [
        f"Dice and NSD (the share of the two surfaces within {within} mm of the other, and "
        f"within {twice} mm) are means over patients, of volumes whose reference has the "
        "region; where nothing is found they are 0. An empty reference is in no mean: it is counted, and so "
        "are those in which the region was found all the same. HD95 is the median where there is something "
        "and something was found. A lesion is a connected part of the reference, touched where a voxel of it "
        "was found. Counts are means over fits.",
        f"Every start, scratch as well, tried the learning rates {rates} with {head.steps:,} steps each; the "
        "weights and the rate are those of the best mean Dice on validation patients.",
    ]  # fmt: skip
    missing = [
        f"{place_name(place)}: {n} test volumes without a label map"
        for place in dict.fromkeys(s.cohort.place for s in here)
        if (n := unmapped(found.results, place.dataset, place.task))
    ]
    return [*text, f"Not scored: {'; '.join(missing)}."] if missing else text
