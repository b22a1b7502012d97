"""What a curve tells: gains in pairs, from how many studies on, and what few seeds do not tell."""

import numpy as np
import pytest

from ray_mae.adaptation.curve import Encoder, better_from, points_of, table, verdict
from ray_mae.evaluate.scores import Evidence

R = 400
OPEN = Encoder("open", 0, 0)


def curve(gains: dict[int, list[float]], spread: float = 0.002) -> list:
    """Points of one start whose encoders gain so much over the open one, by studies and seed."""
    draw = np.random.default_rng(0)
    patients = draw.normal(0, 0.05, R)  # what resamples of the patients do to every encoder alike
    value, resampled = {OPEN: 0.7}, {OPEN: 0.7 + patients}
    for studies, of_seeds in gains.items():
        for seed, gain in enumerate(of_seeds):
            encoder = Encoder("open", studies, seed)
            value[encoder] = 0.7 + gain
            resampled[encoder] = 0.7 + gain + patients + draw.normal(0, spread, R)
    return points_of(value, resampled, "open", 100)


def test_gains_are_taken_in_pairs() -> None:
    points = curve({100: [0.02]})
    assert [(p.start, p.studies) for p in points] == [("open", 0), ("open", 100)]
    assert points[0].gain is None
    gain = points[1].gain
    assert gain.value == pytest.approx(0.02)
    assert gain.high - gain.low < 0.01 < points[1].auroc.high - points[1].auroc.low


@pytest.mark.parametrize(
    ("gains", "least"),
    [
        ({100: [-0.03], 300: [0.02], 900: [0.03]}, 300),
        ({100: [0.02], 300: [0.0], 900: [0.03]}, 900),
        ({100: [0.02], 300: [0.02], 900: [0.03]}, 100),
        ({100: [0.02], 300: [0.02], 900: [0.0]}, None),
    ],
)
def test_it_is_better_from_where_every_larger_number_is(
    gains: dict[int, list[float]], least: int | None
) -> None:
    points = curve(gains)
    assert better_from(points, "open") == least
    told = verdict(points, "open", "open", "studies")
    if least:
        assert f"better than open as it came, from {least} studies on" in told
    else:
        assert "with all 900 studies not told apart" in told
    assert told.endswith("Of one seed: the interval covers the choice of test patients alone.")


def test_what_is_worse_is_called_so() -> None:
    assert "worse than open as it came, even with all 300 studies" in verdict(
        curve({100: [-0.02], 300: [-0.02]}), "open", "open", "studies"
    )


def test_seeds_that_differ_widen_the_interval_and_two_have_none() -> None:
    (_, alike), (_, apart) = curve({100: [0.02] * 3}), curve({100: [0.06, 0.0, 0.0]})
    assert alike.gain.low > 0 > apart.gain.low
    assert apart.seeds == pytest.approx([0.76, 0.7, 0.7])
    two = curve({100: [0.02, 0.03]})
    assert not two[1].gain.known
    assert better_from(two, "open") is None
    assert "no interval, since two seeds have none" in verdict(two, "open", "open", "studies")


def test_the_table_has_every_point() -> None:
    rows = table(curve({100: [0.02], 300: [0.03]}))
    assert [row["studies"] for row in rows] == [0, 100, 300]
    assert np.isnan(rows[0]["gain"])
    assert rows[2]["gain_low"] < rows[2]["gain"] < rows[2]["gain_high"]


def test_of_one_label_with_few_patients_there_is_no_interval_and_no_verdict() -> None:
    few = Evidence(7, 93, 1.0, "none")
    value = {OPEN: 0.7, Encoder("open", 100, 0): 0.9}
    around = np.random.default_rng(0).normal(0, 0.01, R)
    points = points_of(value, {e: v + around for e, v in value.items()}, "open", 100, few)
    assert not any(p.auroc.known for p in points)
    assert better_from(points, "open") is None
    assert "too few to tell" in verdict(points, "open", "open", "studies")
