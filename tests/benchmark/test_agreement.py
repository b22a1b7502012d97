"""Agreement of features over scanners: by the textbook, and where truth is planted."""

import numpy as np
import pytest

from ray_mae.benchmarking.agreement import agreement, icc_2_1

RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_icc_is_that_of_shrout_and_fleiss() -> None:
    values = np.array(RATINGS, float)[:, :, None]
    assert icc_2_1(values)[0] == pytest.approx(0.29, abs=0.005)


def test_icc_is_one_without_scanners_and_zero_without_people() -> None:
    rng = np.random.default_rng(0)
    people, scanners = rng.normal(size=(40, 1, 1)), rng.normal(size=(1, 5, 1))
    noise = rng.normal(size=(40, 5, 1))
    values = np.concatenate([people + 0 * scanners, scanners + 0.1 * noise, 0 * noise + 3], axis=2)
    icc = icc_2_1(values)
    assert icc[0] == pytest.approx(1)
    assert abs(icc[1]) < 0.05
    assert np.isnan(icc[2]), "a constant feature has none"


def planted(shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """30 people on 4 scanners, 16 features; the scanner shifts each of them by so many SD of people."""
    rng = np.random.default_rng(seed)
    person, scanner = np.divmod(np.arange(120), 4)
    features = rng.normal(size=(30, 16))[person] + shift * rng.normal(size=(4, 16))[scanner]
    features += 0.2 * rng.normal(size=features.shape)
    return features, person.astype(np.str_), scanner.astype(np.str_)


def test_people_find_themselves_unless_the_scanner_is_stronger() -> None:
    near, far = agreement(*planted(0.1)), agreement(*planted(4.0))
    assert near.itself > 0.95
    assert near.icc_median > 0.9 > 0.3 > far.icc_median
    assert far.itself < near.itself
    assert near.itself_by_chance == pytest.approx(3 / 90)
    assert near.icc_low <= near.icc_median <= near.icc_high
    assert (near.people, near.scanners) == (30, ["0", "1", "2", "3"])


def test_where_not_everybody_was_everywhere_the_largest_whole_table_counts() -> None:
    features, person, scanner = planted(0.1)
    kept = ~((scanner == "3") & (person.astype(int) > 2)) & ~((scanner == "0") & (person == "7"))
    again = np.concatenate([np.flatnonzero(kept), [0]])  # a scan is there twice
    found = agreement(features[again], person[again], scanner[again])
    assert found.scanners == ["0", "1", "2"]
    assert found.scanners_left_out == ["3"]
    assert (found.people, found.people_left_out, found.scans_repeated) == (29, 1, 1)
    with pytest.raises(ValueError, match=r"30 people and 1 scanners, but not two people"):
        agreement(features, person, np.zeros(120).astype(np.str_))
