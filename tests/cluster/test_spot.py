"""When Ray's autoscaler goes from spot to on-demand nodes: its own scheduler, on our files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
    CloudResourceMonitor,
)
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

CLUSTER = Path(__file__).parents[2] / "cluster"


def read(file: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTER / file).read_text())
    return config


def kubernetes() -> dict[str, Any]:
    resource = read("kubernetes/cluster.yaml")
    resource["metadata"]["namespace"] = "default"
    return _derive_autoscaling_config_from_ray_cr(resource)


def started(config: dict[str, Any], spot: str, status: int | None) -> dict[str, int]:
    """Nodes by type that 8 workers with a GPU get, after something happened to a spot node."""
    monitor = CloudResourceMonitor()
    if status is not None:
        event = InstanceUpdateEvent(new_instance_status=status, instance_type=spot)
        monitor.notify([event])
    worker = ResourceRequestUtil.make({"GPU": 1, "CPU": 4})
    types = AutoscalingConfig(config, skip_content_hash=True)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=types.get_node_type_configs(),
        max_num_nodes=types.get_max_num_nodes(),
        gang_resource_requests=[GangResourceRequest(requests=[worker] * 8)],
        cloud_resource_availabilities=monitor.get_resource_availabilities(),
        recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
    )
    reply = ResourceDemandScheduler().schedule(request)
    return {r.instance_type: r.count for r in reply.to_launch if "head" not in r.instance_type}


def test_on_kubernetes_spot_comes_first_and_on_demand_when_it_did_not_come_in_time() -> None:
    assert started(kubernetes(), "gpu-spot", None) == {"gpu-spot": 2}
    assert started(kubernetes(), "gpu-spot", Instance.ALLOCATION_TIMEOUT) == {"gpu": 2}


def test_the_time_that_a_spot_pod_may_take_is_a_setting_that_ray_reads() -> None:
    (variable,) = read("kubernetes/cluster.yaml")["spec"]["autoscalerOptions"]["env"]
    program = (
        "from ray.autoscaler.v2.instance_manager.config import InstanceReconcileConfig as config\n"
        "print(config().allocate_status_timeout_s)"
    )
    environment = os.environ | {variable["name"]: variable["value"]}
    read_by_ray = subprocess.check_output([sys.executable, "-c", program], env=environment)
    assert int(read_by_ray) == 900


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_on_a_cloud_that_refuses_spot_only_a_person_brings_on_demand(cloud: str) -> None:
    """As docs/cluster.md says; a Ray that does it by itself fails this test."""
    config = read(f"launcher/{cloud}.yaml")
    assert started(config, "gpu_spot", None) == {"gpu_spot": 2}
    assert started(config, "gpu_spot", Instance.ALLOCATION_FAILED) == {"gpu_spot": 2}
    config["available_node_types"]["gpu_spot"]["max_workers"] = 0
    assert started(config, "gpu_spot", None) == {"gpu": 2}
