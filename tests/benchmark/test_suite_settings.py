"""A suite's file: what is wrong in it is named before anything is read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_mae.cli import parsed
from ray_mae.config import SuiteConfig
from ray_mae.config.base import from_dict, to_dict

SUITE: dict[str, Any] = {
    "output": "out",
    "encoders": {"ours": {"paths": ["a", "b"]}, "random": {"kind": "random", "like": "ours"}},
    "datasets": {"here": {"shards": "s"}, "there": {"shards": "t", "role": "external"}},
    "tasks": {"findings": {"dataset": "here", "test": ["here", "there"]}},
    "contrasts": [["ours", "random"]],
}


def suite(**changes: Any) -> SuiteConfig:
    return SuiteConfig(**{**SUITE, **changes})


def test_a_suite_is_the_same_from_yaml_from_python_and_from_its_own_values(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(yaml.safe_dump(SUITE))
    _, read = parsed(["benchmark", "fit", "--config", str(file)])
    assert to_dict(read) == to_dict(suite())
    assert from_dict(SuiteConfig, to_dict(suite())) == suite()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"encoders": {}}, "encoders names nothing"),
        ({"encoders": {"a b": {"paths": "x"}}}, "encoders.a b: a name has letters"),
        (
            {"encoders": {"ours": {"kind": "weights"}}},
            "encoders.ours of kind weights names no paths",
        ),
        (
            {"encoders": {"p": {"kind": "pixels", "paths": "x"}}},
            "encoders.p of kind pixels takes no",
        ),
        ({"encoders": {"r": {"kind": "random", "like": "oours"}}}, "encoders.r.like: there is no"),
        ({"encoders": {"ours": {"paths": "a", "kind": "weigths"}}}, "did you mean weights"),
        ({"encoders": {"ours": {"paths": "a", "crop_size": 3}}}, "encoders.ours.crop_size must be"),
        ({"tasks": {"t": {"dataset": "her"}}}, "tasks.t: there is no 'her'; did you mean here"),
        ({"tasks": {"t": {"dataset": "there"}}}, "there is external, so nothing is fitted on it"),
        ({"tasks": {"t": {"dataset": "here", "heads": ["liner"]}}}, "did you mean linear"),
        ({"tasks": {"t": {"dataset": "here", "kind": "number"}}}, "must name the one number"),
        (
            {"heads": {"segment": {"encoders": ["our"]}}},
            "heads.segment.encoders: there is no 'our'",
        ),
        ({"contrasts": [["ours", "ours"]]}, "pairs of two encoders"),
        ({"contrasts": [["ours", "radnom"]]}, "did you mean random"),
        ({"heads": {"use": ["linear", "kn"]}}, "did you mean knn"),
        ({"encoders": {"ours": {"paths": ["a", "b", "a"]}}}, "encoders.ours.paths names a twice"),
        ({"label_counts": {"studies": [50, 50]}}, "label_counts.studies names 50 twice"),
        ({"heads": {"use": ["knn", "knn"]}}, "heads.use names knn twice"),
        ({"contrasts": [["ours", "random"]] * 2}, "contrasts names .* twice"),
        ({"trust": {"repeats": "where"}}, "trust.repeats: there is no 'where'; did you mean"),
    ],
)
def test_what_does_not_go_together_is_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        suite(**changes)
