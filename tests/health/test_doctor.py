"""Facts of each node, and the findings import re
from them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from ray_mae import cli
from ray_mae.config import DoctorConfig
from ray_mae.health import checks
from ray_mae.health.accelerators import absence
from ray_mae.health.command import doctor
from ray_mae.health.node import Node
from tests.shards import write_shards


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """Two real raylets."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


def findings_of(summary: dict[str, Any], check: str) -> list[dict[str, Any]]:
    return [f for f in summary["findings"] if f["check"] == check]


@pytest.mark.slow
def test_every_node_writes_the_output_and_reads_the_shards(
    tmp_path: Path, two_nodes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(tmp_path / "shards")
    config = DoctorConfig(shards=tmp_path / "shards", output=tmp_path / "runs", file_mb=2)
    summary = doctor(config)
    assert json.loads((tmp_path / "runs/summary.json").read_text()) == summary
    for check in ("output", "shards", "clocks", "shared memory", "DeepSpeed"):
        findings = findings_of(summary, check)
        assert len(findings) == 2, check
        assert len({f["text"].split(": ")[0] for f in findings}) == 2  # each of its own node
    for finding in findings_of(summary, "output") + findings_of(summary, "shards"):
        assert "MB/s" in finding["text"]
    (network,) = findings_of(summary, "network")
    assert network["level"] == "ok"
    assert "a sum over 2 nodes by gloo is right" in network["text"]
    assert findings_of(summary, "versions")[-1]["level"] == "ok"
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["summary.json"]  # nothing is left
    assert capsys.readouterr().out.count("\n") == len(summary["findings"])


@pytest.mark.slow
def test_storage_that_is_not_there_is_a_problem_with_a_remedy(
    tmp_path: Path, two_nodes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "runs")  # not even root can write there
    missing = str(tmp_path / "missing")
    with pytest.raises(SystemExit) as error:
        cli.run(["doctor", "--output", nowhere, "--shards", missing, "--file_mb", "1"])
    assert error.value.code == 1
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("problem")]
    assert sum("output: " in x and "→ give --output on storage" in x for x in lines) == 2
    assert sum("shards: " in x and f"→ ray-mae ingest --output {missing}" in x for x in lines) == 2


def facts(**changes: Any) -> dict[str, Any]:
    sound = {
        "versions": {"python": "3.12.1", "ray": "2.60.0"},
        "shm": 8 * 2**30,
        "temporary": {"free": 50e9, "used": 0.5},
        "open_files": 65536,
        "missing_parts": [],
    }
    return sound | changes


def levels(findings: Any) -> list[str]:
    results = list(findings)
    assert all(f.remedy for f in results if f.level != "ok")
    return [f.level for f in results]


def test_nodes_with_other_versions_are_told_apart() -> None:
    other = facts(versions={"python": "3.12.1", "ray": "2.59.0"})
    findings = list(checks.versions({"a": facts(), "b": other}))
    assert levels(findings) == ["problem", "ok"]
    assert findings[0].text == "ray 2.60.0 on a; ray 2.59.0 on b"
    assert levels(checks.versions({"a": facts(versions={"ray": "missing"})})) == ["problem", "ok"]


def test_little_shared_memory_disk_and_few_files_are_told() -> None:
    assert levels(checks.shared_memory({"a": facts()}, {"a": 9 * 2**30})) == ["problem"]
    assert levels(checks.limits({"a": facts(open_files=1024)})) == ["warning", "ok"]
    full = facts(temporary={"free": 1e9, "used": 0.96})
    assert levels(checks.limits({"a": full})) == ["ok", "problem"]
    assert levels(checks.dashboard({"a": facts(missing_parts=["aiohttp"])}, {})) == ["problem"]
    assert levels(checks.dashboard({"a": facts()}, {"a": "refused"})) == ["warning"]


def test_a_clock_is_blamed_only_beyond_the_doubt() -> None:
    assert levels(checks.clocks({"a": (1.5, 0.1), "b": (-1.5, 0.1)})) == ["warning", "warning"]
    assert levels(checks.clocks({"a": (1.5, 0.6), "b": (0.2, 0.1)})) == ["ok", "ok"]


def test_gpus_that_ray_counts_and_pytorch_does_not_see_are_a_problem() -> None:
    gpu = {"name": "NVIDIA H100", "memory": 79.0, "bf16": True}
    sound = {"gpus": [gpu, gpu], "cuda": "13.0", "nccl": "2.30.7", "all_reduce": None}
    sound["deepspeed"] = {"accelerator": "cuda"}
    assert levels(checks.accelerators({"a": sound}, {"a": 2})) == ["ok"] * 3
    assert levels(checks.accelerators({"a": sound | {"gpus": [gpu]}}, {"a": 2})) == [
        "problem",
        "ok",
    ]
    assert levels(checks.accelerators({"a": sound | {"all_reduce": "hung"}}, {"a": 2})) == [
        "ok",
        "problem",
        "ok",
    ]
    old = sound | {"gpus": [gpu | {"bf16": False}]}
    assert levels(checks.accelerators({"a": old}, {"a": 1})) == ["warning", "ok"]
    broken = sound | {"deepspeed": {"error": "ImportError"}}
    assert levels(checks.accelerators({"a": broken}, {"a": 2}))[-1] == "problem"
    assert levels(checks.accelerators({"a": {"error": "no answer"}}, {"a": 2})) == ["problem"]


@pytest.mark.parametrize(
    ("absence", "remedy"),
    [
        ({"driver": True, "devices": False, "library": False, "gke": False}, "--gpus all.*nvidia.com/gpu"),
        ({"driver": False, "devices": False, "library": False, "gke": False}, "driver is not loaded"),
        ({"driver": True, "devices": True, "library": False, "gke": True}, "/usr/local/nvidia/lib64"),
        ({"driver": True, "devices": True, "library": False, "gke": False}, "NVIDIA_DRIVER_CAPABILITIES"),
        ({"driver": True, "devices": True, "library": True, "gke": False}, "check the driver.*CUDA 13"),
    ],
)  # fmt: skip
def test_gpus_that_a_container_does_not_see_have_the_remedy_that_fits(
    absence: dict[str, bool], remedy: str
) -> None:
    fact = {"gpus": [], "cuda": "13.0", "deepspeed": {"accelerator": "cpu"}, "absence": absence}
    finding = next(checks.accelerators({"a": fact}, {"a": 4}))
    assert "Ray counts 4 GPUs, PyTorch sees 0" in finding.text
    assert re.search(remedy, finding.remedy)


def test_what_there_is_of_a_gpu_is_read_from_the_node(tmp_path: Path) -> None:
    assert absence(tmp_path) | {"library": False} == dict.fromkeys(
        ("driver", "devices", "library", "gke"), False
    )
    for file in (
        "proc/driver/nvidia/version",
        "dev/nvidia0",
        "usr/local/nvidia/lib64/libcuda.so.1",
    ):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert absence(tmp_path) | {"library": False} == {
        "driver": True,
        "devices": True,
        "library": False,
        "gke": True,
    }


def test_a_network_that_loses_sums_is_a_problem() -> None:
    right = {"rate": 1e9, "wrong": 0}
    assert levels(checks.network({"a": right, "b": right}, "nccl")) == ["ok"]
    answers = {"a": right, "b": {"error": "timed out"}, "c": right | {"wrong": 3}}
    assert levels(checks.network(answers, "nccl")) == ["problem", "problem"]


def test_another_folder_under_the_same_path_is_a_problem(tmp_path: Path) -> None:
    answer = Node().write(tmp_path, 1, "a mark that the driver wrote elsewhere")
    assert not answer["seen"]
    (tmp_path / "mark").touch()
    answer = Node().write(tmp_path, 1, "mark") | {"write": 100.0, "read": 100.0, "free": 1e12}
    assert answer["seen"]
    answers = {"a": answer, "b": answer | {"seen": False}, "c": answer | {"free": 5e9}}
    assert levels(checks.output(answers, "/runs")) == ["ok", "problem", "warning"]
