"""From probes of many encoders to curves: AUROC by number of studies, and the gain over open weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ray_mae.evaluate.intervals import LEAST_RUNS
from ray_mae.evaluate.metrics import Estimate, FloatArray
from ray_mae.evaluate.scores import Evidence, difference_estimate, label_estimate


@dataclass(frozen=True)
class Encoder:
    """One encoder of a curve."""

    start: str
    """What its pretraining began with."""
    studies: int
    """That it was pretrained on, of one's own; 0: as it came."""
    seed: int

    @property
    def name(self) -> str:
        return f"{self.start}-{self.studies}-seed{self.seed}"


@dataclass(frozen=True)
class Point:
    """Encoders of one start and number of studies, over their seeds."""

    start: str
    studies: int
    auroc: Estimate
    """Mean over labels and seeds, on test patients."""
    gain: Estimate | None
    """That minus the open encoder's, paired by patients; None of the open encoder itself."""
    seeds: list[float]
    """AUROC by seed."""


def points_of(
    value: Mapping[Encoder, float],
    resampled: Mapping[Encoder, FloatArray],
    reference: str,
    patients: int,
    evidence: Evidence | None = None,
) -> list[Point]:
    """The points of all curves, by start in the order of the encoders, then by studies.

    Args:
        value: macro AUROC of each encoder on the test patients.
        resampled: [R] the same in each resample of these, the same resamples for all.
        reference: name of the start that all are compared with as it came.
        patients: that the resamples are drawn from.
        evidence: what the test patients can tell of the label, where there is one alone.
    """
    groups: dict[tuple[str, int], list[Encoder]] = {}
    for encoder in value:
        groups.setdefault((encoder.start, encoder.studies), []).append(encoder)
    (base,) = groups[reference, 0]
    starts = list(dict.fromkeys(start for start, _ in groups))
    points = []
    for start, studies in sorted(groups, key=lambda key: (starts.index(key[0]), key[1])):
        of = groups[start, studies]
        nothing = [np.nan] * len(of)
        auroc = label_estimate(
            "auroc", [value[e] for e in of], [resampled[e] for e in of], nothing, evidence, patients
        )
        gain = None
        if of != [base]:
            gain = difference_estimate(
                [value[e] - value[base] for e in of],
                [resampled[e] - resampled[base] for e in of],
                evidence,
                patients,
            )
        points.append(Point(start, studies, auroc, gain, [value[e] for e in of]))
    return points


def better_from(points: Sequence[Point], start: str) -> int | None:
    """The fewest studies from which on every point of a start gains, by intervals; None where there are none.

    Args:
        points: of `points_of`.
        start: whose points are looked at, those that were pretrained.
    """
    least = None
    for point in sorted(
        (p for p in points if p.start == start and p.studies), key=lambda p: -p.studies
    ):
        if point.gain is None or not point.gain.known or point.gain.low <= 0:
            break
        least = point.studies
    return least


def verdict(points: Sequence[Point], start: str, reference: str, noun: str) -> str:
    """What a curve tells, in a sentence.

    Args:
        points: of `points_of`.
        start: whose curve.
        reference: the open encoder's name.
        noun: plural of a sample.
    """
    of = [p for p in points if p.start == start and p.studies]
    last = max(of, key=lambda p: p.studies)
    seeds = len(last.seeds)
    caution = ""
    if seeds == 1:
        caution = " Of one seed: the interval covers the choice of test patients alone."
    elif seeds < LEAST_RUNS:
        return f"From {start}: no interval, since two seeds have none; give {LEAST_RUNS} or more."
    least = better_from(points, start)
    if least is not None:
        return (
            f"From {start}: better than {reference} as it came, from {least:,} {noun} on (the 95 % interval "
            f"of the gain lies above 0 there and at every larger number).{caution}"
        )
    assert last.gain is not None
    if not last.gain.known:
        return f"From {start}: no interval, since the test patients are too few to tell."
    every = f"all {last.studies:,} {noun}"
    if last.gain.high < 0:
        return f"From {start}: worse than {reference} as it came, even with {every}.{caution}"
    return (
        f"From {start}: with {every} not told apart from {reference} as it came (the interval holds 0)."
        f"{caution}"
    )


def table(points: Sequence[Point]) -> list[dict[str, object]]:
    """A record per point, for CSV; what is not known is NaN."""
    nothing = Estimate(np.nan, np.nan, np.nan)
    return [
        {
            "start": p.start,
            "studies": p.studies,
            "seeds": len(p.seeds),
            **{f"auroc{end}": v for end, v in _ends(p.auroc)},
            **{f"gain{end}": v for end, v in _ends(p.gain or nothing)},
        }
        for p in points
    ]


def _ends(e: Estimate) -> list[tuple[str, float]]:
    return [("", e.value), ("_low", e.low), ("_high", e.high)]
