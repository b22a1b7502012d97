"""Ray's private names: in one file, there in this version of Ray, and imported no sooner than used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

import ray_mae
from ray_mae.cluster import ray_private

PRIVATE = re.compile(r"\bray(\.\w+)*\.(_(?!_)\w+|core\.generated|autoscaler\.v2)\b")


def test_one_file_names_private_modules_of_ray() -> None:
    package = Path(ray_mae.__file__).parent
    files = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if PRIVATE.search(file.read_text())
    }
    assert files == {"cluster/ray_private.py"}


@pytest.mark.parametrize("name", ray_private._NAMES)
def test_a_private_name_is_there_in_this_version_of_ray(name: str) -> None:
    assert callable(getattr(ray_private, name))


@pytest.mark.usefixtures("local_ray")
def test_private_functions_answer_for_a_cluster() -> None:
    status, infeasible = ray_private.cluster_status()
    assert status.total_resources()["CPU"] == ray.cluster_resources()["CPU"]
    assert not infeasible
    assert ray_private.metrics_interval() > 0
    assert ray_private.max_resources() == {}
    assert not ray_private.dashboard_url()
    coordinator = ray_private.autoscaling_coordinator()
    ray_private.reserve_cpus(coordinator, "test", 1, 10.0)
    ray_private.release_cpus(coordinator, "test")


def test_admission_and_private_names_are_imported_without_ray() -> None:
    """A driver's start must not wait for them."""
    code = (
        "import sys; import ray_mae.cluster.admission, ray_mae.cluster.pending_nodes; "
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
