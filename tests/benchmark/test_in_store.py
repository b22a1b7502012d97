"""A benchmark whose folder lies in an object store."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_mae.benchmarking.command import benchmark_fit, benchmark_open, benchmark_report
from ray_mae.cluster.runtime import cluster
from ray_mae.config.urls import as_url, opened
from ray_mae.store import Mirror, require_one_node, writes_to_stores
from tests.benchmark.suites import study_shards, study_suite
from tests.test_store import Settings


def times(output: Any) -> dict[str, Any]:
    """When each fit was put."""
    found = output.fs.find(f"{output.path}/fits", detail=True)
    return {name: facts["LastModified"] for name, facts in found.items()}


@pytest.mark.slow
def test_each_phase_goes_on_with_what_the_store_holds(bucket: str, tmp_path: Path) -> None:
    output = opened(f"{bucket}/suite")
    small: dict[str, Any] = {"views": ["all"], "small": {"repeats": 0}}
    config = replace(
        study_suite(tmp_path, study_shards(tmp_path / "shards"), **small), output=output
    )
    with cluster(cpus=3):
        fitted = benchmark_fit(config)
        assert fitted["failed"] == 0
        fits = times(output)
        assert len(fits) == fitted["fits"] > 10
        benchmark_fit(config)
        assert times(output) == fits  # none was fitted again
        assert benchmark_open(config)["opened"] == 1
    page = benchmark_report(config)["page"]
    assert page == f"{as_url(output)}/report.html"
    assert times(output) == fits
    assert json.loads((output / "summary.json").read_text())["page"] == page


def test_a_mirrored_command_says_that_it_wants_one_node(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True}, {"Alive": True}, {"Alive": False}]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    with Mirror(opened(f"{bucket}/other")) as mirror:
        require_one_node(mirror.local)  # of no command

    @writes_to_stores()
    def command(config: Settings) -> dict[str, Any]:
        require_one_node(config.output)
        return {}

    with pytest.raises(ValueError, match=f"--output {bucket}/many is a URL.* from 2 nodes"):
        command(Settings(opened(f"{bucket}/many")))
    nodes.pop(0)
    assert command(Settings(opened(f"{bucket}/one"))) == {}
