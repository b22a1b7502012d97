"""cluster/kubernetes without Kubernetes: schemas made strict, Ray's own reading, and names that must meet."""

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from ray_mae import cli
from ray_mae.cluster.notices import drain_command
from ray_mae.config import PretrainConfig
from ray_mae.config.urls import as_url
from tests.cluster.schemas import SCHEMAS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cluster/kubernetes").glob("*.yaml"))
OBJECTS = [
    pytest.param(each, id=f"{file.name}:{each['kind']}")
    for file in FILES
    for each in yaml.safe_load_all(file.read_text())
]


def read(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "cluster/kubernetes" / name).read_text()))


def check(resource: dict[str, Any]) -> None:
    """Raise where an object, or a pod in it, has a field that is unknown, missing or of another type."""
    if resource["kind"] not in SCHEMAS:
        kubernetes_validate.validate(resource, "1.37", strict=True)
        return
    jsonschema.validate(resource, SCHEMAS[resource["kind"]], jsonschema.Draft202012Validator)
    for pod in pods(resource):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod}
        kubernetes_validate.validate(whole, "1.37", strict=True)
    if options := cluster_spec(resource).get("autoscalerOptions"):  # a container beside the head
        ours = {"version", "idleTimeoutSeconds", "upscalingMode"}
        container = {"name": "autoscaler"} | {k: v for k, v in options.items() if k not in ours}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
        whole = pod | {"spec": {"containers": [container]}}
        kubernetes_validate.validate(whole, "1.37", strict=True)


def cluster_spec(resource: dict[str, Any]) -> dict[str, Any]:
    spec = resource["spec"]
    return spec if resource["kind"] == "RayCluster" else spec.get("rayClusterSpec", {})


def pods(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = cluster_spec(resource)
    for group in [spec.get("headGroupSpec"), *spec.get("workerGroupSpecs", [])]:
        if group:
            yield group["template"]


@pytest.mark.parametrize("resource", OBJECTS)
def test_every_object_is_valid(resource: dict[str, Any]) -> None:
    check(resource)


def _misspell(path: str) -> Callable[[dict[str, Any]], None]:
    def change(resource: dict[str, Any]) -> None:
        *way, last = path.split(".")
        at: Any = resource
        for step in way:
            at = at[int(step) if step.isdigit() else step]
        at[last + "s"] = at.pop(last)

    return change


@pytest.mark.parametrize(
    ("file", "index", "mistake"),
    [
        ("cluster.yaml", 0, "spec.workerGroupSpecs.1.priority"),
        ("cluster.yaml", 0, "spec.workerGroupSpecs.0.maxReplicas"),
        ("cluster.yaml", 0, "spec.autoscalerOptions.env.0.value"),
        ("cluster.yaml", 0, "spec.autoscalerOptions.idleTimeoutSeconds"),
        ("cluster.yaml", 0, "spec.headGroupSpec.template.spec.nodeSelector"),
        ("cluster.yaml", 0, "spec.headGroupSpec.template.spec.containers.0.livenessProbe.httpGet"),
        ("train.yaml", 0, "spec.shutdownAfterJobFinishes"),
        ("train.yaml", 0, "metadata.labels"),
        ("search.yaml", 0, "spec.clusterSelector"),
        ("queue.yaml", 3, "spec.resourceGroups.0.flavors.0.resources.0.nominalQuota"),
        ("storage.yaml", 0, "spec.accessModes"),
        ("metrics.yaml", 0, "spec.podMetricsEndpoints.0.interval"),
    ],
)
def test_a_misspelt_field_is_caught(file: str, index: int, mistake: str) -> None:
    resource = copy.deepcopy(read(file)[index])
    _misspell(mistake)(resource)
    with pytest.raises((jsonschema.ValidationError, ValidationError)):
        check(resource)


@pytest.mark.parametrize("resource", OBJECTS)
def test_pods_are_not_root_and_ask_for_what_they_may_use(resource: dict[str, Any]) -> None:
    for pod in pods(resource):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
        volumes = {v["name"]: v for v in spec["volumes"]}
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            # Ray counts limits, the scheduler requests
            assert container["resources"]["limits"] == container["resources"]["requests"]
            mounts = {m["name"]: m for m in container["volumeMounts"]}
            assert set(mounts) == set(volumes)
            assert all(mounts[n]["readOnly"] for n, v in volumes.items() if "secret" in v)
            # a pod whose secret is missing would wait for ever
            assert all(v["secret"]["optional"] for v in volumes.values() if "secret" in v)
            assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
            assert mounts["shm"]["mountPath"] == "/dev/shm"
            assert gib(volumes["shm"]["emptyDir"]["sizeLimit"]) < gib(
                container["resources"]["limits"]["memory"]
            )
            assert {"readinessProbe", "livenessProbe"} <= set(container)


def gib(text: str) -> int:
    assert text.endswith("Gi")
    return int(text.removesuffix("Gi"))


def share(of: float, *steps: tuple[float, float]) -> float:
    """What is reserved of the first so many, the next so many and so on."""
    reserved = 0.0
    for size, part in steps:
        reserved += min(of, size) * part
        of = max(0.0, of - size)
    return reserved


@pytest.mark.parametrize("resource", OBJECTS)
def test_pods_fit_the_nodes_that_the_guide_asks_for(resource: dict[str, Any]) -> None:
    guide = (ROOT / "docs/cluster.md").read_text()
    sizes = re.findall(r"((?:`[\w-]+`(?:\s+and\s+)?)+) \((\d+) CPUs, (\d+) GiB", guide)
    nodes = {
        name: (int(c), int(m)) for names, c, m in sizes for name in re.findall(r"`(.*?)`", names)
    }
    assert set(nodes) == {"head", "cpu", "gpu-spot", "gpu"}
    for pod in pods(resource):
        (container,) = pod["spec"]["containers"]
        pool = pod["spec"].get("nodeSelector", {}).get("ray-mae/pool", "gpu")
        cpus, memory = nodes[pool]
        # what Google's Kubernetes keeps, which is the most among the clouds, and its own pods
        cpus -= share(cpus, (1, 0.06), (1, 0.01), (2, 0.005), (1000, 0.0025)) + 0.5
        memory -= share(memory, (4, 0.25), (4, 0.2), (8, 0.1), (112, 0.06), (1000, 0.02)) + 0.75
        if pool == "head":  # with the autoscaler, and the pod that submits a RayJob
            cpus, memory = cpus - 1, memory - 0.75
        requests = container["resources"]["requests"]
        assert int(requests["cpu"]) <= cpus
        assert gib(requests["memory"]) <= memory


def test_rays_autoscaler_reads_the_cluster_spot_first_and_from_zero() -> None:
    (resource,) = read("cluster.yaml")
    resource["metadata"]["namespace"] = "default"
    types = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    spot, on_demand, cpu = types["gpu-spot"], types["gpu"], types["cpu"]
    assert spot["resources"] == on_demand["resources"]
    assert (spot["resources"]["GPU"], spot["resources"]["CPU"]) == (4, 44)
    assert "GPU" not in cpu["resources"]
    assert spot["priority"] > on_demand["priority"]
    assert spot["labels"] == {"ray.io/market-type": "spot"}
    assert all(types[name]["min_workers"] == 0 for name in types)
    assert all(types[name]["max_workers"] > 0 for name in types if name != "headgroup")


def test_all_ask_for_a_token_and_the_version_that_is_installed() -> None:
    count = 0
    for file in FILES:
        for resource in read(file.name):
            if spec := cluster_spec(resource):
                assert spec["authOptions"] == {"mode": "token"}
                assert spec["rayVersion"] == version("ray")
                count += 1
    assert count == 2


@pytest.mark.parametrize("file", ["train.yaml", "search.yaml"])
def test_the_commands_of_jobs_are_valid(file: str) -> None:
    config = command_of(file)
    (shards,) = config.folders
    assert as_url(shards) == "s3://YOUR-BUCKET/shards"
    assert as_url(config.output).startswith("s3://YOUR-BUCKET/")


def command_of(file: str) -> Any:
    words = shlex.split(read(file)[0]["spec"]["entrypoint"])
    assert words[:4] == ["exec", "python", "-m", "ray_mae"]
    # where cluster/Dockerfile puts them
    words = [w.replace("/opt/ray-mae/jobs", str(ROOT / "jobs")) for w in words[4:]]
    return cli.parsed(words)[1]


def test_the_training_fits_its_cluster_and_the_queue() -> None:
    config = command_of("train.yaml")
    assert isinstance(config, PretrainConfig)
    (job,) = read("train.yaml")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus, cpus = int(limits["nvidia.com/gpu"]), int(limits["cpu"])
    assert group["replicas"] * gpus == config.scaling.workers
    assert gpus * config.scaling.cpus_per_worker < cpus  # the rest is for reading data
    *flavours, queue, local = read("queue.yaml")
    quotas = {
        f["name"]: {r["name"]: r["nominalQuota"] for r in f["resources"]}
        for f in queue["spec"]["resourceGroups"][0]["flavors"]
    }
    assert list(quotas) == ["ray-mae-cpu", "ray-mae-spot", "ray-mae-on-demand"]
    assert {f["metadata"]["name"] for f in flavours} == set(quotas)
    for name in ("ray-mae-spot", "ray-mae-on-demand"):
        assert int(quotas[name]["nvidia.com/gpu"]) >= group["replicas"] * gpus
        assert int(quotas[name]["cpu"]) >= group["replicas"] * cpus
        assert gib(quotas[name]["memory"]) >= group["replicas"] * gib(limits["memory"])
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]


def test_names_that_must_meet_do() -> None:
    (cluster,) = read("cluster.yaml")
    (search,) = read("search.yaml")
    (claim,) = read("storage.yaml")
    assert search["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    pools = {p["spec"]["nodeSelector"]["ray-mae/pool"] for p in pods(cluster)}
    assert pools == {"head", "cpu", "gpu-spot", "gpu"}
    labels = {f["spec"]["nodeLabels"]["ray-mae/pool"] for f in read("queue.yaml")[:3]}
    assert labels <= pools
    text = (ROOT / "cluster/kubernetes/cluster.yaml").read_text()
    (with_disk,) = yaml.safe_load_all(re.sub(r"(?m)^( +)# (?=- {name: data)", r"\1", text))
    check(with_disk)
    assert json.dumps(with_disk).count('"claimName": "ray-mae"') == len([*pods(cluster)])
    assert json.dumps(with_disk).count('"mountPath": "/data"') == len([*pods(cluster)])
    assert "/data" not in json.dumps([cluster, *read("train.yaml"), search])
    assert claim["metadata"]["name"] == "ray-mae"
    images = {c["image"] for r in (cluster, *read("train.yaml")) for p in pods(r)
              for c in p["spec"]["containers"]}  # fmt: skip
    assert len(images) == 1


def test_the_control_stores_fault_tolerance_is_an_option_that_can_be_taken() -> None:
    text = (ROOT / "cluster/kubernetes/cluster.yaml").read_text()
    chosen = re.sub(r"(?m)^  # (?=gcsFault|  redis)", "  ", text)
    (resource,) = yaml.safe_load_all(chosen)
    assert resource["spec"]["gcsFaultToleranceOptions"]["redisAddress"]
    check(resource)


@pytest.mark.parametrize("file", ["cluster.yaml", "train.yaml"])
def test_heads_stay_where_they_are_and_workers_are_drained_before_they_end(file: str) -> None:
    (resource,) = read(file)
    head, *workers = pods(resource)
    kept = head["metadata"]["annotations"]
    assert kept["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert kept["karpenter.sh/do-not-disrupt"] == "true"
    for worker in workers:
        (container,) = worker["spec"]["containers"]
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        ((drained, slept),) = re.findall(r"^(ray drain-node .*) && sleep (\d+)$", command[2])
        words = shlex.split(drained)
        assert words[: len(words) - 3] == [*drain_command("x", 1)[:4], "--reason-message"]
        left = int(words[-1])
        assert int(slept) < left < worker["spec"]["terminationGracePeriodSeconds"]
        assert "annotations" not in worker.get("metadata", {})  # a spot node must be able to drain


@pytest.mark.parametrize("file", ["cluster.yaml", "train.yaml"])
def test_every_pod_may_use_the_registrys_login(file: str) -> None:
    (resource,) = read(file)
    for pod in pods(resource):
        assert pod["spec"]["imagePullSecrets"] == [{"name": "ray-mae-registry"}]
    assert (
        "create secret docker-registry ray-mae-registry" in (ROOT / "docs/cluster.md").read_text()
    )
