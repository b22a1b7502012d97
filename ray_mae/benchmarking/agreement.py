"""How well features of the same people agree over scanners: intraclass correlation, nearest neighbours."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
SCANNER = ("model", "manufacturer", "site")
"""Attributes that tell scanners apart, the first that a data set has."""


@dataclass(frozen=True)
class Agreement:
    """Of an encoder on a data set in which people were scanned several times."""

    icc_median: float
    """ICC(2,1) over the features; 1 where scanners make no difference, 0 where people make none."""
    icc_low: float
    icc_high: float
    """5th and 95th percentile over the features."""
    itself: float
    """Share of people whose nearest neighbour on another scanner is themselves: mean over their scans, then
    over people."""
    itself_by_chance: float
    people: int
    """Who were scanned on every one of the scanners; only they count for the ICC."""
    scanners: list[str]
    constant_features: int
    """Left out of the ICC."""
    people_left_out: int
    scanners_left_out: list[str]
    scans_repeated: int
    """Further scans of a person on the same scanner, which do not count for the ICC."""


def agreement(features: Floats, person: NDArray[np.str_], scanner: NDArray[np.str_]) -> Agreement:
    """Agreement over scanners.

    Where not everybody was scanned everywhere, those scanners count that leave the largest whole table of
    people and scanners when the others are dropped, the least used first.

    Args:
        features: [N, D] of N scans.
        person: [N].
        scanner: [N].

    Raises:
        ValueError: there are not two people who were all scanned on the same two scanners.
    """
    person, scanner = np.asarray(person, np.str_), np.asarray(scanner, np.str_)
    first, people, scanners = repeated(person, scanner)
    table = np.array([[first[who, where] for where in scanners] for who in people])
    icc = icc_2_1(np.asarray(features, np.float64)[table])
    known = icc[~np.isnan(icc)]
    low, median, high = np.percentile(known, [5, 50, 95]) if len(known) else [float("nan")] * 3
    itself, chance = _nearest_is_itself(features, person, scanner)
    return Agreement(
        float(median), float(low), float(high), itself, chance, len(people), scanners,
        int(np.isnan(icc).sum()), len(set(person.tolist())) - len(people),
        sorted(set(scanner.tolist()) - set(scanners)), len(person) - len(first),
    )  # fmt: skip


def scanner_attribute(there: Iterable[str], dataset: str) -> str:
    """Returns the attribute that tells scanners apart. Raises ValueError where there is none."""
    if (name := next((n for n in SCANNER if n in there), None)) is None:
        raise ValueError(
            f"trust.repeats: {dataset} does not say on which scanner a scan was made: ingest it with "
            f"--attributes (one of {', '.join(SCANNER)})"
        )
    return name


def repeated(
    person: NDArray[np.str_], scanner: NDArray[np.str_]
) -> tuple[dict[tuple[str, str], int], list[str], list[str]]:
    """Returns the first scan of each person on each scanner, and people and scanners of a whole table.

    Raises:
        ValueError: there are not two people who were all scanned on the same two scanners.
    """
    first: dict[tuple[str, str], int] = {}
    for row, (who, where) in enumerate(zip(person.tolist(), scanner.tolist(), strict=True)):
        first.setdefault((who, where), row)
    people, scanners = _whole_table(set(first))
    if len(people) < 2 or len(scanners) < 2:
        raise ValueError(
            f"{len(set(person.tolist()))} people and {len(set(scanner.tolist()))} scanners, but not two "
            "people who were both scanned on the same two scanners: agreement (trust.repeats) needs them"
        )
    return first, people, scanners


def icc_2_1(values: Floats) -> NDArray[np.float64]:
    """ICC(2,1) [D] of values [n people, k scanners, D]: two-way random effects, single measure.

    Shrout and Fleiss 1979: (MSR − MSE) / (MSR + (k − 1) MSE + k (MSC − MSE) / n). NaN where a feature is
    constant.
    """
    n, k, _ = values.shape
    grand = values.mean((0, 1))
    of_people, of_scanners = values.mean(1), values.mean(0)
    between_people = k * ((of_people - grand) ** 2).sum(0) / (n - 1)
    between_scanners = n * ((of_scanners - grand) ** 2).sum(0) / (k - 1)
    rest = values - of_people[:, None] - of_scanners[None] + grand
    error = (rest**2).sum((0, 1)) / ((n - 1) * (k - 1))
    below = between_people + (k - 1) * error + k * (between_scanners - error) / n
    varies = values.std((0, 1)) > 1e-12 * np.abs(values).max((0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies & (below > 0), (between_people - error) / below, np.nan)


def _whole_table(scans: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """People and scanners such that everybody was on each of them: the most scans."""
    of_scanner: dict[str, set[str]] = {}
    for who, where in scans:
        of_scanner.setdefault(where, set()).add(who)
    by_use = sorted(of_scanner, key=lambda name: (-len(of_scanner[name]), name))
    best: tuple[list[str], list[str]] = ([], [])
    for count in range(2, len(by_use) + 1):
        people = set.intersection(*(of_scanner[name] for name in by_use[:count]))
        if len(people) > 1 and len(people) * count > len(best[0]) * len(best[1]):
            best = sorted(people), sorted(by_use[:count])
    return best


def _nearest_is_itself(
    features: Floats, person: NDArray[np.str_], scanner: NDArray[np.str_]
) -> tuple[float, float]:
    """Share of people, and what it would be by chance; features are standardised for it."""
    scores = np.asarray(features, np.float64)
    deviation = scores.std(0)
    scores = (scores - scores.mean(0)) / np.where(deviation > 0, deviation, 1)
    squares = (scores**2).sum(1)
    distance = squares[:, None] + squares[None] - 2 * scores @ scores.T
    elsewhere = scanner[:, None] != scanner[None]
    same = (person[:, None] == person[None]) & elsewhere
    asked = same.any(1)  # who was nowhere else has no answer
    nearest = np.where(elsewhere, distance, np.inf).argmin(1)
    right = person[nearest] == person
    chance = same.sum(1) / np.maximum(elsewhere.sum(1), 1)
    names = sorted(set(person[asked].tolist()))
    means = [
        (right[asked & (person == name)].mean(), chance[asked & (person == name)].mean())
        for name in names
    ]
    itself, by_chance = np.mean(means, axis=0)
    return float(itself), float(by_chance)
