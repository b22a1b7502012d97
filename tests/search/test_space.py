"""The space of a search: what may be written, what it means, and what is refused."""

import re
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_mae.search.space import category, grid, read_space, suggest, with_values

SPACE = {
    "method.alignment": {"choice": ["mse", "cosine"], "when": {"method.beta": [2.0, 20.0]}},
    "method.beta": {"choice": [0.0, 2.0, 20.0]},
    "method.mask_ratio": {"uniform": [0.3, 0.9]},
    "optim.lr": {"loguniform": ["1e-4", 1e-2]},
    "method.decoder_depth": {"int": [1, 8]},
    "optim.batch_size": {"logint": [8, 128]},
    "method.crop": {"choice": [[0.5, 1.0], None]},
}


def sample(space: dict[str, Any], seed: int) -> dict[str, Any]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return suggest(read_space(space), study.ask())


@given(st.integers(0, 2**16))
def test_a_suggestion_holds_what_matters_and_lies_within_its_bounds(seed: int) -> None:
    values = sample(SPACE, seed)
    assert ("method.alignment" in values) == (values["method.beta"] > 0)
    assert 0.3 <= values["method.mask_ratio"] <= 0.9
    assert 1e-4 <= values["optim.lr"] <= 1e-2
    assert values["method.decoder_depth"] in range(1, 9)
    assert isinstance(values["optim.batch_size"], int)
    assert values["method.crop"] in ([0.5, 1.0], None)


def test_a_parameter_comes_after_those_it_depends_on() -> None:
    names = [p.name for p in read_space(SPACE)]
    assert names.index("method.beta") < names.index("method.alignment")


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True),
)
def test_a_grid_is_every_point_once(a: list[int], b: list[float]) -> None:
    points = grid(read_space({"a": {"grid": a}, "b": {"grid": b}, "c": {"uniform": [0, 1]}}))
    assert len(points) == len(a) * len(b)
    assert {(p["a"], p["b"]) for p in points} == {(x, y) for x in a for y in b}


def test_points_of_a_grid_that_differ_in_what_does_not_matter_are_one() -> None:
    space = {
        "beta": {"grid": [0, 2]},
        "form": {"grid": ["mse", "cosine"], "when": {"beta": 2}},
    }
    assert grid(read_space(space)) == [
        {"beta": 0},
        {"beta": 2, "form": "mse"},
        {"beta": 2, "form": "cosine"},
    ]


def test_values_find_their_places() -> None:
    run = {"method": {"mask_ratio": [0.1, 0.9], "beta": 2.0}, "seed": 0}
    settings = with_values(run, {"method.mask_ratio[1]": 0.5, "seed": 3})
    assert settings == {"method": {"mask_ratio": [0.1, 0.5], "beta": 2.0}, "seed": 3}
    assert run["seed"] == 0
    assert with_values(run, {"method.mask_ratio": [0.2, 0.2]})["method"]["mask_ratio"] == [0.2, 0.2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("method.bta", "did you mean method.beta?"),
        ("method.mask_ratio[2]", "mask_ratio does not hold so many values"),
        ("seed[0]", "seed does not hold so many values"),
        ("method", "a run has no setting of that name"),
    ],
)
def test_a_name_that_no_run_has_is_refused(name: str, message: str) -> None:
    run = {"method": {"mask_ratio": [0.1, 0.9], "beta": 2.0}, "seed": 0}
    with pytest.raises(ValueError, match=re.escape(message)):
        with_values(run, {name: 1})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space is empty"),
        ({"a": 3}, "space.a must be such as {uniform: [0.5, 0.95]}, got 3"),
        ({"a": {"normal": [0, 1]}}, "space.a must have one of uniform, loguniform"),
        ({"a": {"uniform": [0, 1], "grid": [1]}}, "space.a must have one of"),
        ({"a": {"uniform": [1, 0]}}, "[low, high], low first, got [1, 0]"),
        ({"a": {"uniform": [0]}}, "two numbers"),
        ({"a": {"loguniform": [0, 1]}}, "must be above 0"),
        ({"a": {"choice": [1, 1]}}, "holds a value twice"),
        ({"a": {"choice": []}}, "must be a list of values"),
        ({"a": {"choice": [1], "when": {"b": 2}}}, "when names b, which is not in space"),
        (
            {"a": {"choice": [1], "when": {"b": 2}}, "b": {"choice": [2], "when": {"a": 1}}},
            "a, b depend on each other in a circle",
        ),
    ],
)
def test_a_space_that_means_nothing_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_space(space)


def test_lists_become_categories_that_a_database_holds() -> None:
    assert category([0.5, 1.0]) == "[0.5, 1.0]"
    assert category("mse") == "mse"
    assert category(None) is None
