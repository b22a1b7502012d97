"""What features know besides disease: a planted shortcut is found, and nothing where there is nothing."""

from typing import Any

import numpy as np
import pytest

from ray_mae.benchmarking.knows import eta_squared, knows

PATIENTS = 240


def cohort(
    site_in: float, disease_in: float = 1.5, with_disease: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """Two studies of each patient, 24 features; a site and a disease of which features tell so much.

    with_disease: how much more often site b has the disease.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(PATIENTS), 2)
    site = rng.random(PATIENTS) < 0.5
    sick = rng.random(PATIENTS) < 0.3 + with_disease * site
    age = rng.uniform(20, 80, PATIENTS)
    features = rng.normal(size=(len(patient), 24))
    features[:, :3] += site_in * site[patient, None]
    features[:, 3:6] += disease_in * sick[patient, None]
    features[:, 6] += age[patient] / 10
    split = np.array(["train", "train", "train", "val", "test", "test"])[patient % 6]
    named = np.array(["north", "south"], dtype=object)[site[patient].astype(int)]
    return {
        "features": features, "site": named, "age": age[patient].astype(object),
        "patient": patient.astype(np.str_), "split": split, "healthy": ~sick[patient],
        "sick": np.array([str(s) for s in sick[patient]], dtype=object),
    }  # fmt: skip


def ask(of: dict[str, Any], name: str, **more: Any) -> Any:
    return knows(of["features"], name, of[name], of["patient"], of["split"], **more)


def test_a_planted_site_is_found_and_stays_within_a_label() -> None:
    of = cohort(site_in=2.0, with_disease=0.4)
    everybody = ask(of, "site")
    within = ask(of, "site", within=of["healthy"], among="No Finding")
    for found in (everybody, within):
        assert found.value > 0.9 > found.chance_high > found.chance == 0.5 > found.chance_low
        assert found.low <= found.value <= found.high
    assert within.among == "No Finding"
    assert within.patients < everybody.patients == PATIENTS / 3
    shares = eta_squared(
        of["features"], {n: of[n] for n in ("site", "sick")}, np.flatnonzero(of["split"] == "train")
    )
    assert shares["site"].share > 5 * shares["site"].by_chance
    assert 0 < shares["sick"].share < 1


def test_a_site_that_only_goes_with_the_disease_is_not_known_within_a_label() -> None:
    of = cohort(site_in=0.0, disease_in=3.0, with_disease=0.5)
    assert ask(of, "site").value > 0.6
    within = ask(of, "site", within=of["healthy"], among="No Finding")
    assert within.low < 0.5 < within.high


def test_nothing_is_known_of_what_is_not_there() -> None:
    found = [ask(cohort(site_in=0.0, seed=seed), "site", seed=seed) for seed in range(8)]
    assert sum(k.value > k.chance_high for k in found) <= 1, "of forty one is, by chance"
    rng = np.random.default_rng(0)
    groups = {"g": rng.integers(0, 5, 400).astype(object)}
    found = eta_squared(rng.normal(size=(400, 60)), groups, range(400))["g"]
    assert found.share == pytest.approx(found.by_chance, rel=0.2)
    assert (found.groups, found.samples) == (5, 400)


def test_an_age_is_known_by_the_variance_that_is_explained() -> None:
    of = cohort(site_in=0.0)
    found = ask(of, "age")
    assert found.metric == "R2"
    assert 0.5 < found.value < 1
    assert found.chance == 0 > found.chance_low
    assert found.low < found.value < found.high


def test_a_number_of_few_values_is_told_apart_as_classes_are() -> None:
    of = cohort(site_in=2.0)
    of["site"] = np.where(of["site"] == "north", 1.5, 3.0).astype(object)
    found = ask(of, "site")
    assert (found.metric, found.values) == ("balanced accuracy", ("1.5", "3.0"))
    assert found.value > 0.9


def test_values_of_few_patients_are_left_out_and_named() -> None:
    of = cohort(site_in=2.0)
    of["site"][:4] = "attic"
    of["site"][10:20] = None
    found = ask(of, "site")
    assert found.values == ("north", "south")
    assert found.left_out == ("attic",)
    of["site"][:] = "one"
    alone = ask(of, "site")
    assert np.isnan(alone.value)
    assert "fewer than two values" in alone.reason
    assert np.isnan(eta_squared(of["features"], {"site": of["site"]}, range(480))["site"].share)
    of["age"][24:] = None
    assert "patients in train, val and test" in ask(of, "age").reason
